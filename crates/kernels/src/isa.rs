//! Instruction set tiers: what the machine can run, and which tier the kernels use.
//!
//! Every kernel asks [`tier`] once per call and picks its code path. A test or `luthier bench --tier` can force a lower
//! tier with [`force`]; all tiers agree within the tolerances of their operations.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// A level of vector instructions, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tier {
    /// AVX-512 (F, BW, VL, DQ) with `vdpbf16ps`: bf16 products, f32 sums.
    Avx512Bf16 = 1,
    /// AVX-512 (F, BW, VL, DQ); bf16 operands are widened to f32.
    Avx512 = 2,
    /// AVX2 with FMA.
    Avx2 = 3,
    /// NEON, on aarch64.
    Neon = 4,
    /// No assumption beyond the compiler's target.
    Portable = 5,
}

impl Tier {
    /// All tiers, best first.
    pub const ALL: [Tier; 5] = [Tier::Avx512Bf16, Tier::Avx512, Tier::Avx2, Tier::Neon, Tier::Portable];

    /// The name that `--tier` takes and reports print.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Avx512Bf16 => "avx512_bf16",
            Tier::Avx512 => "avx512",
            Tier::Avx2 => "avx2",
            Tier::Neon => "neon",
            Tier::Portable => "portable",
        }
    }

    /// The tier of this name.
    pub fn from_name(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The machine lacks the instructions of a tier that was forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine cannot run tier `{wanted}`: its best tier is `{best}`")]
pub struct Unsupported {
    /// The tier that was asked for.
    pub wanted: Tier,
    /// The best tier that the machine has.
    pub best: Tier,
}

/// 0: nothing is forced; else the forced tier's number.
static FORCED: AtomicU8 = AtomicU8::new(0);

#[cfg(target_arch = "x86_64")]
fn detect() -> Tier {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) if is_x86_feature_detected!("avx512bf16") => Tier::Avx512Bf16,
        (true, true) => Tier::Avx512,
        (true, false) => Tier::Avx2,
        _ => Tier::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Tier {
    if cfg!(target_arch = "aarch64") { Tier::Neon } else { Tier::Portable }
}

/// The best tier that this machine runs.
pub fn detected() -> Tier {
    static DETECTED: OnceLock<Tier> = OnceLock::new();
    *DETECTED.get_or_init(detect)
}

/// Every tier that this machine runs, best first: each includes the instructions of those after it.
pub fn supported() -> Vec<Tier> {
    let here = |tier: &Tier| *tier != Tier::Neon || cfg!(target_arch = "aarch64");
    Tier::ALL.into_iter().filter(|tier| *tier >= detected()).filter(here).collect()
}

/// The tier in use: the forced one, else the detected one.
pub fn tier() -> Tier {
    match FORCED.load(Ordering::Relaxed) {
        1 => Tier::Avx512Bf16,
        2 => Tier::Avx512,
        3 => Tier::Avx2,
        4 => Tier::Neon,
        5 => Tier::Portable,
        _ => detected(),
    }
}

/// Forces a tier for the whole process, or with `None` returns to the detected one. Tests that force run under
/// [`with_tier`], which keeps them from disturbing one another.
pub fn force(tier: Option<Tier>) -> Result<(), Unsupported> {
    if let Some(wanted) = tier
        && !supported().contains(&wanted)
    {
        return Err(Unsupported { wanted, best: detected() });
    }
    FORCED.store(tier.map_or(0, |tier| tier as u8), Ordering::Relaxed);
    Ok(())
}

/// Runs `body` once under every supported tier, one caller at a time, then returns to the detected tier.
pub fn on_each_tier(mut body: impl FnMut(Tier)) {
    for tier in supported() {
        with_tier(tier, || body(tier));
    }
}

/// Runs `body` under a forced tier that the machine supports, then restores what was forced before. Callers in
/// different threads take turns; code that forces nothing may see the forced tier meanwhile, which changes rounding only.
pub fn with_tier<R>(tier: Tier, body: impl FnOnce() -> R) -> R {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    struct Restore(u8);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.store(self.0, Ordering::Relaxed);
        }
    }
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _restore = Restore(FORCED.load(Ordering::Relaxed));
    force(Some(tier)).expect("the caller names a tier from `supported`");
    body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for tier in Tier::ALL {
            assert_eq!(Tier::from_name(tier.name()), Some(tier));
        }
        assert_eq!(Tier::from_name("sse9"), None);
    }

    #[test]
    fn forcing_changes_the_tier_and_refuses_what_the_machine_lacks() {
        for wanted in Tier::ALL {
            if supported().contains(&wanted) {
                assert_eq!(with_tier(wanted, tier), wanted);
            } else {
                assert_eq!(force(Some(wanted)), Err(Unsupported { wanted, best: detected() }));
            }
        }
        assert_eq!(supported().last(), Some(&Tier::Portable));
    }
}
