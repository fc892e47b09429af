//! Values that may be written in one of several forms: a number or a word, a name or a list of them.

use crate::numbers::{NonNegative, Positive, Share};
use crate::settings::{ClassWeights, Clip, EvalSettings, Files, Warmup};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

impl<'de> Deserialize<'de> for Clip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClipVisitor;
        impl Visitor<'_> for ClipVisitor {
            type Value = Clip;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number above 0 or \"none\"")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Clip, E> {
                let refused = || E::invalid_value(de::Unexpected::Float(value), &self);
                Positive::new(value).map(|value| Clip(Some(value))).ok_or_else(refused)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Clip, E> {
                let refused = || E::invalid_value(de::Unexpected::Unsigned(value), &self);
                Positive::new(value as f64).map(|value| Clip(Some(value))).ok_or_else(refused)
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Clip, E> {
                if value == "none" {
                    Ok(Clip(None))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(value), &self))
                }
            }
        }
        deserializer.deserialize_any(ClipVisitor)
    }
}

impl Serialize for Clip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(value) => serializer.serialize_f64(value.get()),
            None => serializer.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightsVisitor;
        impl<'de> Visitor<'de> for WeightsVisitor {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"balanced\" or a list of numbers, one a label")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<ClassWeights, E> {
                if value == "balanced" {
                    Ok(ClassWeights::Balanced)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(value), &self))
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<ClassWeights, A::Error> {
                let mut weights = Vec::new();
                while let Some(weight) = elements.next_element::<NonNegative>()? {
                    weights.push(weight.get());
                }
                if weights.iter().all(|w| *w == 0.0) {
                    return Err(de::Error::custom("must be weights of which one is above 0, got none"));
                }
                Ok(ClassWeights::Given(weights))
            }
        }
        deserializer.deserialize_any(WeightsVisitor)
    }
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => serializer.serialize_str("balanced"),
            Self::Given(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Warmup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WarmupVisitor;
        impl Visitor<'_> for WarmupVisitor {
            type Value = Warmup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share of the run from 0 to below 1, or a whole number of steps")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Warmup, E> {
                let refused = || E::invalid_value(de::Unexpected::Float(value), &self);
                Share::new(value).map(Warmup::Share).ok_or_else(refused)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Warmup, E> {
                Ok(Warmup::Steps(value as usize))
            }
        }
        deserializer.deserialize_any(WarmupVisitor)
    }
}

impl Serialize for Warmup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Share(share) => serializer.serialize_f64(share.get()),
            Self::Steps(steps) => serializer.serialize_u64(*steps as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(EvalVisitor { share: false })? {
            EvalSettings::Files(files) => Ok(files),
            EvalSettings::Share(_) => {
                Err(de::Error::custom("must be a file name or a list of them, got a number"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for EvalSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EvalVisitor { share: true })
    }
}

/// A file, a list of files and, where `share`, a number between 0 and 1.
struct EvalVisitor {
    share: bool,
}

impl<'de> Visitor<'de> for EvalVisitor {
    type Value = EvalSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file name or a list of them")?;
        if self.share { f.write_str(", or a share of the training rows above 0 and below 1") } else { Ok(()) }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<EvalSettings, E> {
        Ok(EvalSettings::Files(Files(vec![value.to_owned()])))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<EvalSettings, A::Error> {
        let mut files = Vec::new();
        while let Some(file) = elements.next_element()? {
            files.push(file);
        }
        if files.is_empty() {
            return Err(de::Error::custom("must be at least one file, got an empty list"));
        }
        Ok(EvalSettings::Files(Files(files)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<EvalSettings, E> {
        let share = Positive::new(value).filter(|share| self.share && share.get() < 1.0);
        share.map(EvalSettings::Share).ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
    }
}
