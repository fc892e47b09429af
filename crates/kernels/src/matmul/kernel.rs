//! What a tier supplies to the blocked driver: packing, the register tile's kernel, and writing a finished tile.
//!
//! A *lane* is 32 bits of a packed operand: one f32, or two bf16 that are neighbours along k. A *unit* is what one lane
//! covers along k (1 or 2 elements). A packed panel is `[units][width]` lanes, zero where the operand ends.

use half::{bf16, f16};

/// Element types of raw operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    Bf16,
    F16,
    F64,
}

impl Kind {
    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::Bf16 | Kind::F16 => 2,
            Kind::F64 => 8,
        }
    }
}

/// An operand of the product seen along its outer axis (rows of A, columns of B) and k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) ptr: *const u8,
    pub(super) kind: Kind,
    /// Elements between neighbours on the outer axis.
    pub(super) outer: usize,
    /// Elements between neighbours along k.
    pub(super) along_k: usize,
}

// SAFETY: a `Source` is a shared borrow of a slice, whose lifetime the driver's caller holds.
unsafe impl Send for Source {}
// SAFETY: as above; nobody writes through it.
unsafe impl Sync for Source {}

impl Source {
    /// Address of element (outer index `i`, `k`).
    ///
    /// # Safety
    /// The element must lie inside the operand, or one past it.
    pub(super) unsafe fn at(&self, i: usize, k: usize) -> *const u8 {
        let bytes = self.kind.size();
        // SAFETY: the caller keeps (i, k) inside the operand.
        unsafe { self.ptr.add((i * self.outer + k * self.along_k) * bytes) }
    }

    /// Element (i, k) as f32.
    ///
    /// # Safety
    /// The element must lie inside the operand.
    pub(super) unsafe fn get(&self, i: usize, k: usize) -> f32 {
        // SAFETY: the caller keeps (i, k) inside the operand; alignment is the slice's own.
        unsafe {
            let p = self.at(i, k);
            match self.kind {
                Kind::F32 => *p.cast::<f32>(),
                Kind::Bf16 => (*p.cast::<bf16>()).to_f32(),
                Kind::F16 => (*p.cast::<f16>()).to_f32(),
                Kind::F64 => *p.cast::<f64>() as f32,
            }
        }
    }
}

/// The result matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) ptr: *mut u8,
    pub(super) kind: Kind,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
    /// Factor of the product.
    pub(super) alpha: f32,
    /// Add to what is there instead of replacing it.
    pub(super) accumulate: bool,
}

// SAFETY: tasks write disjoint tiles of the one mutable borrow that the driver's caller holds.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// How a register tile finds its rows of A.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rows {
    /// A packed panel: rows are neighbours, units are `rows` lanes apart.
    Packed(*const u32),
    /// The operand itself, k-contiguous: rows are this many bytes apart, units 4 bytes.
    Direct(*const u8, usize),
}

/// A tier's part of the blocked product.
pub(super) trait Kernel: Copy + Send + Sync + 'static {
    /// Rows of the register tile.
    const MR: usize;
    /// Lanes of a vector: a panel of B is one or two vectors wide.
    const VECTOR: usize;
    /// Columns of the register tile: two vectors.
    const NR: usize = 2 * Self::VECTOR;
    /// Elements along k in one lane.
    const UNIT: usize;

    /// Whether the tile may read A where it lies.
    fn reads_in_place(source: &Source, k: usize) -> bool;

    /// Packs `count` outer indices of `source` from (i0, k0) over `k` elements into `[units][width]` lanes.
    ///
    /// # Safety
    /// The range must lie inside the operand, `count <= width`, and `to` must hold `ceil(k / UNIT) * width` lanes.
    unsafe fn pack(source: &Source, i0: usize, count: usize, k0: usize, k: usize, to: *mut u32, width: usize);

    /// `tile[rows, width] (+)= A B` over `units`; the tile's row stride is `NR`.
    ///
    /// # Safety
    /// `a` and `b` must cover `units`, `rows <= MR`, `width` is `VECTOR` or `NR`, `tile` holds `MR * NR` f32.
    unsafe fn tile(
        rows: usize,
        width: usize,
        units: usize,
        a: Rows,
        b: *const u32,
        tile: *mut f32,
        first: bool,
    );

    /// Most rows of A that [`narrow`](Self::narrow) takes; 0 where a tier has no such kernel.
    const NARROW: usize = 0;

    /// `tile[m, count] (+)= A B` for few rows of A and up to `VECTOR` columns of a k-contiguous B, read in place: what a
    /// panel would hold goes from memory through registers, once. Sums are those of [`tile`](Self::tile), bit for bit.
    ///
    /// # Safety
    /// `b` covers columns `j..j + count` and `k`; `x` holds `m <= NARROW` rows of packed lanes, `stride` apart; `tile` has
    /// `m` rows of `NR` f32.
    unsafe fn narrow(
        b: &Source,
        (j, count): (usize, usize),
        k: usize,
        (x, stride, m): (*const u32, usize, usize),
        tile: *mut f32,
        first: bool,
    ) {
        let _ = (b, j, count, k, x, stride, m, tile, first);
        unreachable!("only a tier whose NARROW is above 0 is asked")
    }

    /// Writes `alpha tile` to rows from `i`, columns from `j` of the target.
    ///
    /// # Safety
    /// The tile must lie inside the target and nobody else may touch that part of it.
    unsafe fn write(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
        // SAFETY: passed on from the caller.
        unsafe { write_tile(target, i, j, rows, cols, tile, Self::NR) }
    }
}

/// [`Kernel::write`] for any strides and types, element by element.
///
/// # Safety
/// As [`Kernel::write`].
pub(super) unsafe fn write_tile(
    target: &Target,
    i: usize,
    j: usize,
    rows: usize,
    cols: usize,
    tile: *const f32,
    tile_stride: usize,
) {
    for r in 0..rows {
        for c in 0..cols {
            let at = (i + r) * target.row_stride + (j + c) * target.col_stride;
            // SAFETY: (i + r, j + c) is inside the target by the caller's promise.
            unsafe {
                let x = target.alpha * *tile.add(r * tile_stride + c);
                match target.kind {
                    Kind::F32 => {
                        let p = target.ptr.cast::<f32>().add(at);
                        *p = if target.accumulate { *p + x } else { x };
                    }
                    Kind::Bf16 => {
                        let p = target.ptr.cast::<bf16>().add(at);
                        *p = bf16::from_f32(if target.accumulate { (*p).to_f32() + x } else { x });
                    }
                    Kind::F64 => {
                        let p = target.ptr.cast::<f64>().add(at);
                        *p = if target.accumulate { *p + f64::from(x) } else { f64::from(x) };
                    }
                    Kind::F16 => unreachable!("no view writes f16"),
                }
            }
        }
    }
}

/// Packs f32 lanes element by element.
///
/// # Safety
/// As [`Kernel::pack`] with `UNIT = 1`.
pub(super) unsafe fn pack_f32(
    source: &Source,
    i0: usize,
    count: usize,
    k0: usize,
    k: usize,
    to: *mut u32,
    width: usize,
) {
    // SAFETY: the caller keeps the range inside the operand and the panel inside `to`.
    unsafe {
        let to = to.cast::<f32>();
        if source.kind == Kind::F32 && source.outer == 1 {
            for u in 0..k {
                std::ptr::copy_nonoverlapping(source.at(i0, k0 + u).cast::<f32>(), to.add(u * width), count);
                std::slice::from_raw_parts_mut(to.add(u * width + count), width - count).fill(0.0);
            }
            return;
        }
        for u in 0..k {
            for i in 0..count {
                *to.add(u * width + i) = source.get(i0 + i, k0 + u);
            }
            for i in count..width {
                *to.add(u * width + i) = 0.0;
            }
        }
    }
}

/// Whether a k-contiguous f32 operand can be read in place.
pub(super) fn f32_in_place(source: &Source) -> bool {
    source.kind == Kind::F32 && source.along_k == 1 && !aliases(source.outer * 4)
}

/// Rows a multiple of 2 KiB apart fall into one or two sets of a 32 KiB, 8-way cache, and evict one another.
pub(super) fn aliases(row_bytes: usize) -> bool {
    row_bytes.is_multiple_of(2048)
}

/// f32 without instructions of a particular machine; the compiler vectorises for its own target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Kernel for Portable {
    const MR: usize = 4;
    const VECTOR: usize = 8;
    const UNIT: usize = 1;

    fn reads_in_place(source: &Source, _k: usize) -> bool {
        f32_in_place(source)
    }

    unsafe fn pack(
        source: &Source,
        i0: usize,
        count: usize,
        k0: usize,
        k: usize,
        to: *mut u32,
        width: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { pack_f32(source, i0, count, k0, k, to, width) }
    }

    unsafe fn tile(
        rows: usize,
        width: usize,
        units: usize,
        a: Rows,
        b: *const u32,
        tile: *mut f32,
        first: bool,
    ) {
        let (a, row_step, unit_step) = match a {
            Rows::Packed(p) => (p.cast::<f32>(), 1, rows),
            Rows::Direct(p, bytes) => (p.cast::<f32>(), bytes / 4, 1),
        };
        // SAFETY: the caller promises that operands cover `units` and the tile is whole; `acc` has NR columns.
        unsafe {
            for r in 0..rows {
                let mut acc = [0f32; Self::NR];
                if !first {
                    for (c, x) in acc.iter_mut().enumerate() {
                        *x = *tile.add(r * Self::NR + c);
                    }
                }
                if width == Self::NR {
                    row::<16>(&mut acc, a.add(r * row_step), unit_step, b.cast(), units);
                } else {
                    row::<8>(&mut acc, a.add(r * row_step), unit_step, b.cast(), units);
                }
                for (c, x) in acc.iter().enumerate() {
                    *tile.add(r * Self::NR + c) = *x;
                }
            }
        }
    }
}

/// One row of the tile: `acc[c] += a[u] b[u][c]`.
#[inline(always)]
unsafe fn row<const W: usize>(acc: &mut [f32; 16], a: *const f32, step: usize, b: *const f32, units: usize) {
    for u in 0..units {
        // SAFETY: the caller's operands cover `units`.
        unsafe {
            let x = *a.add(u * step);
            for (c, y) in acc[..W].iter_mut().enumerate() {
                *y += x * *b.add(u * W + c);
            }
        }
    }
}
