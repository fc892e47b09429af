//! The vectors of the x86-64 tiers.
use super::simd::{EXP2, Kernel, Simd};
use luthier_tensor::bf16;
#[allow(clippy::wildcard_imports)] // a list of instructions says nothing
use std::arch::x86_64::*;
use std::mem::transmute;

/// AVX-512 over f32.
pub(super) struct Avx512;
/// AVX-512 with products of bf16 pairs.
pub(super) struct Avx512Bf16;
/// AVX2 with FMA.
pub(super) struct Avx2;

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
            unsafe fn widen_bf16(from: *const bf16) -> __m512 {
                // SAFETY: half a vector lies there.
                unsafe {
                    let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
                }
            }
            #[inline(always)]
            unsafe fn word(from: *const u32) -> __m512 {
                // SAFETY: one word lies there.
                unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(from.read_unaligned().cast_signed())) }
            }
            #[inline(always)]
            unsafe fn transpose(x: &mut [__m512; 16]) {
                // SAFETY: the tier's instructions are there.
                unsafe {
                    // In each quarter of a register: columns of 4 rows.
                    let mut quarters = *x;
                    for g in [0, 4, 8, 12] {
                        let pair = |i: usize| (_mm512_castps_pd(_mm512_unpacklo_ps(x[g + i], x[g + i + 1])),
                            _mm512_castps_pd(_mm512_unpackhi_ps(x[g + i], x[g + i + 1])));
                        let (a, b) = pair(0);
                        let (c, d) = pair(2);
                        quarters[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                        quarters[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                        quarters[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                        quarters[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
                    }
                    // Then quarters change places with registers.
                    for j in 0..4 {
                        let [a, b, c, d] = [quarters[j], quarters[j + 4], quarters[j + 8], quarters[j + 12]];
                        let even = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
                        let odd = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
                        x[j] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
                        x[j + 4] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
                        x[j + 8] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
                        x[j + 12] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
                    }
                }
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
    unsafe fn widen_bf16(from: *const bf16) -> __m256 {
        // SAFETY: half a vector lies there.
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }
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
    #[inline(always)]
    unsafe fn transpose(x: &mut [__m256; 16]) {
        // SAFETY: the tier's instructions are there.
        unsafe {
            let mut halves = *x;
            for g in [0, 4] {
                let pair = |i: usize| (_mm256_castps_pd(_mm256_unpacklo_ps(x[g + i], x[g + i + 1])),
                    _mm256_castps_pd(_mm256_unpackhi_ps(x[g + i], x[g + i + 1])));
                let (a, b) = pair(0);
                let (c, d) = pair(2);
                halves[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
                halves[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
                halves[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
                halves[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
            }
            for j in 0..4 {
                x[j] = _mm256_permute2f128_ps::<0x20>(halves[j], halves[j + 4]);
                x[j + 4] = _mm256_permute2f128_ps::<0x31>(halves[j], halves[j + 4]);
            }
        }
    }
} }
