//! A right operand packed once and used many times: a frozen weight.

use super::kernel::{Kernel, Source};
use super::scratch::Lanes;
use super::{Compute, MatRef, Path, drive, rows_of, with_kernel};
use crate::isa::tier;

/// B `[k, n]` in the panels that a kernel reads. It belongs to the tier that was in use when it was packed.
#[derive(Debug)]
pub struct PackedB {
    lanes: Lanes,
    path: Path,
    k: usize,
    n: usize,
}

impl PackedB {
    /// Packs a weight `[d_out, d_in]` for `y = x W^T` (k = d_in, n = d_out).
    pub fn pack_nt(weight: MatRef<'_>, compute: Compute) -> Self {
        Self::pack_nn(weight.t(), compute)
    }

    /// Packs B `[k, n]`; a weight `[d_out, d_in]` for `dx = dy W` (k = d_out, n = d_in). `compute` is bf16 or f32.
    pub fn pack_nn(b: MatRef<'_>, compute: Compute) -> Self {
        let path = Path::of(compute, tier());
        let (k, n) = (b.rows(), b.cols());
        let source = rows_of(&b.t());
        let mut lanes = Lanes::default();
        with_kernel!(path, fill(&source, n, k, &mut lanes));
        Self { lanes, path, k, n }
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes that the panels occupy.
    pub fn bytes(&self) -> usize {
        self.lanes.bytes()
    }

    pub(super) fn path(&self) -> Path {
        self.path
    }

    pub(super) fn as_ptr(&self) -> *const u32 {
        self.lanes.as_ptr()
    }
}

fn fill<K: Kernel>(source: &Source, n: usize, k: usize, lanes: &mut Lanes) {
    let to = lanes.at_least(drive::whole_lanes::<K>(n, k));
    // SAFETY: `to` holds the operand's lanes and the view is bounds-checked.
    unsafe { drive::pack_whole::<K>(source, n, k, to) }
}
