//! How the elements of a tensor lie in a file: plain numbers, or blocks of quantised ones.
//!
//! Sources: the safetensors format's dtype names; ggml's type numbers and block sizes (`ggml.h`, `enum ggml_type`).

use std::fmt;

use luthier_tensor::DType;

/// Elements of one ggml block (`QK8_0`, `QK4_0`, `QK4_1`: all 32).
pub const BLOCK: usize = 32;

/// The element encoding of a stored tensor, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// Signed, 8 bytes.
    I64,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 2 bytes.
    I16,
    /// Signed, 1 byte.
    I8,
    /// Unsigned, 8 bytes.
    U64,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned, 1 byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// ggml block: f16 scale `d`, 32 signed bytes `q`; `x = d q`.
    Q8_0,
    /// ggml block: f16 scale `d`, 32 nibbles `q`; `x = d (q - 8)`.
    Q4_0,
    /// ggml block: f16 scale `d`, f16 minimum `m`, 32 nibbles `q`; `x = d q + m`.
    Q4_1,
}

/// Why a shape has no size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeFault {
    /// The element count or the byte count does not fit 63 bits.
    Overflow,
    /// The last dimension is no multiple of the block.
    Ragged {
        /// Length of the last dimension.
        row: usize,
        /// Elements of one block.
        block: usize,
    },
}

impl Encoding {
    /// The encodings that can be a weight of a model.
    pub const WEIGHTS: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1";

    /// Elements and bytes of the smallest unit: `(1, size)` for plain numbers, `(32, bytes)` for blocks.
    pub const fn unit(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => (1, 2),
            Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::Q8_0 => (BLOCK, 2 + BLOCK),
            Self::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            Self::Q4_1 => (BLOCK, 4 + BLOCK / 2),
        }
    }

    /// Whether the elements are held in quantised blocks.
    pub const fn is_blocked(self) -> bool {
        self.unit().0 > 1
    }

    /// Whether a model's weight may be stored so.
    pub const fn is_weight(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16 | Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    /// Bytes that one row of `elements` takes, if it is whole blocks.
    pub fn row_bytes(self, elements: usize) -> Result<usize, SizeFault> {
        let (block, bytes) = self.unit();
        if !elements.is_multiple_of(block) {
            return Err(SizeFault::Ragged { row: elements, block });
        }
        (elements / block).checked_mul(bytes).ok_or(SizeFault::Overflow)
    }

    /// Bytes that a tensor of `shape` takes. Rows (the last dimension) are whole blocks.
    ///
    /// The bound is 63 bits, so that sums of an offset and a size cannot wrap either.
    pub fn bytes_of(self, shape: &[usize]) -> Result<usize, SizeFault> {
        let row = shape.last().copied().unwrap_or(1);
        // All dimensions are multiplied before zero is looked at: `[2^40, 2^40, 0]` is refused, not empty.
        let mut elements = 1usize;
        for &d in shape.iter().filter(|&&d| d != 0) {
            elements = elements.checked_mul(d).ok_or(SizeFault::Overflow)?;
        }
        if shape.contains(&0) {
            elements = 0;
        }
        let (block, bytes) = self.unit();
        if !row.is_multiple_of(block) {
            return Err(SizeFault::Ragged { row, block });
        }
        let total = (elements / block).checked_mul(bytes).ok_or(SizeFault::Overflow)?;
        if total > isize::MAX as usize { Err(SizeFault::Overflow) } else { Ok(total) }
    }

    /// The name in a safetensors header; blocks have none.
    pub fn safetensors_name(self) -> Option<&'static str> {
        if self.is_blocked() { None } else { Some(self.name()) }
    }

    /// The encoding that a safetensors header names.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        const ALL: [Encoding; 13] = [
            Encoding::F64,
            Encoding::F32,
            Encoding::F16,
            Encoding::Bf16,
            Encoding::I64,
            Encoding::I32,
            Encoding::I16,
            Encoding::I8,
            Encoding::U64,
            Encoding::U32,
            Encoding::U16,
            Encoding::U8,
            Encoding::Bool,
        ];
        ALL.into_iter().find(|e| e.name() == name)
    }

    /// ggml's number of the type, where GGUF has one.
    pub const fn ggml_type(self) -> Option<u32> {
        Some(match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
            _ => return None,
        })
    }

    /// The encoding of a ggml type number, if we read it.
    pub const fn from_ggml_type(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// The usual name, as both formats print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
        }
    }
}

impl From<DType> for Encoding {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self::F64,
            DType::F32 => Self::F32,
            DType::Bf16 => Self::Bf16,
            DType::F16 => Self::F16,
            DType::U8 => Self::U8,
            DType::U32 => Self::U32,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// ggml's name of a type number that we do not read, for error messages.
pub(crate) const fn ggml_type_name(number: u32) -> &'static str {
    match number {
        4 => "Q4_2 (removed from ggml)",
        5 => "Q4_3 (removed from ggml)",
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown to us",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_and_never_wrap() {
        assert_eq!(Encoding::Q8_0.bytes_of(&[3, 64]), Ok(3 * 2 * 34));
        assert_eq!(Encoding::Q4_0.bytes_of(&[64]), Ok(36));
        assert_eq!(Encoding::Q4_1.bytes_of(&[2, 32]), Ok(40));
        assert_eq!(Encoding::Bf16.bytes_of(&[]), Ok(2), "a scalar is one element");
        assert_eq!(Encoding::F32.bytes_of(&[4, 0]), Ok(0));
        assert_eq!(Encoding::F32.bytes_of(&[1 << 40, 1 << 40]), Err(SizeFault::Overflow));
        assert_eq!(Encoding::F32.bytes_of(&[1 << 40, 1 << 40, 0]), Err(SizeFault::Overflow));
        assert_eq!(Encoding::F64.bytes_of(&[1 << 60]), Err(SizeFault::Overflow), "2^63 bytes");
        assert_eq!(Encoding::Q8_0.bytes_of(&[2, 33]), Err(SizeFault::Ragged { row: 33, block: 32 }));
    }

    #[test]
    fn names_and_numbers_go_both_ways() {
        for e in
            [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Q8_0, Encoding::Q4_0, Encoding::Q4_1]
        {
            assert_eq!(Encoding::from_ggml_type(e.ggml_type().unwrap()), Some(e));
        }
        for e in [Encoding::F64, Encoding::Bool, Encoding::U8, Encoding::I64, Encoding::Bf16] {
            assert_eq!(Encoding::from_safetensors(e.safetensors_name().unwrap()), Some(e));
        }
        assert_eq!(Encoding::from_safetensors("Q8_0"), None);
    }
}
