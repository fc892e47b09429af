//! Vectors by tier, as the attention blocks use them.
//!
//! Every operand is a sequence of 32-bit words: one f32, or a pair of bf16 that
//! follow one another along the reduction. A product broadcasts a word of `A` and
//! multiplies it into a vector of words of `B`, so that one blocking serves both.
//!
//! `exp2(x) = 2^n (1 + f q(f))`, `n = round(x)`, `f = x - n`, `q` of degree 4: a
//! minimax fit whose relative error is 9.2e-8, with rounding below 2e-7. It is
//! exactly 1 at 0 and 0 at -inf; results below 2^-126 are 0 or inexact.
use luthier_tensor::{Float, bf16};

/// `q(f)`, lowest power first.
#[expect(clippy::approx_constant, reason = "the fit's first coefficient is near ln 2, and not it")]
const EXP2: [f32; 5] = [0.693_147, 0.240_222_43, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];

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
    /// One word in all lanes.
    unsafe fn word(from: *const u32) -> Self::V;
    /// `sum + a b` over words.
    unsafe fn mac(sum: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Stores a row of elements: `LANES / PACK` words.
    unsafe fn put(to: *mut u32, x: Self::V);
    /// Stores the words that `PACK` rows make: `LANES` words; `next` is ignored where a word holds one element.
    unsafe fn put_rows(to: *mut u32, x: Self::V, next: Self::V);
}

/// `C = A B` or `C += A B`, with `C` `[m, vecs LANES]` f32, `A` `[m, steps]` words at strides `sm`, `sk`, and `B`
/// `[steps, vecs LANES]` words. Each element is summed in the order of the steps from 0, then added to `C`, whatever the
/// shape of the product, so that a row or lane has the same bits in every product that it is part of.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) vecs: usize,
    pub(super) steps: usize,
    pub(super) a: *const u32,
    pub(super) sm: usize,
    pub(super) sk: usize,
    pub(super) b: *const u32,
    pub(super) ldb: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) add: bool,
}

impl Kernel for Product {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut n = 0;
        while n < self.vecs {
            let width = (self.vecs - n).min(S::TILE.1);
            let mut m = 0;
            while m < self.m {
                let left = self.m - m;
                let height = if left >= S::TILE.0 { S::TILE.0 } else { 1 << left.ilog2() };
                // SAFETY: the tile lies within the product.
                unsafe {
                    let tile = Self {
                        a: self.a.add(m * self.sm),
                        b: self.b.add(n * S::LANES),
                        c: self.c.add(m * self.ldc + n * S::LANES),
                        ..self
                    };
                    tile.dispatch::<S>(height, width);
                }
                m += height;
            }
            n += width;
        }
    }
}

impl Product {
    #[inline(always)]
    unsafe fn dispatch<S: Simd>(&self, height: usize, width: usize) {
        macro_rules! tiles {
            ($($m:literal),*) => {
                // SAFETY: passed on.
                unsafe {
                    match (height, width) {
                        $(($m, 1) if $m <= S::TILE.0 => self.tile::<S, $m, 1>(),
                          ($m, 2) if $m <= S::TILE.0 && S::TILE.1 >= 2 => self.tile::<S, $m, 2>(),
                          ($m, 3) if $m <= S::TILE.0 && S::TILE.1 >= 3 => self.tile::<S, $m, 3>(),
                          ($m, 4) if $m <= S::TILE.0 && S::TILE.1 >= 4 => self.tile::<S, $m, 4>(),)*
                        _ => unreachable!("tiles are at most TILE"),
                    }
                }
            };
        }
        tiles!(6, 4, 2, 1);
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const N: usize>(&self) {
        // SAFETY: M rows and N vectors lie within the product's operands.
        unsafe {
            let mut sum = [[S::splat(0.0); N]; M];
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.steps {
                let mut right = [S::splat(0.0); N];
                for (j, right) in right.iter_mut().enumerate() {
                    *right = S::load(b.add(j * S::LANES).cast());
                }
                for (i, sum) in sum.iter_mut().enumerate() {
                    let left = S::word(a.add(i * self.sm));
                    for j in 0..N {
                        sum[j] = S::mac(sum[j], left, right[j]);
                    }
                }
                a = a.add(self.sk);
                b = b.add(self.ldb);
            }
            for (i, sum) in sum.iter().enumerate() {
                for (j, &sum) in sum.iter().enumerate() {
                    let at = self.c.add(i * self.ldc + j * S::LANES);
                    S::store(at, if self.add { S::add(S::load(at), sum) } else { sum });
                }
            }
        }
    }
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
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{EXP2, Kernel, Simd, bf16};
    #[allow(clippy::wildcard_imports)] // a list of instructions says nothing
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// AVX-512 over f32.
    pub(in super::super) struct Avx512;
    /// AVX-512 with products of bf16 pairs.
    pub(in super::super) struct Avx512Bf16;
    /// AVX2 with FMA.
    pub(in super::super) struct Avx2;

    macro_rules! engine {
        ($name:ident, $features:literal, $v:ty, $e:ty, $lanes:literal, $tile:expr,
         splat $splat:ident, load $load:ident, store $store:ident, add $add:ident, sub $sub:ident, mul $mul:ident,
         max $max:ident, fma $fma:ident, { $($rest:item)* }) => {
            // SAFETY: callers of `call` have checked `$features`; all else is inlined into it.
            unsafe impl Simd for $name {
                type V = $v;
                type E = $e;
                const LANES: usize = $lanes;
                const TILE: (usize, usize) = $tile;

                #[inline(always)]
                unsafe fn call(kernel: impl Kernel) {
                    #[inline(never)]
                    #[target_feature(enable = $features)]
                    unsafe fn with(kernel: impl Kernel) {
                        // SAFETY: passed on.
                        unsafe { kernel.run::<$name>() }
                    }
                    // SAFETY: passed on.
                    unsafe { with(kernel) }
                }
                #[inline(always)]
                unsafe fn splat(x: f32) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const f32) -> $v {
                    // SAFETY: a vector lies there.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(to: *mut f32, x: $v) {
                    // SAFETY: there is room for a vector.
                    unsafe { $store(to, x) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn sub(a: $v, b: $v) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $sub(a, b) }
                }
                #[inline(always)]
                unsafe fn mul(a: $v, b: $v) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                unsafe fn max(a: $v, b: $v) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $max(a, b) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: the tier's instructions are there.
                    unsafe { $fma(a, b, c) }
                }
                $($rest)*
            }
        };
    }

    /// `1 + f q(f)` in any of the tiers.
    macro_rules! polynomial {
        ($f:expr) => {{
            let f = $f;
            let mut q = Self::splat(EXP2[4]);
            for c in [EXP2[3], EXP2[2], EXP2[1], EXP2[0], 1.0] {
                q = Self::fma(q, f, Self::splat(c));
            }
            q
        }};
    }

    /// What the two AVX-512 tiers share.
    macro_rules! avx512 {
        ($name:ident, $features:literal, $e:ty, { $($rest:item)* }) => {
            engine! { $name, $features, __m512, $e, 16, (6, 4), splat _mm512_set1_ps, load _mm512_loadu_ps,
                store _mm512_storeu_ps, add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, max _mm512_max_ps,
                fma _mm512_fmadd_ps, {
                #[inline(always)]
                unsafe fn exp2(x: __m512) -> __m512 {
                    // SAFETY: the tier's instructions are there.
                    unsafe {
                        // 2^-200 is 0, and -inf - -inf would not be a number.
                        let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
                        let n = _mm512_roundscale_ps::<8>(x);
                        _mm512_scalef_ps(polynomial!(_mm512_sub_ps(x, n)), n)
                    }
                }
                #[inline(always)]
                unsafe fn word(from: *const u32) -> __m512 {
                    // SAFETY: one word lies there.
                    unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(from.read_unaligned().cast_signed())) }
                }
                $($rest)*
            } }
        };
    }

    avx512! { Avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", f32, {
        #[inline(always)]
        unsafe fn mac(sum: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the tier's instructions are there.
            unsafe { _mm512_fmadd_ps(a, b, sum) }
        }
        #[inline(always)]
        unsafe fn put(to: *mut u32, x: __m512) {
            // SAFETY: there is room for a vector.
            unsafe { _mm512_storeu_ps(to.cast(), x) }
        }
        #[inline(always)]
        unsafe fn put_rows(to: *mut u32, x: __m512, _: __m512) {
            // SAFETY: there is room for a vector.
            unsafe { _mm512_storeu_ps(to.cast(), x) }
        }
    } }

    /// Places of two rows' elements in their words.
    const INTERLEAVE: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };

    avx512! { Avx512Bf16, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma", bf16, {
        #[inline(always)]
        unsafe fn mac(sum: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the tier's instructions are there; the types are of one size and any bits are values.
            unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
        }
        #[inline(always)]
        unsafe fn put(to: *mut u32, x: __m512) {
            // SAFETY: there is room for half a vector; the types are of one size.
            unsafe { _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))) }
        }
        #[inline(always)]
        unsafe fn put_rows(to: *mut u32, x: __m512, next: __m512) {
            // SAFETY: there is room for a vector; the types are of one size.
            unsafe {
                let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(next, x));
                let order = _mm512_loadu_si512(INTERLEAVE.as_ptr().cast());
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(order, both));
            }
        }
    } }

    engine! { Avx2, "avx2,fma", __m256, f32, 8, (6, 2), splat _mm256_set1_ps, load _mm256_loadu_ps,
        store _mm256_storeu_ps, add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, max _mm256_max_ps,
        fma _mm256_fmadd_ps, {
        #[inline(always)]
        unsafe fn exp2(x: __m256) -> __m256 {
            // SAFETY: the tier's instructions are there.
            unsafe {
                // At -127 the exponent's bits are 0.
                let x = _mm256_max_ps(_mm256_set1_ps(-127.0), x);
                let n = _mm256_round_ps::<8>(x);
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent));
                _mm256_mul_ps(polynomial!(_mm256_sub_ps(x, n)), power)
            }
        }
        #[inline(always)]
        unsafe fn word(from: *const u32) -> __m256 {
            // SAFETY: one word lies there.
            unsafe { _mm256_broadcast_ss(&from.cast::<f32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn mac(sum: __m256, a: __m256, b: __m256) -> __m256 {
            // SAFETY: the tier's instructions are there.
            unsafe { _mm256_fmadd_ps(a, b, sum) }
        }
        #[inline(always)]
        unsafe fn put(to: *mut u32, x: __m256) {
            // SAFETY: there is room for a vector.
            unsafe { _mm256_storeu_ps(to.cast(), x) }
        }
        #[inline(always)]
        unsafe fn put_rows(to: *mut u32, x: __m256, _: __m256) {
            // SAFETY: there is room for a vector.
            unsafe { _mm256_storeu_ps(to.cast(), x) }
        }
    } }
}
