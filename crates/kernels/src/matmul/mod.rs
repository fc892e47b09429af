//! Matrix products on strided views.
//!
//! ```text
//! C = alpha A B (+ C)         A [m, k], B [k, n], C [m, n]
//! C = alpha sum_t A_t B_t (+ C)
//! ```
//!
//! NT, NN and TN products are transposed views ([`MatRef::t`]). bf16 products accumulate in f32 and round once; f64 is the
//! reference path. The result has the same bits at any number of threads, and a row of C does not depend on the
//! other rows.
//!
//! Blocking follows K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008,
//! section 4.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod double;
mod drive;
mod grid;
mod kernel;
mod narrow;
#[cfg(target_arch = "x86_64")]
mod narrow512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod pack512;
mod packed;
pub mod reference;
mod scratch;
#[cfg(test)]
mod tests;
mod view;

pub use packed::PackedB;
pub use view::{Elements, ElementsMut, MatMut, MatRef};

use crate::isa::{Tier, tier};
use drive::{Right, Term, Threads};
#[cfg(target_arch = "x86_64")]
use kernel::Kernel;
use kernel::{Kind, Source, Target};

/// Products that one [`gemm_sum`] takes.
pub const MAX_PRODUCTS: usize = drive::MAX_TERMS;

/// In which precision products are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// f64 if an operand is f64, else bf16 if every A is bf16, else f32.
    Auto,
    /// Operands are rounded to bf16, sums are f32. A tier without bf16 products widens bf16 operands to f32 and does not
    /// round f32 ones.
    Bf16,
    /// Operands are widened to f32, sums are f32.
    F32,
    /// Operands are widened to f64, sums are f64.
    F64,
}

/// The scale of a product, and whether it is added.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Factor of the product.
    pub alpha: f64,
    /// Whether C is added to (in the sum's precision, rounded once) or replaced.
    pub accumulate: bool,
    /// Precision of products.
    pub compute: Compute,
}

impl Default for Options {
    fn default() -> Self {
        Self { alpha: 1.0, accumulate: false, compute: Compute::Auto }
    }
}

/// One product of a sum.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[m, k]`
    pub a: MatRef<'a>,
    /// `[k, n]`
    pub b: RightOperand<'a>,
}

/// The right operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum RightOperand<'a> {
    /// A view, packed while multiplying.
    View(MatRef<'a>),
    /// Packed beforehand.
    Packed(&'a PackedB),
}

impl RightOperand<'_> {
    fn shape(&self) -> (usize, usize) {
        match self {
            RightOperand::View(b) => (b.rows, b.cols),
            RightOperand::Packed(b) => (b.k(), b.n()),
        }
    }
}

/// `C = alpha A B (+ C)` on the threads of the current rayon pool.
pub fn gemm(c: MatMut<'_>, a: MatRef<'_>, b: MatRef<'_>, options: Options) {
    run(c, &[Product { a, b: RightOperand::View(b) }], options, Threads::Pool);
}

/// [`gemm`] on the calling thread: for blocks inside a task that is itself one of many.
pub fn gemm_serial(c: MatMut<'_>, a: MatRef<'_>, b: MatRef<'_>, options: Options) {
    run(c, &[Product { a, b: RightOperand::View(b) }], options, Threads::One);
}

/// `C = alpha A B (+ C)` with a right operand packed beforehand, in the precision and on the tier that it was packed for.
pub fn gemm_packed(c: MatMut<'_>, a: MatRef<'_>, b: &PackedB, options: Options) {
    run(c, &[Product { a, b: RightOperand::Packed(b) }], options, Threads::Pool);
}

/// `C = alpha sum_t A_t B_t (+ C)`, up to [`MAX_PRODUCTS`] products: C is written once, so a low-rank update costs its products only.
pub fn gemm_sum(c: MatMut<'_>, products: &[Product<'_>], options: Options) {
    run(c, products, options, Threads::Pool);
}

/// Which kernel multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Pairs512,
    Single512,
    Single256,
    Neon,
    Portable,
}

impl Path {
    fn of(compute: Compute, tier: Tier) -> Path {
        match tier {
            Tier::Avx512Bf16 if compute == Compute::Bf16 => Path::Pairs512,
            Tier::Avx512Bf16 | Tier::Avx512 => Path::Single512,
            Tier::Avx2 => Path::Single256,
            Tier::Neon => Path::Neon,
            Tier::Portable => Path::Portable,
        }
    }
}

/// Calls a generic function with the kernel of a path.
macro_rules! with_kernel {
    ($path:expr, $function:ident ( $($argument:expr),* )) => {
        match $path {
            #[cfg(target_arch = "x86_64")]
            $crate::matmul::Path::Pairs512 => $function::<$crate::matmul::avx512::Pairs>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::matmul::Path::Single512 => $function::<$crate::matmul::avx512::Single>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::matmul::Path::Single256 => $function::<$crate::matmul::avx2::Single>($($argument),*),
            #[cfg(target_arch = "aarch64")]
            $crate::matmul::Path::Neon => $function::<$crate::matmul::neon::Single>($($argument),*),
            _ => $function::<$crate::matmul::kernel::Portable>($($argument),*),
        }
    };
}
use with_kernel;

fn resolve(products: &[Product<'_>], compute: Compute) -> Compute {
    let any_f64 = products.iter().any(|p| {
        matches!(p.a.data, Elements::F64(_))
            || matches!(p.b, RightOperand::View(MatRef { data: Elements::F64(_), .. }))
    });
    match compute {
        Compute::Auto if any_f64 => Compute::F64,
        Compute::Auto if products.iter().all(|p| matches!(p.a.data, Elements::Bf16(_))) => Compute::Bf16,
        Compute::Auto => Compute::F32,
        chosen => chosen,
    }
}

fn run(c: MatMut<'_>, products: &[Product<'_>], options: Options, threads: Threads) {
    let (m, n) = (c.rows, c.cols);
    for p in products {
        let (k, cols) = p.b.shape();
        assert!(
            p.a.rows == m && p.a.cols == k && cols == n,
            "gemm of [{}, {}] x [{k}, {cols}] into [{m}, {n}]",
            p.a.rows,
            p.a.cols
        );
    }
    luthier_tensor::add_flops(products.iter().map(|p| 2 * (m * n * p.a.cols) as u64).sum());
    let compute = resolve(products, options.compute);
    let packed = products.iter().find_map(|p| match p.b {
        RightOperand::Packed(b) => Some(b.path()),
        RightOperand::View(_) => None,
    });
    if compute == Compute::F64 {
        return double::product(c, products, options);
    }
    let path = packed.unwrap_or_else(|| Path::of(compute, tier()));
    let views_only = packed.is_none();
    // A column-major C is a row-major C^T = B^T A^T.
    let by_columns = c.col_stride != 1 && c.row_stride == 1 && n > 1;
    if views_only && (by_columns || reads_wide_right(path, &c, products)) {
        let swapped: Vec<Product<'_>> = products
            .iter()
            .map(|p| {
                let RightOperand::View(b) = p.b else { unreachable!("no operand is packed here") };
                Product { a: b.t(), b: RightOperand::View(p.a.t()) }
            })
            .collect();
        return launch(c.t(), &swapped, options, path, threads);
    }
    launch(c, products, options, path, threads);
}

/// Rows of A up to which a wide B that lies along k is read where it is, as the left operand of `C^T = B^T A^T`: packing A
/// costs less than packing B.
const WIDE: usize = 4;

/// Whether to multiply `C^T = B^T A^T` though C is row-major: a head's logits, where B is all of the vocabulary.
fn reads_wide_right(path: Path, c: &MatMut<'_>, products: &[Product<'_>]) -> bool {
    let in_place = |p: &Product<'_>| {
        let RightOperand::View(b) = p.b else { return false };
        let b = rows_of(&b.t());
        match path {
            #[cfg(target_arch = "x86_64")]
            Path::Pairs512 => avx512::Pairs::reads_in_place(&b, p.a.cols),
            #[cfg(target_arch = "x86_64")]
            Path::Single512 => avx512::Single::reads_in_place(&b, p.a.cols),
            _ => {
                let _ = b;
                false
            }
        }
    };
    // Fewer rows than these go to `narrow`.
    c.rows > 4 && c.cols >= WIDE * c.rows && c.col_stride == 1 && in_place(&products[0])
}

fn launch(c: MatMut<'_>, products: &[Product<'_>], options: Options, path: Path, threads: Threads) {
    let terms: Vec<Term> = products
        .iter()
        .map(|p| Term {
            a: rows_of(&p.a),
            b: match p.b {
                RightOperand::View(b) => Right::Plain(rows_of(&b.t())),
                RightOperand::Packed(b) => {
                    assert!(b.path() == path, "operands of one sum are packed on one tier");
                    Right::Packed(b.as_ptr())
                }
            },
            k: p.a.cols,
        })
        .collect();
    let (m, n) = (c.rows, c.cols);
    let target = target_of(c, options);
    // SAFETY: views are bounds-checked where they are made, shapes in `run`; `target` is the only path to C; `path` comes
    // from a tier that the machine has.
    unsafe {
        use narrow::product;
        with_kernel!(path, product(m, n, &terms, target, threads));
    }
}

/// A matrix seen along its rows.
fn rows_of(a: &MatRef<'_>) -> Source {
    let (ptr, kind) = match a.data {
        Elements::F32(s) => (s.as_ptr().cast(), Kind::F32),
        Elements::Bf16(s) => (s.as_ptr().cast(), Kind::Bf16),
        Elements::F16(s) => (s.as_ptr().cast(), Kind::F16),
        Elements::F64(s) => (s.as_ptr().cast(), Kind::F64),
    };
    Source { ptr, kind, outer: a.row_stride, along_k: a.col_stride }
}

fn target_of(c: MatMut<'_>, options: Options) -> Target {
    let (ptr, kind) = match c.data {
        ElementsMut::F32(s) => (s.as_mut_ptr().cast(), Kind::F32),
        ElementsMut::Bf16(s) => (s.as_mut_ptr().cast(), Kind::Bf16),
        ElementsMut::F64(s) => (s.as_mut_ptr().cast(), Kind::F64),
    };
    Target {
        ptr,
        kind,
        row_stride: c.row_stride,
        col_stride: c.col_stride,
        alpha: options.alpha as f32,
        accumulate: options.accumulate,
    }
}
