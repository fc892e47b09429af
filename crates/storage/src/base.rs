//! Frozen weights served from their files: plain numbers in place, ggml's blocks as they are.
//!
//! ```text
//! y = x W^T        n > 1   a panel of W's rows at a time is decoded to x's type and multiplied into its columns of y
//!                  n = 1   y_i = sum_b d_ib <q_ib, x_b> + m_ib sum(x_b)      over the blocks b of row i, in f32 ([`block_rows`])
//! dx = dy W        panel by panel, summed in f32
//! ```
//!
//! The whole `W` is never decoded: what is needed beside the blocks is one panel. A bf16 activation makes panels of bf16,
//! so their values are rounded; a single row multiplies the exact values, as nothing is gained by rounding them.

use std::sync::Arc;

use half::{bf16, f16};
use luthier_kernels::block_row::{BlockVector, Blocks, block_rows};
use luthier_kernels::linear::{Base, DenseBase};
use luthier_kernels::matmul::{MatMut, MatRef, Options, gemm};
use luthier_tensor::{Account, DType, Float, Tensor, add_assign, to_dtype};
use rayon::prelude::*;

use crate::Error;
use crate::blocks;
use crate::encoding::{BLOCK, Encoding};
use crate::stored::{Stored, decode_into};

/// Elements of a decoded panel: 1 MiB in bf16, which the packing of the product reads back from the cache.
const PANEL: usize = 1 << 19;
/// Elements of `W` that one task of a single-row product takes at least: some microseconds of work.
const ELEMENTS_AT_ONCE: usize = 1 << 15;
/// Tasks a thread of such a product, alike in size.
const TASKS: usize = 2;

/// How a frozen weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAs {
    /// Decoded or widened to f32.
    F32,
    /// Decoded or rounded to bf16.
    Bf16,
    /// As the file has it, in place: no memory of its own where it is mapped.
    AsIs,
}

impl Stored {
    /// A frozen linear map over this matrix `[d_out, d_in]`.
    pub fn to_base(&self, how: StoreAs) -> Result<Arc<dyn Base>, Error> {
        if self.shape().len() != 2 {
            return Err(Error::NotAMatrix { tensor: self.name().to_owned(), shape: self.shape().to_vec() });
        }
        if !self.encoding().is_weight() {
            return Err(self.not_a_weight());
        }
        Ok(match how {
            StoreAs::AsIs if self.encoding().is_blocked() => Arc::new(BlockBase::new(self)?),
            StoreAs::AsIs => Arc::new(DenseBase::new(self.to_tensor(Account::Base)?)),
            StoreAs::F32 => Arc::new(DenseBase::new(self.to_dtype(DType::F32, Account::Base)?)),
            StoreAs::Bf16 => Arc::new(DenseBase::new(self.to_dtype(DType::Bf16, Account::Base)?)),
        })
    }
}

/// A weight `[d_out, d_in]` in ggml blocks, multiplied without being decoded as a whole.
#[derive(Debug)]
pub struct BlockBase {
    /// `[d_out, bytes of a row]`, in place in the file.
    blocks: Tensor,
    encoding: Encoding,
    d_in: usize,
}

impl BlockBase {
    /// A base over a matrix in Q8_0, Q4_0 or Q4_1.
    pub fn new(stored: &Stored) -> Result<Self, Error> {
        let &[d_out, d_in] = stored.shape() else {
            return Err(Error::NotAMatrix {
                tensor: stored.name().to_owned(),
                shape: stored.shape().to_vec(),
            });
        };
        if !stored.encoding().is_blocked() || d_out == 0 {
            return Err(stored.not_a_weight());
        }
        let row = stored.bytes().len() / d_out;
        let blocks = stored.in_place(DType::U8, &[d_out, row], Account::Base);
        Ok(Self { blocks, encoding: stored.encoding(), d_in })
    }

    /// How the blocks are encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn row_bytes(&self) -> usize {
        self.blocks.dim(1)
    }

    /// Rows `[at, at + count)` of `W`, as bytes.
    fn rows(&self, at: usize, count: usize) -> &[u8] {
        &self.blocks.slice::<u8>()[at * self.row_bytes()..(at + count) * self.row_bytes()]
    }

    /// Calls `multiply(first row, panel [rows, d_in])` over all of `W`.
    fn panels(&self, dtype: DType, mut multiply: impl FnMut(usize, &Tensor)) {
        let d_out = self.d_out();
        let most = (PANEL / self.d_in.max(1)).next_multiple_of(BLOCK).min(d_out);
        let mut panel = Tensor::scratch(&[most, self.d_in], dtype, Account::Workspace);
        for at in (0..d_out).step_by(most) {
            let count = most.min(d_out - at);
            if count < panel.dim(0) {
                panel = Tensor::scratch(&[count, self.d_in], dtype, Account::Workspace);
            }
            decode_into(self.encoding, self.rows(at, count), &mut panel);
            multiply(at, &panel);
        }
    }

    /// `y [d_out] (+)= W x`, each element by one thread in a fixed order.
    fn single<Y: Float>(&self, x: &Tensor, y: &mut Tensor, accumulate: bool) {
        let kind = match self.encoding {
            Encoding::Q8_0 => Blocks::Q8_0,
            Encoding::Q4_0 => Blocks::Q4_0,
            _ => Blocks::Q4_1,
        };
        let x = to_dtype(x, DType::F32, Account::Workspace);
        let x = BlockVector::new(x.slice::<f32>());
        let each = self.d_out().div_ceil(TASKS * rayon::current_num_threads());
        let each = each.max(ELEMENTS_AT_ONCE / self.d_in.max(1)).max(BLOCK);
        y.slice_mut::<Y>().par_chunks_mut(each).enumerate().for_each(|(task, out)| {
            for (part, out) in out.chunks_mut(BLOCK).enumerate() {
                let mut products = [0.0; BLOCK];
                let products = &mut products[..out.len()];
                block_rows(kind, self.rows(task * each + part * BLOCK, out.len()), &x, products);
                for (out, product) in out.iter_mut().zip(products) {
                    *out = Y::from_f32(if accumulate { out.to_f32() + *product } else { *product });
                }
            }
        });
    }
}

/// Columns `[at, at + cols)` of a tensor's rows.
fn columns(t: &Tensor, at: usize, cols: usize) -> MatRef<'_> {
    let (rows, stride) = (t.rows(), t.cols());
    match t.dtype() {
        DType::F64 => MatRef::strided(&t.slice::<f64>()[at..], rows, cols, stride, 1),
        DType::F32 => MatRef::strided(&t.slice::<f32>()[at..], rows, cols, stride, 1),
        DType::Bf16 => MatRef::strided(&t.slice::<bf16>()[at..], rows, cols, stride, 1),
        other => panic!("activations of {other}"),
    }
}

fn columns_mut(t: &mut Tensor, at: usize, cols: usize) -> MatMut<'_> {
    let (rows, stride) = (t.rows(), t.cols());
    match t.dtype() {
        DType::F64 => MatMut::strided(&mut t.slice_mut::<f64>()[at..], rows, cols, stride, 1),
        DType::F32 => MatMut::strided(&mut t.slice_mut::<f32>()[at..], rows, cols, stride, 1),
        DType::Bf16 => MatMut::strided(&mut t.slice_mut::<bf16>()[at..], rows, cols, stride, 1),
        other => panic!("activations of {other}"),
    }
}

impl Base for BlockBase {
    fn d_in(&self) -> usize {
        self.d_in
    }

    fn d_out(&self) -> usize {
        self.blocks.dim(0)
    }

    fn bytes(&self) -> usize {
        self.blocks.size()
    }

    fn forward_into(&self, x: &Tensor, y: &mut Tensor, accumulate: bool) {
        assert_eq!((x.cols(), y.cols(), x.rows()), (self.d_in, self.d_out(), y.rows()), "y = x W^T");
        match (x.rows(), x.dtype(), y.dtype()) {
            (0, ..) => {}
            (1, DType::F32 | DType::Bf16, DType::F32) => self.single::<f32>(x, y, accumulate),
            (1, DType::F32 | DType::Bf16, DType::Bf16) => self.single::<bf16>(x, y, accumulate),
            _ => self.panels(x.dtype(), |at, panel| {
                let options = Options { accumulate, ..Options::default() };
                gemm(columns_mut(y, at, panel.dim(0)), MatRef::of(x), MatRef::of(panel).t(), options);
            }),
        }
    }

    fn input_grad_into(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool) {
        assert_eq!((dx.cols(), dy.cols(), dx.rows()), (self.d_in, self.d_out(), dy.rows()), "dx = dy W");
        if dy.rows() == 0 {
            return;
        }
        let add = |dx: &mut Tensor, at: usize, panel: &Tensor, accumulate| {
            let options = Options { accumulate, ..Options::default() };
            gemm(MatMut::of(dx), columns(dy, at, panel.dim(0)), MatRef::of(panel), options);
        };
        if dx.dtype() != DType::Bf16 {
            self.panels(dy.dtype(), |at, panel| add(dx, at, panel, accumulate || at > 0));
            return;
        }
        // bf16 would round the sum once a panel.
        let mut sum = Tensor::scratch(dx.shape(), DType::F32, Account::Workspace);
        self.panels(dy.dtype(), |at, panel| add(&mut sum, at, panel, at > 0));
        if accumulate {
            add_assign(dx, &sum);
        } else {
            let rounded = to_dtype(&sum, DType::Bf16, Account::Workspace);
            dx.slice_mut::<bf16>().copy_from_slice(rounded.slice::<bf16>());
        }
    }

    fn rows_into(&self, rows: &[u32], out: &mut Tensor) {
        assert_eq!(out.numel(), rows.len() * self.d_in, "rows of a weight");
        fn fill<T: Float>(base: &BlockBase, rows: &[u32], out: &mut Tensor) {
            out.slice_mut::<T>().par_chunks_mut(base.d_in).zip(rows).for_each_init(
                || vec![0.0f32; base.d_in],
                |wide, (out, &row)| {
                    blocks::decode_f32(base.encoding, base.rows(row as usize, 1), wide);
                    out.iter_mut().zip(wide).for_each(|(o, x)| *o = T::from_f32(*x));
                },
            );
        }
        match out.dtype() {
            DType::F64 => fill::<f64>(self, rows, out),
            DType::F32 => fill::<f32>(self, rows, out),
            DType::Bf16 => fill::<bf16>(self, rows, out),
            DType::F16 => fill::<f16>(self, rows, out),
            other => panic!("rows of a weight in {other}"),
        }
    }

    fn weight(&self, dtype: DType) -> Tensor {
        let mut out = Tensor::scratch(&[self.d_out(), self.d_in], dtype, Account::Workspace);
        decode_into(self.encoding, self.blocks.slice::<u8>(), &mut out);
        out
    }
}

#[cfg(test)]
mod tests;
