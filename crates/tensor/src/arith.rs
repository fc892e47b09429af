//! The few elementwise operations that the tape itself needs, on all float types, in parallel.
use crate::account::Account;
use crate::dtype::{DType, Float};
use crate::tensor::Tensor;
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements below which a loop is not worth a second thread.
const GRAIN: usize = 1 << 14;

/// Calls `$f::<T..>` with the Rust type of `$dtype`.
macro_rules! with_float {
    ($dtype:expr, $f:ident $(::<$($extra:ty),*>)? ($($arg:expr),*)) => {
        match $dtype {
            DType::F64 => $f::<$($($extra,)*)? f64>($($arg),*),
            DType::F32 => $f::<$($($extra,)*)? f32>($($arg),*),
            DType::Bf16 => $f::<$($($extra,)*)? bf16>($($arg),*),
            DType::F16 => $f::<$($($extra,)*)? f16>($($arg),*),
            other => panic!("arithmetic on {other}"),
        }
    };
}

/// `a += b`, of one shape; `a` must be unique. Sums in f32 (f64 for f64).
pub fn add_assign(a: &mut Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape(), "sum of two shapes");
    fn run<B: Float, A: Float>(a: &mut Tensor, b: &Tensor) {
        let (a, b) = (a.slice_mut::<A>(), b.slice::<B>());
        a.par_chunks_mut(GRAIN).zip(b.par_chunks(GRAIN)).for_each(|(a, b)| {
            if A::DTYPE == DType::F64 {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = A::from_f64(a.to_f64() + b.to_f64()));
            } else {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = A::from_f32(a.to_f32() + b.to_f32()));
            }
        });
    }
    match b.dtype() {
        DType::F64 => with_float!(a.dtype(), run::<f64>(a, b)),
        DType::F32 => with_float!(a.dtype(), run::<f32>(a, b)),
        DType::Bf16 => with_float!(a.dtype(), run::<bf16>(a, b)),
        DType::F16 => with_float!(a.dtype(), run::<f16>(a, b)),
        other => panic!("arithmetic on {other}"),
    }
}

/// `a *= factor`; `a` must be unique.
pub fn scale_assign(a: &mut Tensor, factor: f64) {
    fn run<A: Float>(a: &mut Tensor, factor: f64) {
        a.slice_mut::<A>().par_chunks_mut(GRAIN).for_each(|a| {
            if A::DTYPE == DType::F64 {
                a.iter_mut().for_each(|a| *a = A::from_f64(a.to_f64() * factor));
            } else {
                let factor = factor as f32;
                a.iter_mut().for_each(|a| *a = A::from_f32(a.to_f32() * factor));
            }
        });
    }
    with_float!(a.dtype(), run(a, factor));
}

/// `t` in another float type, in `account`; shares the buffer if the type is the same.
pub fn to_dtype(t: &Tensor, dtype: DType, account: Account) -> Tensor {
    if t.dtype() == dtype {
        return t.clone();
    }
    fn run<S: Float, D: Float>(t: &Tensor, out: &mut Tensor) {
        let (source, out) = (t.slice::<S>(), out.slice_mut::<D>());
        out.par_chunks_mut(GRAIN).zip(source.par_chunks(GRAIN)).for_each(|(out, source)| {
            if S::DTYPE == DType::F64 || D::DTYPE == DType::F64 {
                out.iter_mut().zip(source).for_each(|(o, s)| *o = D::from_f64(s.to_f64()));
            } else {
                out.iter_mut().zip(source).for_each(|(o, s)| *o = D::from_f32(s.to_f32()));
            }
        });
    }
    let mut out = Tensor::scratch(t.shape(), dtype, account);
    match t.dtype() {
        DType::F64 => with_float!(dtype, run::<f64>(t, &mut out)),
        DType::F32 => with_float!(dtype, run::<f32>(t, &mut out)),
        DType::Bf16 => with_float!(dtype, run::<bf16>(t, &mut out)),
        DType::F16 => with_float!(dtype, run::<f16>(t, &mut out)),
        other => panic!("conversion of {other}"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_scales_and_converts() {
        let mut a = Tensor::from_f64(&[3], &[1., 2., 3.], DType::Bf16, Account::Workspace);
        let b = Tensor::from_f64(&[3], &[0.5, 0.5, -3.], DType::F32, Account::Workspace);
        add_assign(&mut a, &b);
        scale_assign(&mut a, 2.0);
        assert_eq!(to_dtype(&a, DType::F64, Account::Workspace).slice::<f64>(), &[3., 5., 0.]);
    }
}
