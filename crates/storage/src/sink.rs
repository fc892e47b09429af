//! Where a writer takes a declared tensor's content from, piece by piece.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use luthier_tensor::{Account, DType, Tensor, to_dtype};

use crate::Error;
use crate::blocks::{self, BlockFault};
use crate::durable::{self, Ended};
use crate::encoding::{BLOCK, Encoding};

/// A tensor that a file will hold: declared before its content is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub encoding: Encoding,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

impl Declared {
    /// A declaration.
    pub fn new(name: impl Into<String>, encoding: Encoding, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), encoding, shape: shape.into() }
    }

    pub(crate) fn bytes(&self) -> Result<usize, Error> {
        self.encoding.bytes_of(&self.shape).map_err(|fault| Error::Unsized {
            tensor: self.name.clone(),
            shape: self.shape.clone(),
            encoding: self.encoding,
            fault,
        })
    }
}

/// Takes the content of one tensor, in as many pieces as the caller likes.
pub struct TensorSink<'w> {
    out: &'w mut dyn Write,
    path: &'w Path,
    tensor: &'w Declared,
    expected: usize,
    given: usize,
    /// Elements that do not fill a block yet.
    carry: Vec<f32>,
    elements: usize,
    piece: Vec<u8>,
}

impl<'w> TensorSink<'w> {
    pub(crate) fn new(out: &'w mut dyn Write, path: &'w Path, tensor: &'w Declared) -> Result<Self, Error> {
        let expected = tensor.bytes()?;
        Ok(Self { out, path, tensor, expected, given: 0, carry: Vec::new(), elements: 0, piece: Vec::new() })
    }

    /// Takes bytes that are encoded as declared.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.given = self.given.saturating_add(bytes.len());
        if self.given > self.expected {
            return Err(self.wrong_length());
        }
        self.out.write_all(bytes).map_err(|source| Error::Io {
            action: "write",
            path: self.path.to_owned(),
            source,
        })
    }

    /// Takes values and encodes them as declared: F32, F16, BF16 (rounded to nearest even) or Q8_0.
    ///
    /// A finite value that the encoding cannot hold is refused: an F16 file must not turn it into infinity unseen.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), Error> {
        for part in values.chunks(1 << 16) {
            self.encode(part)?;
            self.elements += part.len();
        }
        Ok(())
    }

    /// Takes a whole tensor: as it is where its type is the declared one, else by way of f32.
    pub fn write_tensor(&mut self, tensor: &Tensor) -> Result<(), Error> {
        if Encoding::from(tensor.dtype()) == self.tensor.encoding {
            return self.write_bytes(tensor.bytes());
        }
        if !tensor.dtype().is_float() {
            return Err(self.cannot_encode());
        }
        self.write_f32(to_dtype(tensor, DType::F32, Account::Workspace).slice())
    }

    fn encode(&mut self, values: &[f32]) -> Result<(), Error> {
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        match self.tensor.encoding {
            Encoding::F32 => piece.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Encoding::Bf16 => {
                for (i, &v) in values.iter().enumerate() {
                    let b = bf16::from_f32(v);
                    if v.is_finite() && !b.is_finite() {
                        return Err(self.out_of_range(self.elements + i, v));
                    }
                    piece.extend(b.to_le_bytes());
                }
            }
            Encoding::F16 => {
                for (i, &v) in values.iter().enumerate() {
                    let b = f16::from_f32(v);
                    if v.is_finite() && !b.is_finite() {
                        return Err(self.out_of_range(self.elements + i, v));
                    }
                    piece.extend(b.to_le_bytes());
                }
            }
            Encoding::Q8_0 => {
                let first = self.elements - self.carry.len();
                let mut pending = std::mem::take(&mut self.carry);
                pending.extend(values);
                let whole = pending.len() / BLOCK * BLOCK;
                piece.resize(Encoding::Q8_0.row_bytes(whole).map_err(|_| self.wrong_length())?, 0);
                blocks::encode_q8_0(&pending[..whole], &mut piece)
                    .map_err(|BlockFault { index, value }| self.out_of_range(first + index, value))?;
                self.carry = pending.split_off(whole);
            }
            _ => return Err(self.cannot_encode()),
        }
        self.write_bytes(&piece)?;
        self.piece = piece;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.given == self.expected && self.carry.is_empty() { Ok(()) } else { Err(self.wrong_length()) }
    }

    fn wrong_length(&self) -> Error {
        Error::WrongLength { tensor: self.tensor.name.clone(), expected: self.expected, got: self.given }
    }

    fn cannot_encode(&self) -> Error {
        Error::CannotEncode {
            tensor: self.tensor.name.clone(),
            encoding: self.tensor.encoding,
            format: "this program",
            allowed: "conversions from floats to F32, F16, BF16 and Q8_0",
        }
    }

    fn out_of_range(&self, index: usize, value: f32) -> Error {
        Error::OutOfRange { tensor: self.tensor.name.clone(), encoding: self.tensor.encoding, index, value }
    }
}

/// Writes `head`, then each tensor after `alignment` padding, at `path`, durably.
pub(crate) fn write_file<E: From<Error>>(
    path: &Path,
    head: &[u8],
    alignment: usize,
    tensors: &[&Declared],
    mut source: impl FnMut(&Declared, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    durable::write(path, |file| {
        let mut out = durable::Counted::new(file);
        out.write_all(head)?;
        for tensor in tensors {
            out.pad(alignment)?;
            let mut sink = TensorSink::new(&mut out, path, tensor).map_err(|e| Ended::Caller(e.into()))?;
            source(tensor, &mut sink).map_err(Ended::Caller)?;
            sink.finish().map_err(|e| Ended::Caller(e.into()))?;
        }
        out.pad(alignment)?;
        Ok(())
    })
}
