//! One source for all tiers: plain loops, compiled once for each instruction set.
//!
//! [`tiered`](crate::simd::tiered) compiles a function's body for AVX-512, AVX2
//! and the target's baseline, and picks by [`crate::isa::tier`]. The compiler
//! neither contracts multiply and add nor reorders sums, so all tiers return the
//! same bits; sums are kept in [`LANES`] partial sums so that they vectorise.
use luthier_tensor::Float;

/// Partial sums of a reduction: the f32 lanes of an AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Elements below which a loop is not worth a second thread.
pub(crate) const GRAIN: usize = 1 << 14;

/// Defines a function whose body is compiled once per tier. What the body calls must be `#[inline(always)]`, and it
/// must loop by `for`: a closure would not be compiled with the tier's instructions.
macro_rules! tiered {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($g:ident: $bound:path),*>)? ($($arg:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$($g: $bound),*>)? ($($arg: $t),*) $(-> $r)? {
            #[inline(always)]
            fn body $(<$($g: $bound),*>)? ($($arg: $t),*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::isa::Tier;
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
                fn v512 $(<$($g: $bound),*>)? ($($arg: $t),*) $(-> $r)? { body $(::<$($g),*>)? ($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn v256 $(<$($g: $bound),*>)? ($($arg: $t),*) $(-> $r)? { body $(::<$($g),*>)? ($($arg),*) }
                match $crate::isa::tier() {
                    // SAFETY: the tier in use is one that the machine was found to have.
                    Tier::Avx512Bf16 | Tier::Avx512 => return unsafe { v512 $(::<$($g),*>)? ($($arg),*) },
                    // SAFETY: as above.
                    Tier::Avx2 => return unsafe { v256 $(::<$($g),*>)? ($($arg),*) },
                    Tier::Neon | Tier::Portable => {}
                }
            }
            body $(::<$($g),*>)? ($($arg),*)
        }
    };
}
pub(crate) use tiered;

/// Calls a function generic over the element type of activations on a fast path: f32 or bf16.
macro_rules! with_fast {
    ($dtype:expr, $f:ident ($($arg:expr),* $(,)?)) => {
        match $dtype {
            luthier_tensor::DType::F32 => $f::<f32>($($arg),*),
            luthier_tensor::DType::Bf16 => $f::<luthier_tensor::bf16>($($arg),*),
            other => panic!("activations are f64, f32 or bf16, not {other}"),
        }
    };
}
pub(crate) use with_fast;

/// Rows that one task takes: enough elements to pay for it, whatever the number of threads.
pub(crate) fn rows_per_task(cols: usize) -> usize {
    (GRAIN / cols.max(1)).max(1)
}

/// The sum of the lanes, in a fixed order.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum_i a_i b_i c_i` in f32.
#[inline(always)]
pub(crate) fn dot3<A: Float, B: Float>(a: &[A], b: &[B], c: &[f32]) -> f32 {
    let n = a.len();
    let (b, c) = (&b[..n], &c[..n]);
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (a, b, c) = (&a[at..at + LANES], &b[at..at + LANES], &c[at..at + LANES]);
        for l in 0..LANES {
            lanes[l] += a[l].to_f32() * b[l].to_f32() * c[l];
        }
    }
    for i in whole..n {
        lanes[i - whole] += a[i].to_f32() * b[i].to_f32() * c[i];
    }
    fold(lanes)
}

/// `sum_i a_i^2` in f32.
#[inline(always)]
pub(crate) fn squares<A: Float>(a: &[A]) -> f32 {
    let n = a.len();
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let a = &a[at..at + LANES];
        for l in 0..LANES {
            let v = a[l].to_f32();
            lanes[l] += v * v;
        }
    }
    for i in whole..n {
        let v = a[i].to_f32();
        lanes[i - whole] += v * v;
    }
    fold(lanes)
}

/// `e^x` within 2 ulp; 0 below -87.3 (where results would be subnormal) and infinite above 88.3.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`, and `e^r` by its Taylor polynomial of degree 7, whose remainder is below
/// `0.35^8 / 8! = 6e-9`. Branch-free, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with 9 bits, so that `k * LN2_HIGH` is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x < -87.3 { -87.3 } else { x };
    let bounded = if bounded > 88.3 { 88.3 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (bounded - k * LN2_HIGH) - k * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = (p * r * r + r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = p * power;
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.3 { f32::INFINITY } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    tiered! {
        fn exp_all(x: &[f32], y: &mut [f32]) {
            let n = x.len();
            let y = &mut y[..n];
            for i in 0..n {
                y[i] = exp(x[i]);
            }
        }
    }

    #[test]
    fn exp_is_within_two_ulp_and_equal_on_all_tiers() {
        let x = (0..400_001).map(|i| -90.0 + i as f32 * 0.00045).collect::<Vec<_>>();
        let mut first = Vec::new();
        isa::on_each_tier(|tier| {
            let mut y = vec![0f32; x.len()];
            exp_all(&x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let exact = f64::from(x).exp();
                match x {
                    x if x < -87.3 => assert_eq!(y, 0.0),
                    x if x > 88.3 => assert_eq!(y, f32::INFINITY),
                    _ => {
                        let ulp = f64::from((exact as f32).next_up() - exact as f32);
                        assert!(
                            (f64::from(y) - exact).abs() <= 2.0 * ulp,
                            "{tier}: exp({x}) = {y}, not {exact}"
                        );
                    }
                }
            }
            first = if first.is_empty() { y.clone() } else { std::mem::take(&mut first) };
            assert_eq!(first, y, "{tier}");
        });
        assert!(exp(f32::NAN).is_nan());
        assert_eq!([exp(f32::NEG_INFINITY), exp(0.0), exp(f32::INFINITY)], [0.0, 1.0, f32::INFINITY]);
    }

    #[test]
    fn sums_fold_every_lane_once() {
        for n in [0, 1, 15, 16, 17, 63, 64, 65] {
            let a = (0..n).map(|i| i as f32).collect::<Vec<_>>();
            assert_eq!(squares(&a), (0..n).map(|i| (i * i) as f32).sum::<f32>());
            assert_eq!(dot3(&a, &a, &vec![2.0; n]), (0..n).map(|i| (2 * i * i) as f32).sum::<f32>());
        }
    }
}
