//! Vectors by tier, as the attention blocks use them.
//!
//! Every operand is a sequence of 32-bit words: one f32, or a pair of bf16 that
//! follow one another along the reduction. A product broadcasts a word of `A` and
//! multiplies it into a vector of words of `B`, so that one blocking serves both.
//!
//! `exp2(x) = 2^n (1 + f q(f))`, `n = round(x)`, `f = x - n`, `q` of degree 4: a
//! minimax fit whose relative error is 9.2e-8, with rounding below 2e-7. It is
//! exactly 1 at 0 and 0 at -inf; results below 2^-126 are 0 or inexact.
use luthier_tensor::{DType, Float, bf16};

/// `q(f)`, lowest power first.
#[expect(clippy::approx_constant, reason = "the fit's first coefficient is near ln 2, and not it")]
pub(super) const EXP2: [f32; 5] = [0.693_147, 0.240_222_43, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];

/// A routine that is compiled once a tier, with the tier's instructions.
pub(super) trait Kernel {
    /// # Safety
    /// The machine must have the instructions of `S`, and the pointers of `self` must be as it states.
    unsafe fn run<S: Simd>(self);
}

/// The vectors of a tier.
///
/// # Safety
/// All functions need the tier's instructions; those with pointers need room for what they touch, aligned to the
/// element only.
pub(super) unsafe trait Simd: 'static {
    /// `LANES` f32, or as many words.
    type V: Copy;
    /// The element that this tier multiplies.
    type E: Float;
    /// f32 in a vector.
    const LANES: usize;
    /// Elements of the reduction in a word.
    const PACK: usize = 4 / size_of::<Self::E>();
    /// Rows and vectors of a register tile.
    const TILE: (usize, usize);

    unsafe fn call(kernel: impl Kernel);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// The larger; `b` if either is not a number.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `2^x`; see the module's head.
    unsafe fn exp2(x: Self::V) -> Self::V;
    /// `LANES` bf16, widened.
    unsafe fn widen_bf16(from: *const bf16) -> Self::V;
    /// `LANES` elements, bf16 or f32, widened.
    #[inline(always)]
    unsafe fn widen<T: Float>(from: *const T) -> Self::V {
        // SAFETY: passed on; `T` is as wide as the type that it is read as.
        unsafe {
            match T::DTYPE {
                DType::F32 => Self::load(from.cast()),
                DType::Bf16 => Self::widen_bf16(from.cast()),
                other => unreachable!("vectors of {other}"),
            }
        }
    }
    /// One word in all lanes.
    unsafe fn word(from: *const u32) -> Self::V;
    /// `sum + a b` over words.
    unsafe fn mac(sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Stores a row of elements: `LANES / PACK` words.
    unsafe fn put(to: *mut u32, x: Self::V);
    /// Stores the words that `PACK` rows make: `LANES` words; `next` is ignored where a word holds one element.
    unsafe fn put_rows(to: *mut u32, x: Self::V, next: Self::V);
    /// Swaps rows and lanes of the first `LANES` vectors.
    unsafe fn transpose(x: &mut [Self::V; 16]);
}

/// Eight f32 that the compiler maps to what the target has.
pub(super) struct Portable;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// One rounding where the target has the instruction, two where it would be a library call.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

// SAFETY: needs no instruction beyond the target's.
unsafe impl Simd for Portable {
    type V = [f32; 8];
    type E = f32;
    const LANES: usize = 8;
    const TILE: (usize, usize) = (4, 1);

    #[inline(never)]
    unsafe fn call(kernel: impl Kernel) {
        // SAFETY: passed on.
        unsafe { kernel.run::<Self>() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: eight f32 by the trait's contract.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: room for eight f32 by the trait's contract.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| fused(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        // Adding 1.5 2^23 rounds to an integer, which then stands in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        std::array::from_fn(|i| {
            let x = if x[i] < -127.0 { -127.0 } else { x[i] };
            let biased = x + ROUND;
            let f = x - (biased - ROUND);
            let q = EXP2.iter().rev().fold(0.0, |q, &c| fused(q, f, c));
            let n = biased.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
            fused(q, f, 1.0) * f32::from_bits(n)
        })
    }
    #[inline(always)]
    unsafe fn widen_bf16(from: *const bf16) -> Self::V {
        // SAFETY: eight bf16 by the trait's contract.
        unsafe { from.cast::<[bf16; 8]>().read_unaligned() }.map(Float::to_f32)
    }
    #[inline(always)]
    unsafe fn word(from: *const u32) -> Self::V {
        // SAFETY: one word by the trait's contract.
        [f32::from_bits(unsafe { from.read_unaligned() }); 8]
    }
    #[inline(always)]
    unsafe fn mac(sum: Self::V, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| fused(a[i], b[i], sum[i]))
    }
    #[inline(always)]
    unsafe fn put(to: *mut u32, x: Self::V) {
        // SAFETY: passed on.
        unsafe { Self::store(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn put_rows(to: *mut u32, x: Self::V, _: Self::V) {
        // SAFETY: passed on.
        unsafe { Self::store(to.cast(), x) }
    }
    #[inline(always)]
    unsafe fn transpose(x: &mut [Self::V; 16]) {
        let from = *x;
        for (i, row) in x.iter_mut().take(8).enumerate() {
            *row = std::array::from_fn(|j| from[j][i]);
        }
    }
}
