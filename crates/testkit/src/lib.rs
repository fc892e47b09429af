//! Laws, tiny models, mutants and goldens. A dev-dependency only.
//!
//! A law is a function from a [`Case`] to what went wrong. [`laws!`] runs all of
//! them on a method; [`mutants`] holds broken methods, one a law, so that each law
//! is seen to fail on the fault that it is there for, and on no other.
pub mod golden;
pub mod laws;
pub mod mutants;
mod tiny;

pub use tiny::{Built, Case, batch, build, spec, tiny_bert};

/// [`laws!`] on [`tiny_bert`]: those that do not speak of decoding.
#[macro_export]
macro_rules! encoder_laws {
    ($case:expr) => {
        $crate::encoder_laws!($case; init_equals_base, moves_when_trained, merge_equals_unmerged,
            formula_equals_counted, gradient, disabling_restores_the_base, only_declared_tensors_change,
            micro_batches_do_not_matter, causal_and_isolated, fast_equals_reference, bytes_equal_formula,
            flops_equal_formula, recompute_changes_nothing, adapters_do_not_mix);
    };
    ($case:expr; $($law:ident),* $(,)?) => {
        mod encoder_laws {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $law() {
                    let case = $crate::Case { spec: $crate::tiny_bert(), ..$case() };
                    if let Err(broken) = $crate::laws::$law(&case) {
                        panic!("{}: {broken}", stringify!($law));
                    }
                }
            )*
        }
    };
}

/// One test a law, on the [`Case`] that `$case` makes. A method that breaks a law by its paper lists those that hold:
/// `laws!(case; init_equals_base, gradient)`.
#[macro_export]
macro_rules! laws {
    ($case:expr) => {
        $crate::laws!($case; init_equals_base, moves_when_trained, merge_equals_unmerged, formula_equals_counted,
            gradient, disabling_restores_the_base, only_declared_tensors_change, micro_batches_do_not_matter,
            causal_and_isolated, cache_equals_forward, fast_equals_reference, bytes_equal_formula, flops_equal_formula,
            recompute_changes_nothing, adapters_do_not_mix);
    };
    ($case:expr; $($law:ident),* $(,)?) => {
        mod laws {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $law() {
                    for spec in $crate::laws::shapes() {
                        let case = $crate::Case { spec, ..$case() };
                        if let Err(broken) = $crate::laws::$law(&case) {
                            panic!("{}: {broken}", stringify!($law));
                        }
                    }
                }
            )*
        }
    };
}
