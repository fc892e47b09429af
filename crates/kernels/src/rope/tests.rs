use super::*;
use crate::gradient_check::{against_f64, check, normal};

fn spec(rotary_dim: usize) -> RopeSpec {
    RopeSpec { theta: 10_000.0, rotary_dim, scaling: RopeScaling::None }
}

fn yarn(attention_factor: Option<f64>) -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        original_max: 64.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    }
}

#[test]
fn scalings_are_those_of_transformers() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max: 1024.0,
    };
    let mut mscale = yarn(None);
    if let RopeScaling::Yarn { beta_fast, beta_slow, mscale, mscale_all_dim, truncate, .. } = &mut mscale {
        (*beta_fast, *beta_slow, *truncate) = (16.0, 2.0, false);
        (*mscale, *mscale_all_dim) = (Some(1.0), Some(0.5));
    }
    let cases = [
        ("default", 10_000.0, RopeScaling::None),
        ("theta", 500_000.0, RopeScaling::None),
        ("linear", 10_000.0, RopeScaling::Linear { factor: 4.0 }),
        ("llama3", 500_000.0, llama3),
        ("yarn", 10_000.0, yarn(None)),
        ("yarn-mscale", 10_000.0, mscale),
        ("yarn-attention", 10_000.0, yarn(Some(1.25))),
    ];
    let golden = include_str!("../../golden/rope.txt").lines().skip(1).collect::<Vec<_>>();
    assert_eq!(golden.len(), 5 * cases.len());
    for (lines, (name, theta, scaling)) in golden.chunks(5).zip(cases) {
        assert_eq!(lines[0], name);
        let numbers = |i: usize| lines[i].split(' ').map(|v| v.parse::<f64>().unwrap()).collect::<Vec<_>>();
        let rope = Rope::new(&RopeSpec { theta, rotary_dim: 16, scaling });
        assert!((rope.attention_factor() - numbers(2)[0]).abs() < 1e-15, "{name}");
        let half = rope.inverse.len();
        for (i, want) in numbers(1).into_iter().enumerate() {
            // torch's f32 power is within an ulp of the exact one; what follows adds half an ulp an operation.
            let bound = 4.0 * f64::from(f32::EPSILON) * want;
            assert!(
                (rope.inverse_f32[i] - want).abs() <= bound,
                "{name}: {i}, {} {want}",
                rope.inverse_f32[i]
            );
            assert!((rope.inverse_frequencies()[i] - want).abs() <= 2.0 * bound, "{name}: {i}");
        }
        let table = rope.table(1000, DType::F32);
        let row = &table.to_f64_vec()[1000 * 2 * half..][..2 * half];
        for (i, want) in numbers(3).into_iter().chain(numbers(4)).enumerate() {
            // An error of e in the frequency is one of 1000 e in the angle.
            let bound = 1000.0 * 4.0 * f64::from(f32::EPSILON) * numbers(1)[i % half] + 1e-6;
            assert!((row[i] - want).abs() <= bound, "{name}: {i}, {} {want}", row[i]);
        }
    }
}

#[test]
fn gradients() {
    let positions: Arc<[u32]> = Arc::from([0, 5, 300]);
    let table = Arc::new(Rope::new(&RopeSpec { scaling: yarn(Some(1.5)), ..spec(4) }));
    check(&[normal(&[3, 12], DType::F64, 1)], |tape, v| {
        vec![rope(tape, v[0].clone(), &positions, 2, &table)]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    for (n, heads, head_dim, rotary_dim) in
        [(0, 2, 8, 8), (1, 1, 2, 2), (3, 3, 64, 64), (65, 2, 64, 62), (64, 1, 63, 6), (1000, 2, 16, 16)]
    {
        let positions = (0..n as u32).collect::<Arc<[u32]>>();
        let table = Arc::new(Rope::new(&spec(rotary_dim)));
        // The angle's own f32 error, position * 2^-23 at the first pairs, on inputs of at most 5.
        let bound = 20.0 + 8.0 * n as f64;
        against_f64(&[normal(&[n, heads * head_dim], DType::F64, 1)], bound, |tape, v| {
            vec![rope(tape, v[0].clone(), &positions, heads, &table)]
        });
    }
}

#[test]
fn reference_of_narrow_types_agrees_and_back_undoes() {
    let table = Rope::new(&spec(8));
    let positions = [7, 1, 900];
    for dtype in [DType::F32, DType::Bf16] {
        let x = normal(&[3, 20], dtype, 1);
        let fast = turn(x.clone(), &positions, 2, &table, Turn::Forward);
        let again = turn(fast.copy(Account::Workspace), &positions, 2, &table, Turn::Back);
        let mut want = x.copy(Account::Workspace);
        let angles = table.table(900, DType::F32).to_f64_vec();
        match dtype {
            DType::F32 => reference::turn::<f32>(want.slice_mut(), &positions, 2, &angles, 4, Turn::Forward),
            _ => reference::turn::<luthier_tensor::bf16>(
                want.slice_mut(),
                &positions,
                2,
                &angles,
                4,
                Turn::Forward,
            ),
        }
        let ulp = 2.0 * crate::gradient_check::half_ulp(dtype);
        assert!(crate::gradient_check::distance(&fast, &want) <= 2.0 * ulp);
        assert!(crate::gradient_check::distance(&again, &x) <= 8.0 * ulp);
        // Channels beyond rotary_dim stay.
        assert_eq!(fast.to_f64_vec()[8..10], x.to_f64_vec()[8..10]);
    }
}

#[test]
fn a_unique_input_is_turned_in_place() {
    let table = Arc::new(Rope::new(&spec(8)));
    let positions: Arc<[u32]> = Arc::from([3, 4]);
    let x = normal(&[2, 8], DType::F32, 1);
    let kept = x.to_f64_vec();
    let (shared, at) = (x.clone(), x.bytes().as_ptr());
    let tape = Tape::off();
    let first = rope(&tape, Var::constant(x), &positions, 1, &table).into_value();
    assert_ne!(first.bytes().as_ptr(), at);
    assert_eq!(shared.to_f64_vec(), kept);
    let second = rope(&tape, Var::constant(shared), &positions, 1, &table).into_value();
    assert_eq!(second.bytes().as_ptr(), at);
    assert_eq!(first.bytes(), second.bytes());
}

#[test]
fn the_table_grows_and_keeps_its_rows() {
    let table = Rope::new(&spec(8));
    let short = table.table(3, DType::F32);
    let long = table.table(1000, DType::F32);
    assert_eq!((short.dim(0), long.dim(0), table.table(1023, DType::F32).dim(0)), (256, 1024, 1024));
    assert_eq!(short.bytes(), long.narrow(0..256).bytes());
}
