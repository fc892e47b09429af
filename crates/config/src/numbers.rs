//! Numbers with a range: a value out of range is refused where it is written.

use serde::{Deserialize, Serialize};

/// A newtype of f64 whose values pass a test; `$what` is how a message names the range.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $what:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The number, if it is in the range.
            pub fn new(value: f64) -> Option<Self> {
                let accepts: fn(f64) -> bool = $accepts;
                accepts(value).then_some(Self(value))
            }

            /// The number.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(value: f64) -> Result<Self, String> {
                Self::new(value).ok_or_else(|| format!("must be {}, got {value}", $what))
            }
        }
    };
}

ranged!(
    /// A finite number above zero.
    Positive,
    "a number above 0",
    |value| value.is_finite() && value > 0.0
);
ranged!(
    /// A finite number, zero or more.
    NonNegative,
    "a number of at least 0",
    |value| value.is_finite() && value >= 0.0
);
ranged!(
    /// A share: at least 0 and below 1.
    Share,
    "a number from 0 to below 1",
    |value| (0.0..1.0).contains(&value)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_they_say() {
        for (value, positive, non_negative, share) in [
            (-0.1, false, false, false),
            (0.0, false, true, true),
            (0.5, true, true, true),
            (1.0, true, true, false),
            (f64::INFINITY, false, false, false),
            (f64::NAN, false, false, false),
        ] {
            assert_eq!(Positive::new(value).is_some(), positive, "{value}");
            assert_eq!(NonNegative::new(value).is_some(), non_negative, "{value}");
            assert_eq!(Share::new(value).is_some(), share, "{value}");
        }
    }
}
