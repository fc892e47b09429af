//! The one matrix product of attention: small, on words, with the same bits for an element in whatever shape.
use super::simd::{Kernel, Simd};

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

/// What the three axes of a product over a pair of blocks are.
#[derive(Clone, Copy)]
pub(super) enum Axes {
    /// `C [keys, queries]`, over the head's elements.
    KeysQueries,
    /// `C [elements, queries]`, over keys.
    ElementsQueries,
    /// `C [keys, elements]`, over queries.
    KeysElements,
}

/// Half a block.
pub(super) const HALF: usize = 32;

impl Product {
    /// The product over a block on the diagonal of more than `HALF` queries, and as many keys, without the quarter
    /// where the first half of the queries would meet keys of the second, of which it sees none. What is left out is
    /// zero, or never read.
    ///
    /// # Safety
    /// As of [`Kernel`].
    #[inline(always)]
    pub(super) unsafe fn run_below_diagonal<S: Simd>(self, axes: Axes) {
        let vecs = HALF / S::LANES;
        let steps = HALF / S::PACK;
        // SAFETY: both parts lie within the product.
        unsafe {
            let rest = match axes {
                Axes::KeysQueries => {
                    S::call(Self { m: HALF, ..self });
                    Self {
                        m: self.m - HALF,
                        vecs: self.vecs - vecs,
                        a: self.a.add(HALF * self.sm),
                        b: self.b.add(HALF),
                        c: self.c.add(HALF * self.ldc + HALF),
                        ..self
                    }
                }
                Axes::ElementsQueries => {
                    S::call(Self { vecs, steps, ..self });
                    Self { vecs: self.vecs - vecs, b: self.b.add(HALF), c: self.c.add(HALF), ..self }
                }
                Axes::KeysElements => {
                    S::call(Self { m: HALF, ..self });
                    Self {
                        m: self.m - HALF,
                        steps: self.steps - steps,
                        a: self.a.add(HALF * self.sm + steps * self.sk),
                        b: self.b.add(steps * self.ldb),
                        c: self.c.add(HALF * self.ldc),
                        ..self
                    }
                }
            };
            S::call(rest);
        }
    }

    /// [`run_below_diagonal`](Self::run_below_diagonal) if `diagonal`, else the whole.
    ///
    /// # Safety
    /// As of [`Kernel`].
    #[inline(always)]
    pub(super) unsafe fn over<S: Simd>(self, axes: Axes, diagonal: bool) {
        // SAFETY: passed on.
        unsafe { if diagonal { self.run_below_diagonal::<S>(axes) } else { S::call(self) } }
    }

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
