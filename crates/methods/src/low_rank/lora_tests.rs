//! LoRA: laws, the faults that they catch, and PEFT's own tensors.
use super::*;
use luthier_testkit::mutants::{Fault, Mutant};
use luthier_testkit::{Case, laws as all};

fn tiny() -> Lora {
    Lora { rank: NonZeroUsize::new(2).unwrap(), alpha: 3.0, dropout: 0.25, ..Lora::default() }
}

luthier_testkit::laws!(|| Case::new(tiny()));
luthier_testkit::encoder_laws!(|| Case::new(tiny()));

type Law = fn(&Case) -> Result<(), String>;

const LAWS: &[(&str, Law)] = &[
    ("init_equals_base", all::init_equals_base),
    ("moves_when_trained", all::moves_when_trained),
    ("merge_equals_unmerged", all::merge_equals_unmerged),
    ("formula_equals_counted", all::formula_equals_counted),
    ("gradient", all::gradient),
    ("micro_batches_do_not_matter", all::micro_batches_do_not_matter),
    ("bytes_equal_formula", all::bytes_equal_formula),
    ("flops_equal_formula", all::flops_equal_formula),
    ("recompute_changes_nothing", all::recompute_changes_nothing),
];

/// Each fault fails its law, and no other of these but what follows from it.
fn only(fault: Fault, laws: &[&str]) {
    // Without a tied head, so that the faults of one site stay within it.
    let case = Case { spec: luthier_testkit::spec(1), ..Case::new(Mutant::new(tiny(), fault)) };
    for (name, check) in LAWS {
        assert_eq!(check(&case).is_err(), laws.contains(name), "{fault:?} and {name}");
    }
}

macro_rules! faults {
    ($($test:ident: $fault:ident => $($law:ident)+),* $(,)?) => {
        $(#[test]
        fn $test() {
            only(Fault::$fault, &[$(stringify!($law)),+]);
        })*
    };
}

faults! {
    a_first_value_that_is_not_zero: StartsElsewhere => init_equals_base,
    an_update_that_is_dropped: DoesNothing => moves_when_trained flops_equal_formula,
    a_merge_that_forgets: MergeForgets => merge_equals_unmerged,
    a_formula_one_off: CountsOneMore => formula_equals_counted bytes_equal_formula,
    a_tensor_read_detached: ReadsDetached => gradient,
    dropout_by_micro_batch: DrawsByMicroBatch => micro_batches_do_not_matter,
    a_tensor_beside_the_declared: HidesATensor => bytes_equal_formula,
    a_cost_of_three_products: CostsMore => flops_equal_formula,
    a_replay_that_differs: ChangesWhenReplayed => recompute_changes_nothing,
}
