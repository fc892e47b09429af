//! The block base against the dense base over its decoded weight, and against sums in f64.

use super::*;
use crate::mmap::FileBytes;
use luthier_kernels::isa;

/// Deterministic numbers in [-1, 1).
fn noise(n: usize, seed: u32) -> Vec<f64> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A matrix of random blocks with sensible scales.
fn matrix(encoding: Encoding, d_out: usize, d_in: usize, seed: u32) -> Stored {
    let (_, unit) = encoding.unit();
    let noise = noise(d_out * d_in / BLOCK * unit, seed);
    let mut bytes: Vec<u8> = noise.iter().map(|x| ((x + 1.0) * 127.9) as u8).collect();
    for (block, seed) in bytes.chunks_exact_mut(unit).zip(noise) {
        block[..2].copy_from_slice(&f16::from_f64(0.02 + 0.01 * seed).to_le_bytes());
        if encoding == Encoding::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f64(-0.1 + 0.05 * seed).to_le_bytes());
        }
    }
    let range = 0..bytes.len();
    let owner = Arc::new(FileBytes::from_vec("w", bytes));
    Stored { name: "w".into(), encoding, shape: vec![d_out, d_in], owner, range }
}

fn activations(rows: usize, cols: usize, dtype: DType, seed: u32) -> Tensor {
    Tensor::from_f64(&[rows, cols], &noise(rows * cols, seed), dtype, Account::Workspace)
}

const ENCODINGS: [Encoding; 3] = [Encoding::Q8_0, Encoding::Q4_0, Encoding::Q4_1];

/// `a [m, k] b^T`, in f64.
fn product(a: &Tensor, b: &Tensor, m: usize, k: usize, n: usize) -> Vec<f64> {
    let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
    let at = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
    (0..m * n).map(|ij| at(ij / n, ij % n)).collect()
}

fn assert_close(got: &Tensor, expected: &[f64], tolerance: f64, what: &str) {
    let scale = expected.iter().fold(1.0f64, |m, x| m.max(x.abs()));
    for (i, (g, e)) in got.to_f64_vec().iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what}: element {i}: {g}, expected {e}");
    }
}

/// sqrt(k) 2^-24 for sums of up to 192 products in f32; bf16 rounds the weight and the result to 2^-9.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 192f64.sqrt() * 2f64.powi(-23),
        _ => 2f64.powi(-7),
    }
}

#[test]
fn products_equal_those_of_the_decoded_weight() {
    for encoding in ENCODINGS {
        // The second matrix has more rows than one panel of its width.
        for (d_out, d_in, ns) in [(37, 96, &[0, 1, 2, 5][..]), (PANEL / 4096 + 70, 4096, &[1, 3])] {
            let stored = matrix(encoding, d_out, d_in, 3);
            let base = BlockBase::new(&stored).unwrap();
            let w = base.weight(DType::F64);
            let w_t = {
                let w = w.to_f64_vec();
                let t: Vec<f64> = (0..d_in * d_out).map(|i| w[i % d_out * d_in + i / d_out]).collect();
                Tensor::from_f64(&[d_in, d_out], &t, DType::F64, Account::Workspace)
            };
            for &n in ns {
                for dtype in [DType::F64, DType::F32, DType::Bf16] {
                    let what = format!("{encoding} {d_out}x{d_in} n {n} {dtype}");
                    let x = activations(n, d_in, dtype, 7);
                    let exact = product(&x, &w, n, d_in, d_out);
                    let mut y = activations(n, d_out, dtype, 8);
                    let before = y.to_f64_vec();
                    base.forward_into(&x, &mut y, false);
                    assert_close(&y, &exact, tolerance(dtype) * 8.0, &what);
                    let mut y = Tensor::from_f64(&[n, d_out], &before, dtype, Account::Workspace);
                    base.forward_into(&x, &mut y, true);
                    let sum: Vec<f64> = exact.iter().zip(&before).map(|(a, b)| a + b).collect();
                    assert_close(&y, &sum, tolerance(dtype) * 8.0, &what);

                    let dy = activations(n, d_out, dtype, 9);
                    let exact = product(&dy, &w_t, n, d_out, d_in);
                    let mut dx = activations(n, d_in, dtype, 10);
                    let before = dx.to_f64_vec();
                    base.input_grad_into(&dy, &mut dx, false);
                    assert_close(&dx, &exact, tolerance(dtype) * 8.0, &what);
                    let mut dx = Tensor::from_f64(&[n, d_in], &before, dtype, Account::Workspace);
                    base.input_grad_into(&dy, &mut dx, true);
                    let sum: Vec<f64> = exact.iter().zip(&before).map(|(a, b)| a + b).collect();
                    assert_close(&dx, &sum, tolerance(dtype) * 8.0, &what);
                }
            }
        }
    }
}

#[test]
fn a_single_row_has_the_same_bits_on_every_tier() {
    for encoding in ENCODINGS {
        let base = BlockBase::new(&matrix(encoding, 70, 192, 5)).unwrap();
        let x = activations(1, 192, DType::F32, 6);
        let mut results = Vec::new();
        isa::on_each_tier(|_| {
            let mut y = Tensor::zeros(&[1, 70], DType::F32, Account::Workspace);
            base.forward_into(&x, &mut y, false);
            results.push(y.slice::<f32>().to_vec());
        });
        assert!(!results.is_empty() && results.iter().all(|r| r == &results[0]), "{encoding}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let base = BlockBase::new(&matrix(Encoding::Q4_1, 300, 128, 5)).unwrap();
    for n in [1, 4] {
        let (x, dy) = (activations(n, 128, DType::Bf16, 6), activations(n, 300, DType::Bf16, 7));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut y = Tensor::zeros(&[n, 300], DType::Bf16, Account::Workspace);
                let mut dx = Tensor::zeros(&[n, 128], DType::Bf16, Account::Workspace);
                base.forward_into(&x, &mut y, false);
                base.input_grad_into(&dy, &mut dx, false);
                (y.bytes().to_vec(), dx.bytes().to_vec())
            })
        };
        let one = run(1);
        assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one), "n {n}");
    }
}

#[test]
fn rows_are_those_of_the_decoded_weight() {
    for encoding in ENCODINGS {
        let base = BlockBase::new(&matrix(encoding, 40, 64, 11)).unwrap();
        let picked = [39u32, 0, 0, 17];
        for dtype in [DType::F64, DType::F32, DType::Bf16] {
            let w = base.weight(dtype).to_f64_vec();
            let mut out = Tensor::zeros(&[4, 64], dtype, Account::Workspace);
            base.rows_into(&picked, &mut out);
            let expected: Vec<f64> =
                picked.iter().flat_map(|&r| w[r as usize * 64..(r as usize + 1) * 64].to_vec()).collect();
            assert_eq!(out.to_f64_vec(), expected, "{encoding} {dtype}");
        }
    }
}

#[test]
fn plain_numbers_are_used_in_place_or_converted() {
    let values = [1.0f32, -2.5, 1.0 / 3.0, 0.0];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let owner = Arc::new(FileBytes::from_vec("w", bytes));
    let stored = Stored { name: "w".into(), encoding: Encoding::F32, shape: vec![2, 2], owner, range: 0..16 };
    let as_is = stored.to_base(StoreAs::AsIs).unwrap();
    assert_eq!(as_is.weight(DType::F32).slice::<f32>(), values);
    assert_eq!(as_is.weight(DType::F32).bytes().as_ptr(), stored.bytes().as_ptr(), "not a copy");
    let rounded = stored.to_base(StoreAs::Bf16).unwrap();
    assert_eq!(rounded.bytes(), 8);
    assert_eq!(rounded.weight(DType::Bf16).slice::<bf16>()[2], bf16::from_f32(1.0 / 3.0));
    let vector = Stored { shape: vec![4], ..stored.clone() };
    assert!(matches!(vector.to_base(StoreAs::AsIs), Err(Error::NotAMatrix { .. })));
    let ids = Stored { encoding: Encoding::I32, ..stored };
    assert!(matches!(ids.to_base(StoreAs::F32), Err(Error::NotAWeight { .. })));
}
