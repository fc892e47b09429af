//! One stored tensor: bytes that a file keeps alive, and the ways to use them.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use luthier_tensor::{Account, DType, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::blocks;
use crate::encoding::Encoding;
use crate::mmap::FileBytes;

// The files are little endian and used in place: on another machine the bytes would have to be turned.
const _: () = assert!(cfg!(target_endian = "little"), "the target must be little endian");

/// Elements that one task converts: a multiple of every block.
const CONVERTED_AT_ONCE: usize = 1 << 14;

/// A tensor as a file holds it. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(crate) name: String,
    pub(crate) encoding: Encoding,
    pub(crate) shape: Vec<usize>,
    pub(crate) owner: Arc<FileBytes>,
    /// Bytes of `owner`; exactly those of `shape`.
    pub(crate) range: Range<usize>,
}

impl Stored {
    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Row-major shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }

    /// Length of the first axis; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The tensor in its own type, in place where the file is mapped and the bytes are aligned, else copied.
    ///
    /// F64, F32, F16, BF16, U32 and U8 keep their type; blocks are decoded to f32; the rest is refused.
    pub fn to_tensor(&self, account: Account) -> Result<Tensor, Error> {
        let dtype = match self.encoding {
            Encoding::F64 => DType::F64,
            Encoding::F32 => DType::F32,
            Encoding::F16 => DType::F16,
            Encoding::Bf16 => DType::Bf16,
            Encoding::U32 => DType::U32,
            Encoding::U8 => DType::U8,
            e if e.is_blocked() => return self.to_dtype(DType::F32, account),
            _ => return Err(self.not_a_weight()),
        };
        Ok(self.in_place(dtype, &self.shape, account))
    }

    /// The tensor as `dtype` (F64, F32, F16 or BF16), rounded to nearest even where that is narrower.
    pub fn to_dtype(&self, dtype: DType, account: Account) -> Result<Tensor, Error> {
        let own = match self.encoding {
            Encoding::F32 => Some(DType::F32),
            Encoding::F16 => Some(DType::F16),
            Encoding::Bf16 => Some(DType::Bf16),
            _ => None,
        };
        if own == Some(dtype) {
            return Ok(self.in_place(dtype, &self.shape, account));
        }
        if self.encoding == Encoding::F64 {
            let wide = self.in_place(DType::F64, &self.shape, account);
            return Ok(luthier_tensor::to_dtype(&wide, dtype, account));
        }
        if !self.encoding.is_weight() {
            return Err(self.not_a_weight());
        }
        if !dtype.is_float() {
            return Err(self.not_a_weight());
        }
        let mut out = Tensor::scratch(&self.shape, dtype, account);
        decode_into(self.encoding, self.bytes(), &mut out);
        Ok(out)
    }

    /// The bytes as a tensor, without copying where they are aligned.
    pub(crate) fn in_place(&self, dtype: DType, shape: &[usize], account: Account) -> Tensor {
        let aligned = (self.bytes().as_ptr() as usize).is_multiple_of(dtype.size());
        if aligned {
            return Tensor::from_owner(Arc::clone(&self.owner), self.range.clone(), shape, dtype, account);
        }
        let mut copy = Tensor::scratch(shape, dtype, account);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    pub(crate) fn not_a_weight(&self) -> Error {
        Error::NotAWeight {
            path: self.owner.path().to_owned(),
            tensor: self.name.clone(),
            encoding: self.encoding,
        }
    }
}

/// Decodes stored elements of a weight encoding into a float tensor of as many elements, on all threads.
pub(crate) fn decode_into(encoding: Encoding, bytes: &[u8], out: &mut Tensor) {
    match out.dtype() {
        DType::F32 => convert(encoding, bytes, out.slice_mut::<f32>(), blocks::decode_f32),
        DType::Bf16 => convert(encoding, bytes, out.slice_mut::<bf16>(), blocks::decode_bf16),
        DType::F16 => convert(encoding, bytes, out.slice_mut::<f16>(), through_f32(f16::from_f32)),
        DType::F64 => convert(encoding, bytes, out.slice_mut::<f64>(), through_f32(f64::from)),
        other => panic!("a weight decoded to {other}"),
    }
}

fn convert<T: Send>(
    encoding: Encoding,
    bytes: &[u8],
    out: &mut [T],
    decode: impl Fn(Encoding, &[u8], &mut [T]) + Sync,
) {
    let (block, unit) = encoding.unit();
    out.par_chunks_mut(CONVERTED_AT_ONCE)
        .zip(bytes.par_chunks(CONVERTED_AT_ONCE / block * unit))
        .for_each(|(out, bytes)| decode(encoding, bytes, out));
}

/// A decoder to a type that is rarely asked for, by way of f32.
fn through_f32<T>(to: impl Fn(f32) -> T + Sync) -> impl Fn(Encoding, &[u8], &mut [T]) + Sync {
    move |encoding, bytes, out| {
        let mut wide = vec![0.0; out.len()];
        blocks::decode_f32(encoding, bytes, &mut wide);
        out.iter_mut().zip(wide).for_each(|(o, x)| *o = to(x));
    }
}
