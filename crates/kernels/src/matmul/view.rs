//! Strided views of matrices: what a GEMM reads and writes.

use half::{bf16, f16};
use luthier_tensor::{DType, Tensor};

/// The elements that a [`MatRef`] reads.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Brain float: the upper half of an f32.
    Bf16(&'a [bf16]),
    /// IEEE half precision; read only.
    F16(&'a [f16]),
    /// Double precision: the reference path.
    F64(&'a [f64]),
}

/// The elements that a [`MatMut`] writes.
#[derive(Debug)]
pub enum ElementsMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Brain float, rounded to nearest even.
    Bf16(&'a mut [bf16]),
    /// Double precision: the reference path.
    F64(&'a mut [f64]),
}

macro_rules! from_slices {
    ($name:ident, $($variant:ident $ty:ty),*) => { $(
        impl<'a> From<$ty> for $name<'a> {
            fn from(slice: $ty) -> Self {
                $name::$variant(slice)
            }
        }
    )* };
}
from_slices!(Elements, F32 &'a [f32], Bf16 &'a [bf16], F16 &'a [f16], F64 &'a [f64]);
from_slices!(ElementsMut, F32 &'a mut [f32], Bf16 &'a mut [bf16], F64 &'a mut [f64]);

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Elements::F32(s) => s.len(),
            Elements::Bf16(s) => s.len(),
            Elements::F16(s) => s.len(),
            Elements::F64(s) => s.len(),
        }
    }
}

impl ElementsMut<'_> {
    fn len(&self) -> usize {
        match self {
            ElementsMut::F32(s) => s.len(),
            ElementsMut::Bf16(s) => s.len(),
            ElementsMut::F64(s) => s.len(),
        }
    }
}

/// One past the largest index that the view touches.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
}

/// A matrix to read: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    pub(super) data: Elements<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix `[rows, cols]`. Panics if the slice is too short: shapes are checked by the op that calls.
    pub fn new(data: impl Into<Elements<'a>>, rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A float tensor's rows: `[rows, cols]` with the last axis as columns.
    pub fn of(t: &'a Tensor) -> Self {
        let (rows, cols) = (t.rows(), t.cols());
        match t.dtype() {
            DType::F32 => Self::new(t.slice::<f32>(), rows, cols),
            DType::Bf16 => Self::new(t.slice::<bf16>(), rows, cols),
            DType::F16 => Self::new(t.slice::<f16>(), rows, cols),
            DType::F64 => Self::new(t.slice::<f64>(), rows, cols),
            other => panic!("a product of {other}"),
        }
    }

    /// A matrix with any strides, in elements. Panics if an element lies outside the slice.
    pub fn strided(
        data: impl Into<Elements<'a>>,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let data = data.into();
        assert!(
            extent(rows, cols, row_stride, col_stride) <= data.len(),
            "a [{rows}, {cols}] view with strides ({row_stride}, {col_stride}) exceeds {} elements",
            data.len()
        );
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The first `cols` columns.
    #[must_use]
    pub fn left(self, cols: usize) -> Self {
        assert!(cols <= self.cols, "{cols} columns of {}", self.cols);
        Self { cols, ..self }
    }

    /// The transposed view.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Element (i, j), widened.
    pub fn get(&self, i: usize, j: usize) -> f64 {
        assert!(i < self.rows && j < self.cols);
        let at = i * self.row_stride + j * self.col_stride;
        match self.data {
            Elements::F32(s) => f64::from(s[at]),
            Elements::Bf16(s) => s[at].to_f64(),
            Elements::F16(s) => s[at].to_f64(),
            Elements::F64(s) => s[at],
        }
    }
}

/// A matrix to write. No two of its elements share a place.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub(super) data: ElementsMut<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix `[rows, cols]`. Panics if the slice is too short.
    pub fn new(data: impl Into<ElementsMut<'a>>, rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols, 1)
    }

    /// A unique tensor's rows: `[rows, cols]` with the last axis as columns; f32, bf16 or f64.
    pub fn of(t: &'a mut Tensor) -> Self {
        let (rows, cols) = (t.rows(), t.cols());
        match t.dtype() {
            DType::F32 => Self::new(t.slice_mut::<f32>(), rows, cols),
            DType::Bf16 => Self::new(t.slice_mut::<bf16>(), rows, cols),
            DType::F64 => Self::new(t.slice_mut::<f64>(), rows, cols),
            other => panic!("a product into {other}"),
        }
    }

    /// A matrix with any strides, in elements. Panics if an element lies outside the slice or two may coincide.
    pub fn strided(
        data: impl Into<ElementsMut<'a>>,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let data = data.into();
        assert!(
            extent(rows, cols, row_stride, col_stride) <= data.len(),
            "a [{rows}, {cols}] view with strides ({row_stride}, {col_stride}) exceeds {} elements",
            data.len()
        );
        let distinct = rows <= 1 && (cols <= 1 || col_stride > 0)
            || cols <= 1 && row_stride > 0
            || col_stride > 0 && row_stride >= cols * col_stride
            || row_stride > 0 && col_stride >= rows * row_stride;
        assert!(distinct || rows * cols == 0, "strides ({row_stride}, {col_stride}) make elements coincide");
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The first `cols` columns.
    #[must_use]
    pub fn left(self, cols: usize) -> Self {
        assert!(cols <= self.cols, "{cols} columns of {}", self.cols);
        Self { cols, ..self }
    }

    /// The transposed view.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }
}
