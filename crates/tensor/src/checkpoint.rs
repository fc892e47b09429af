//! Block recompute: keep a block's inputs, run it again when its gradient is wanted.
//!
//! Chen 2016, "Training deep nets with sublinear memory cost". The replay draws
//! the same random numbers, since those depend on where they are used only.
use crate::param::ParamId;
use crate::tape::{Backward, Sink, Tape, Var};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A block: from inputs to outputs, the same at every call.
pub type Block = Rc<dyn Fn(&Tape, &[Var]) -> Vec<Var>>;

impl Tape {
    /// Runs `block` and keeps only `inputs`; backward runs it again. The leaves that it touches are leaves of this
    /// node, so that a leaf shared between blocks is complete once.
    pub fn checkpoint(&self, inputs: &[Var], block: Block) -> Vec<Var> {
        if !self.keeps_nodes() {
            return block(self, inputs);
        }
        let first = Tape::trace();
        let local = inputs.iter().map(|v| localise(&first, v).0).collect::<Vec<_>>();
        let outputs = block(&first, &local);
        drop(local);
        let leaves = first.touched();
        let touched = leaves.iter().map(|p| self.leaf(p)).collect::<Vec<_>>();
        let parents = inputs.iter().chain(&touched).collect::<Vec<_>>();
        let kept = inputs.iter().map(|v| (v.value().clone(), v.needs_grad())).collect::<Vec<_>>();
        let ids = leaves.iter().map(|p| p.id()).collect::<Vec<_>>();
        // The leaves' values must not be held: an update may come before this node is walked.
        self.record(&parents, outputs.into_iter().map(Var::into_value).collect(), move |b| {
            replay(b, &kept, &ids, &block);
        })
    }
}

fn localise(tape: &Tape, var: &Var) -> (Var, Option<ParamId>) {
    if var.needs_grad() {
        let (local, id) = tape.input(var.value().clone());
        (local, Some(id))
    } else {
        (var.detach(), None)
    }
}

fn replay(b: &mut Backward<'_>, inputs: &[(Tensor, bool)], leaves: &[ParamId], block: &Block) {
    let tape = Tape::new();
    let mut parent = BTreeMap::new();
    let mut local = Vec::new();
    for (i, (value, needs)) in inputs.iter().enumerate() {
        if *needs {
            let (var, id) = tape.input(value.clone());
            parent.insert(id, i);
            local.push(var);
        } else {
            local.push(Var::constant(value.clone()));
        }
    }
    parent.extend(leaves.iter().enumerate().map(|(i, id)| (*id, inputs.len() + i)));
    let outputs = block(&tape, &local);
    drop(local);
    let seeds =
        outputs.into_iter().enumerate().filter_map(|(i, out)| b.output(i).map(|g| (out, g))).collect();
    tape.backward_from(seeds, &mut Outer { b, parent, inputs: inputs.len() });
}

/// Hands the inner tape's leaves to the parents of the outer node.
struct Outer<'b, 'a> {
    b: &'b mut Backward<'a>,
    parent: BTreeMap<ParamId, usize>,
    inputs: usize,
}

impl Sink for Outer<'_, '_> {
    fn partial(&mut self, id: ParamId) -> Option<Tensor> {
        self.b.partial(self.parent[&id])
    }

    fn leaf(&mut self, id: ParamId, gradient: Tensor) {
        let parent = self.parent[&id];
        if parent < self.inputs {
            self.b.push(parent, gradient);
        } else {
            // A parameter is touched by its block's node once, however often inside: an update need not wait for the
            // rest of the block.
            self.b.push_last(parent, gradient);
        }
    }
}
