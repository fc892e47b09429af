//! Products against the definition: shapes, layouts, types, tiers, thread counts.

use super::*;
use crate::isa::{on_each_tier, with_tier};
use half::{bf16, f16};

const SIZES: [usize; 7] = [0, 1, 3, 63, 64, 65, 130];

/// Numbers in (-1, 1) that f16 and bf16 hold exactly.
fn noise(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (((i + 1) * (2 * seed + 7919)) % 509) as f32 / 256.0 - 1.0)
        .map(|x| bf16::from_f32(x).to_f32())
        .collect()
}

/// A matrix in some type and layout.
enum Owned {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    F64(Vec<f64>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F32,
    Bf16,
    F16,
    F64,
}

impl Owned {
    fn new(x: &[f32], ty: Type) -> Self {
        match ty {
            Type::F32 => Owned::F32(x.to_vec()),
            Type::Bf16 => Owned::Bf16(x.iter().map(|x| bf16::from_f32(*x)).collect()),
            Type::F16 => Owned::F16(x.iter().map(|x| f16::from_f32(*x)).collect()),
            Type::F64 => Owned::F64(x.iter().map(|x| f64::from(*x)).collect()),
        }
    }

    fn view(&self, rows: usize, cols: usize, layout: Layout) -> MatRef<'_> {
        let (rs, cs) = layout.strides(rows, cols);
        match self {
            Owned::F32(x) => MatRef::strided(&x[..], rows, cols, rs, cs),
            Owned::Bf16(x) => MatRef::strided(&x[..], rows, cols, rs, cs),
            Owned::F16(x) => MatRef::strided(&x[..], rows, cols, rs, cs),
            Owned::F64(x) => MatRef::strided(&x[..], rows, cols, rs, cs),
        }
    }

    fn view_mut(&mut self, rows: usize, cols: usize, layout: Layout) -> MatMut<'_> {
        let (rs, cs) = layout.strides(rows, cols);
        match self {
            Owned::F32(x) => MatMut::strided(&mut x[..], rows, cols, rs, cs),
            Owned::Bf16(x) => MatMut::strided(&mut x[..], rows, cols, rs, cs),
            Owned::F64(x) => MatMut::strided(&mut x[..], rows, cols, rs, cs),
            Owned::F16(_) => unreachable!("f16 is not written"),
        }
    }

    /// Elements of the view, row-major.
    fn read(&self, rows: usize, cols: usize, layout: Layout) -> Vec<f64> {
        let view = self.view(rows, cols, layout);
        (0..rows).flat_map(|i| (0..cols).map(move |j| view.get(i, j))).collect()
    }

    fn bits(&self) -> Vec<u64> {
        match self {
            Owned::F32(x) => x.iter().map(|x| u64::from(x.to_bits())).collect(),
            Owned::Bf16(x) => x.iter().map(|x| u64::from(x.to_bits())).collect(),
            Owned::F16(x) => x.iter().map(|x| u64::from(x.to_bits())).collect(),
            Owned::F64(x) => x.iter().map(|x| x.to_bits()).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Rows,
    Columns,
    /// Rows with gaps.
    Padded,
    /// Neither axis contiguous.
    Gaps,
}

impl Layout {
    fn strides(self, rows: usize, cols: usize) -> (usize, usize) {
        match self {
            Layout::Rows => (cols, 1),
            Layout::Columns => (1, rows),
            Layout::Padded => (cols + 5, 1),
            Layout::Gaps => (2 * cols + 1, 2),
        }
    }

    fn len(rows: usize, cols: usize) -> usize {
        (2 * cols + 6) * rows + 2
    }
}

/// Largest magnitudes are 1, so a sum of k products has scale k^(1/2); inputs are exact in every type, so only the sum's
/// `sqrt(k) 2^-24` per term and the output's rounding (2^-9 of values up to k in bf16, 2^-24 in f32) remain.
fn tolerance(k: usize, out: Type, value: f64) -> f64 {
    let sum = (k as f64).sqrt().max(1.0) * 2f64.powi(-24) * (k as f64).sqrt().max(1.0) * 4.0;
    let round = match out {
        Type::Bf16 => 2f64.powi(-8),
        Type::F64 => 0.0,
        _ => 2f64.powi(-23),
    };
    sum + round * value.abs().max(2f64.powi(-10))
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    types: (Type, Type, Type),
    layouts: (Layout, Layout, Layout),
    options: Options,
}

fn run_case(case: Case) -> (Owned, Vec<f64>) {
    let Case { m, n, k, types, layouts, options } = case;
    let a = Owned::new(&noise(Layout::len(m, k), 1), types.0);
    let b = Owned::new(&noise(Layout::len(k, n), 2), types.1);
    let mut c = Owned::new(&noise(Layout::len(m, n), 3), types.2);
    let old = c.read(m, n, layouts.2);
    let (ra, rb) = (a.view(m, k, layouts.0), b.view(k, n, layouts.1));
    let expected = reference::gemm(&ra, &rb, options.alpha, options.accumulate.then_some(&old[..]));
    gemm(c.view_mut(m, n, layouts.2), ra, rb, options);
    (c, expected)
}

fn check(case: Case, tier: Tier) {
    let (c, expected) = run_case(case);
    let got = c.read(case.m, case.n, case.layouts.2);
    for (at, (x, y)) in got.iter().zip(&expected).enumerate() {
        let bound = tolerance(case.k, case.types.2, *y);
        assert!((x - y).abs() <= bound, "{tier} {case:?} at {at}: {x} against {y}, bound {bound:e}");
    }
    // Nothing outside the view changed.
    let before = Owned::new(&noise(Layout::len(case.m, case.n), 3), case.types.2).bits();
    let (rs, cs) = case.layouts.2.strides(case.m, case.n);
    let mut inside = vec![false; before.len()];
    (0..case.m).for_each(|i| (0..case.n).for_each(|j| inside[i * rs + j * cs] = true));
    for ((at, x), y) in c.bits().iter().enumerate().zip(&before) {
        assert!(inside[at] || x == y, "{tier} {case:?} wrote outside its view at {at}");
    }
}

const PLAIN: Options = Options { alpha: 1.0, accumulate: false, compute: Compute::Auto };

#[test]
fn odd_sizes() {
    on_each_tier(|tier| {
        for m in SIZES {
            for n in SIZES {
                for k in SIZES {
                    for ty in [Type::Bf16, Type::F32] {
                        let layouts = (Layout::Rows, Layout::Columns, Layout::Rows);
                        check(Case { m, n, k, types: (ty, ty, ty), layouts, options: PLAIN }, tier);
                    }
                }
            }
        }
    });
}

#[test]
fn every_layout_and_type() {
    let all = [Layout::Rows, Layout::Columns, Layout::Padded, Layout::Gaps];
    on_each_tier(|tier| {
        let mut shapes = [(5, 37, 19), (29, 18, 33), (13, 8, 70), (3, 5, 2), (1, 40, 9)].into_iter().cycle();
        for la in all {
            for lb in all {
                for lc in all {
                    for ta in [Type::F32, Type::Bf16, Type::F16, Type::F64] {
                        for tb in [Type::F32, Type::Bf16, Type::F16, Type::F64] {
                            for tc in [Type::F32, Type::Bf16, Type::F64] {
                                let (m, n, k) = shapes.next().unwrap();
                                let options =
                                    Options { alpha: 0.5, accumulate: true, compute: Compute::Auto };
                                let (types, layouts) = ((ta, tb, tc), (la, lb, lc));
                                check(Case { m, n, k, types, layouts, options }, tier);
                            }
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn long_sums_take_several_passes() {
    on_each_tier(|tier| {
        for k in [2047, 2048, 2050, 5001] {
            for ty in [Type::Bf16, Type::F32] {
                for la in [Layout::Rows, Layout::Columns] {
                    let case = Case {
                        m: 27,
                        n: 70,
                        k,
                        types: (ty, Type::F32, Type::Bf16),
                        layouts: (la, Layout::Rows, Layout::Rows),
                        options: Options { accumulate: true, ..PLAIN },
                    };
                    check(case, tier);
                }
            }
        }
    });
}

#[test]
fn rows_that_alias_in_the_cache_are_packed() {
    on_each_tier(|tier| {
        let layouts = (Layout::Rows, Layout::Columns, Layout::Rows);
        check(
            Case {
                m: 130,
                n: 40,
                k: 1024,
                types: (Type::Bf16, Type::Bf16, Type::F32),
                layouts,
                options: PLAIN,
            },
            tier,
        );
    });
}

#[test]
fn bits_do_not_depend_on_threads_or_on_other_rows() {
    on_each_tier(|tier| {
        for (m, n, k) in [(130, 200, 96), (700, 64, 70), (3, 500, 900), (260, 8, 1030), (100, 130, 4500)] {
            for ty in [Type::Bf16, Type::F32, Type::F64] {
                let types = (ty, ty, if ty == Type::F64 { ty } else { Type::F32 });
                let layouts = (Layout::Columns, Layout::Rows, Layout::Rows);
                let case = Case { m, n, k, types, layouts, options: PLAIN };
                let on = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| run_case(case).0)
                };
                let one = on(1);
                assert_eq!(one.bits(), on(2).bits(), "{tier} {case:?}");
                assert_eq!(one.bits(), on(3).bits(), "{tier} {case:?}");
                // The first row alone has the same bits as among the others.
                let a = Owned::new(&noise(Layout::len(m, k), 1), ty);
                let b = Owned::new(&noise(Layout::len(k, n), 2), ty);
                let mut row = Owned::new(&vec![0.0; n], types.2);
                let all = a.view(m, k, layouts.0);
                let first = MatRef { rows: 1, ..all };
                gemm_serial(row.view_mut(1, n, Layout::Rows), first, b.view(k, n, layouts.1), PLAIN);
                assert_eq!(row.bits(), one.bits()[..n], "{tier} {case:?}: first row alone");
            }
        }
    });
}

#[test]
fn shortcuts_for_few_rows_wide_operands_and_long_sums_keep_the_bits() {
    on_each_tier(|tier| {
        // Few rows, a wide operand read in place, sums beyond the passes that stay in registers; none is square or whole.
        for (m, n, k) in
            [(1, 100, 70), (4, 33, 64), (3, 640, 576), (8, 500, 34), (60, 530, 66), (5, 70, 8300)]
        {
            for ty in [Type::Bf16, Type::F32] {
                for out in [Type::F32, Type::Bf16] {
                    let x = Owned::new(&noise(m * k, 6), ty);
                    let w = Owned::new(&noise(n * k, 7), ty);
                    let (x, w) = (x.view(m, k, Layout::Rows), w.view(n, k, Layout::Rows));
                    let options = Options { alpha: 0.5, ..PLAIN };
                    let mut c = Owned::new(&vec![0.0; m * n], out);
                    gemm(c.view_mut(m, n, Layout::Rows), x, w.t(), options);
                    // A packed operand takes none of the shortcuts.
                    let compute = if ty == Type::Bf16 { Compute::Bf16 } else { Compute::F32 };
                    let packed = PackedB::pack_nt(w, compute);
                    let mut d = Owned::new(&vec![1.0; m * n], out);
                    gemm_packed(d.view_mut(m, n, Layout::Rows), x, &packed, Options { compute, ..options });
                    assert_eq!(c.bits(), d.bits(), "{tier} {m} {n} {k} {ty:?} {out:?}");
                    // Adding to C rounds the same sum once.
                    let add = Options { accumulate: true, ..options };
                    gemm(c.view_mut(m, n, Layout::Rows), x, w.t(), add);
                    gemm_packed(d.view_mut(m, n, Layout::Rows), x, &packed, Options { compute, ..add });
                    assert_eq!(c.bits(), d.bits(), "{tier} {m} {n} {k} {ty:?} {out:?}, added");
                }
            }
        }
    });
}

#[test]
fn packed_operands_give_the_same_bits() {
    on_each_tier(|tier| {
        for (m, n, k) in [(130, 70, 33), (1, 49, 600), (97, 8, 4100), (20, 5000, 64)] {
            for (ty, compute) in
                [(Type::Bf16, Compute::Bf16), (Type::F32, Compute::F32), (Type::F16, Compute::Bf16)]
            {
                let a = Owned::new(&noise(m * k, 4), Type::Bf16);
                let w = Owned::new(&noise(n * k, 5), ty);
                let options = Options { compute, ..PLAIN };
                let (a, w) = (a.view(m, k, Layout::Rows), w.view(n, k, Layout::Rows));
                let (mut c, mut d) = (vec![0f32; m * n], vec![1f32; m * n]);
                gemm(MatMut::new(&mut c[..], m, n), a, w.t(), options);
                let packed = PackedB::pack_nt(w, compute);
                assert!(packed.bytes() >= n * k * 2);
                gemm_packed(MatMut::new(&mut d[..], m, n), a, &packed, options);
                assert_eq!(c, d, "{tier} {m} {n} {k} {ty:?}");
            }
        }
    });
}

#[test]
fn sums_of_products_are_rounded_once() {
    on_each_tier(|tier| {
        for (m, n, k) in [(130, 70, 64), (37, 48, 4000), (5, 33, 20)] {
            let (r, seeds) = (8, (6, 7, 8, 9));
            let x = Owned::new(&noise(m * k, seeds.0), Type::Bf16);
            let w = Owned::new(&noise(n * k, seeds.1), Type::Bf16);
            let u = Owned::new(&noise(m * r, seeds.2), Type::F32);
            let b = Owned::new(&noise(n * r, seeds.3), Type::F32);
            let (x, w) = (x.view(m, k, Layout::Rows), w.view(n, k, Layout::Rows));
            let (u, b) = (u.view(m, r, Layout::Rows), b.view(n, r, Layout::Rows));
            let low = reference::gemm(&u, &b.t(), 1.0, None);
            let expected = reference::gemm(&x, &w.t(), 1.0, Some(&low));
            let packed = PackedB::pack_nt(w, Compute::Bf16);
            for base in [RightOperand::View(w.t()), RightOperand::Packed(&packed)] {
                let mut c = vec![bf16::ZERO; m * n];
                let products = [Product { a: x, b: base }, Product { a: u, b: RightOperand::View(b.t()) }];
                let options = Options { compute: Compute::Bf16, ..PLAIN };
                gemm_sum(MatMut::new(&mut c[..], m, n), &products, options);
                for (x, y) in c.iter().zip(&expected) {
                    let bound = tolerance(k + r, Type::Bf16, *y);
                    assert!((x.to_f64() - y).abs() <= bound, "{tier} {m} {n} {k}: {x} against {y}");
                }
            }
        }
    });
}

#[test]
fn f32_operands_are_rounded_to_even_for_bf16_products() {
    if !crate::isa::supported().contains(&Tier::Avx512Bf16) {
        return; // the other tiers keep f32
    }
    // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7; 1 + 3 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    let a = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8)];
    let one = [1f32];
    let mut c = [0f32; 2];
    let options = Options { compute: Compute::Bf16, ..PLAIN };
    with_tier(Tier::Avx512Bf16, || {
        gemm(MatMut::new(&mut c[..], 2, 1), MatRef::new(&a[..], 2, 1), MatRef::new(&one[..], 1, 1), options);
    });
    assert_eq!(c, [1.0, 1.0 + 2f32.powi(-6)]);
}

#[test]
fn a_view_beyond_its_slice_is_refused() {
    let x = [0f32; 5];
    assert!(std::panic::catch_unwind(|| MatRef::new(&x[..], 2, 3)).is_err());
    assert!(std::panic::catch_unwind(|| MatRef::strided(&x[..], 2, 2, 3, 2)).is_err());
    assert!(std::panic::catch_unwind(|| MatMut::strided(&mut [0f32; 9][..], 3, 3, 1, 1).rows()).is_err());
}

#[test]
fn infinities_and_nan_reach_the_result() {
    on_each_tier(|tier| {
        for ty in [Type::F32, Type::Bf16] {
            let a = Owned::new(&[1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY], ty);
            let one = Owned::new(&[1.0], ty);
            for out in [Type::F32, Type::Bf16] {
                let mut c = Owned::new(&[0.0; 4], out);
                let (ra, rb) = (a.view(4, 1, Layout::Rows), one.view(1, 1, Layout::Rows));
                gemm(c.view_mut(4, 1, Layout::Rows), ra, rb, PLAIN);
                let c = c.read(4, 1, Layout::Rows);
                assert!(c[0] == 1.0 && c[1].is_nan(), "{tier} {ty:?} {out:?} {c:?}");
                assert_eq!(c[2..], [f64::INFINITY, f64::NEG_INFINITY], "{tier} {ty:?} {out:?}");
            }
        }
    });
}
