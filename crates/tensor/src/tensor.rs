//! The tensor: contiguous, row-major, reference counted.
use crate::account::Account;
use crate::buffer::Buffer;
use crate::dtype::{DType, Element, Float};
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An n-dimensional array, contiguous and row-major. Cloning shares the buffer; reshaping and views of leading
/// rows are free; writing needs the only reference.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
}

impl Tensor {
    /// Arbitrary contents: for an output that is written whole.
    pub fn scratch(shape: &[usize], dtype: DType, account: Account) -> Self {
        let numel = shape.iter().product::<usize>();
        let buffer = Arc::new(Buffer::scratch(numel * dtype.size(), account));
        Self { buffer, offset: 0, shape: shape.to_vec(), dtype }
    }

    /// All zero.
    pub fn zeros(shape: &[usize], dtype: DType, account: Account) -> Self {
        let mut t = Self::scratch(shape, dtype, account);
        t.bytes_mut().fill(0);
        t
    }

    /// A copy of `values`, whose number must be the shape's.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T], account: Account) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values for shape {shape:?}");
        let mut t = Self::scratch(shape, T::DTYPE, account);
        t.slice_mut::<T>().copy_from_slice(values);
        t
    }

    /// `values` rounded to `dtype`.
    pub fn from_f64(shape: &[usize], values: &[f64], dtype: DType, account: Account) -> Self {
        let mut t = Self::scratch(shape, dtype, account);
        assert_eq!(t.numel(), values.len(), "values for shape {shape:?}");
        fn fill<T: Float>(t: &mut Tensor, values: &[f64]) {
            t.slice_mut::<T>().iter_mut().zip(values).for_each(|(t, &v)| *t = T::from_f64(v));
        }
        match dtype {
            DType::F64 => fill::<f64>(&mut t, values),
            DType::F32 => fill::<f32>(&mut t, values),
            DType::Bf16 => fill::<bf16>(&mut t, values),
            DType::F16 => fill::<f16>(&mut t, values),
            DType::U8 | DType::U32 => panic!("from_f64 makes floats, not {dtype}"),
        }
        t
    }

    /// A read-only view of `bytes` of memory that `owner` keeps alive (a mapped file). The range must hold exactly
    /// the shape's elements and be aligned to them; a caller that cannot promise alignment copies instead.
    pub fn from_owner<O: AsRef<[u8]> + Send + Sync + 'static>(
        owner: Arc<O>,
        bytes: Range<usize>,
        shape: &[usize],
        dtype: DType,
        account: Account,
    ) -> Self {
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.size(), "bytes for shape {shape:?}");
        let buffer = Arc::new(Buffer::foreign(owner, bytes, account));
        Self { buffer, offset: 0, shape: shape.to_vec(), dtype }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Lengths of the axes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Length of axis `i`.
    pub fn dim(&self, i: usize) -> usize {
        self.shape[i]
    }

    /// Length of the last axis; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of all axes but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, lead)| lead.iter().product())
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the elements.
    pub fn size(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// The account that the buffer belongs to.
    pub fn account(&self) -> Account {
        self.buffer.account()
    }

    /// The elements. `T` must be the tensor's type.
    pub fn slice<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype, "view of a {} tensor", self.dtype);
        self.buffer.slice(self.offset, self.numel())
    }

    /// Whether this is the only reference to a writable buffer.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.buffer) == 1 && !self.buffer.is_foreign()
    }

    /// The elements, to write. The tensor must be [unique](Self::is_unique).
    pub fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "view of a {} tensor", self.dtype);
        let (offset, numel) = (self.offset, self.numel());
        Arc::get_mut(&mut self.buffer).expect("only a unique tensor is written").slice_mut(offset, numel)
    }

    /// The elements as bytes, in the machine's order.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.slice(self.offset, self.size())
    }

    /// The elements as bytes, to write. The tensor must be [unique](Self::is_unique).
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (offset, size) = (self.offset, self.size());
        Arc::get_mut(&mut self.buffer).expect("only a unique tensor is written").slice_mut(offset, size)
    }

    /// The same elements in another shape.
    #[must_use]
    pub fn reshape(&self, shape: &[usize]) -> Self {
        self.clone().into_shape(shape)
    }

    /// [`reshape`](Self::reshape) that keeps a unique tensor unique.
    #[must_use]
    pub fn into_shape(mut self, shape: &[usize]) -> Self {
        assert_eq!(self.numel(), shape.iter().product::<usize>(), "reshape of {:?} to {shape:?}", self.shape);
        self.shape = shape.to_vec();
        self
    }

    /// Rows `range` of the outermost axis, shared.
    #[must_use]
    pub fn narrow(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.shape[0], "rows {range:?} of {:?}", self.shape);
        let inner = self.shape[1..].iter().product::<usize>() * self.dtype.size();
        let mut view = self.clone();
        view.offset += range.start * inner;
        view.shape[0] = range.len();
        view
    }

    /// A copy of the elements in a buffer of its own, in `account`.
    #[must_use]
    pub fn copy(&self, account: Account) -> Self {
        let mut t = Self::scratch(&self.shape, self.dtype, account);
        t.bytes_mut().copy_from_slice(self.bytes());
        t
    }

    /// All elements widened to `f64`.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        fn widen<T: Float>(t: &Tensor) -> Vec<f64> {
            t.slice::<T>().iter().map(|v| v.to_f64()).collect()
        }
        match self.dtype {
            DType::F64 => widen::<f64>(self),
            DType::F32 => widen::<f32>(self),
            DType::Bf16 => widen::<bf16>(self),
            DType::F16 => widen::<f16>(self),
            DType::U8 => self.slice::<u8>().iter().map(|&v| f64::from(v)).collect(),
            DType::U32 => self.slice::<u32>().iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// The one element of a scalar tensor.
    pub fn item(&self) -> f64 {
        assert_eq!(self.numel(), 1, "item of {:?}", self.shape);
        self.to_f64_vec()[0]
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_share_and_writing_needs_the_only_reference() {
        let mut t = Tensor::from_slice(&[3, 2], &[1f32, 2., 3., 4., 5., 6.], Account::Workspace);
        assert!(t.is_unique());
        let v = t.narrow(1..3);
        assert_eq!(v.slice::<f32>(), &[3., 4., 5., 6.]);
        assert!(!t.is_unique());
        drop(v);
        t.slice_mut::<f32>()[0] = 9.;
        assert_eq!(t.reshape(&[6]).slice::<f32>()[0], 9.);
    }

    #[test]
    fn foreign_memory_is_viewed_in_place() {
        let owner = Arc::new(vec![0u8, 0, 128, 63, 0, 0, 0, 64]);
        let t = Tensor::from_owner(owner, 0..8, &[4], DType::Bf16, Account::Workspace);
        assert!(!t.is_unique());
        assert_eq!(t.to_f64_vec(), vec![0., 1., 0., 2.]);
    }
}
