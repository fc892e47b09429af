//! Element types.
use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 64-bit float: the reference path, on which laws are checked.
    F64,
    /// 32-bit float.
    F32,
    /// bfloat16: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// IEEE half: 5 bits of exponent, 10 of fraction. Storage only.
    F16,
    /// Unsigned byte: packed and quantised blocks.
    U8,
    /// Unsigned 32-bit integer: token ids, rows, offsets.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// Whether elements are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::Bf16 | Self::F16)
    }

    /// The type in which sums over this one are kept, and its parameters' gradients: f64 for f64, else f32.
    pub const fn accumulator(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::U8 => "u8",
            Self::U32 => "u32",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor can hold. Every bit pattern is a value of each.
pub trait Element: sealed::Sealed + Copy + Send + Sync + PartialEq + fmt::Debug + Default + 'static {
    /// Its [`DType`].
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(
        impl sealed::Sealed for $t {}
        impl Element for $t { const DTYPE: DType = DType::$d; }
    )* };
}
elements!(f64 => F64, f32 => F32, bf16 => Bf16, f16 => F16, u8 => U8, u32 => U32);

/// A float element: what references and conversions are written over.
pub trait Float: Element {
    /// Exact for every type but `f64` to itself, where it is the identity.
    fn to_f64(self) -> f64;
    /// Rounds to nearest even.
    fn from_f64(x: f64) -> Self;
    /// Rounds an `f64`, exact otherwise.
    fn to_f32(self) -> f32;
    /// Rounds to nearest even where narrower.
    fn from_f32(x: f32) -> Self;
}

impl Float for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn from_f32(x: f32) -> Self {
        f64::from(x)
    }
}

impl Float for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Float for bf16 {
    fn to_f64(self) -> f64 {
        f64::from(Float::to_f32(self))
    }
    fn from_f64(x: f64) -> Self {
        bf16::from_f64(x)
    }
    #[inline]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline]
    fn from_f32(x: f32) -> Self {
        // Branch-free in the common case, so that loops over it vectorise.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let nan = (bits >> 16) | 0x40;
        bf16::from_bits(if x.is_nan() { nan as u16 } else { (rounded >> 16) as u16 })
    }
}

impl Float for f16 {
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    fn from_f64(x: f64) -> Self {
        f16::from_f64(x)
    }
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_crate_does() {
        for bits in (0..u32::MAX - 4099).step_by(4099) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (<bf16 as Float>::from_f32(x), bf16::from_f32(x));
            assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{x} {ours} {theirs}");
            assert!(x.is_nan() || Float::to_f32(ours) == theirs.to_f32());
        }
    }
}
