//! The gradient tape: define-by-run, one node an operation.
//!
//! A node is recorded only if a parent needs a gradient. Its backward is told
//! which parents do, computes only those, and pushes them one by one. Nodes are
//! consumed in reverse order of recording, so saved values are freed as the walk
//! uses them. Uses of a leaf are counted in forward; when the last is done, the
//! leaf's gradient goes to the [`Sink`] at once: after the node's own input
//! gradients, so that the receiver may change the weight.
use crate::account::Account;
use crate::arith::add_assign;
use crate::dtype::DType;
use crate::param::{Param, ParamId};
use crate::tensor::Tensor;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Receives gradients of leaves.
pub trait Sink {
    /// What is already there for `id` (earlier micro-batches), to be added to in place. It comes back in
    /// [`leaf`](Self::leaf).
    fn partial(&mut self, id: ParamId) -> Option<Tensor> {
        let _ = id;
        None
    }

    /// The complete gradient of `id`: its last contribution has arrived.
    fn leaf(&mut self, id: ParamId, gradient: Tensor);
}

/// Collects into a map.
impl Sink for BTreeMap<ParamId, Tensor> {
    fn partial(&mut self, id: ParamId) -> Option<Tensor> {
        self.remove(&id)
    }

    fn leaf(&mut self, id: ParamId, gradient: Tensor) {
        self.insert(id, gradient);
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    source: Source,
    recipe: Option<Rc<Recipe>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Needs no gradient.
    Constant,
    /// An output of a recorded node.
    Node { node: usize, output: usize },
    /// A leaf, or an input of a recomputed block.
    Leaf(ParamId),
    /// Needs a gradient, but this run keeps no nodes (first run of a recomputed block).
    Traced,
}

impl Var {
    /// A value that needs no gradient.
    pub fn constant(value: Tensor) -> Self {
        Self { value, source: Source::Constant, recipe: None }
    }

    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value, leaving its place on the tape: keeps a unique tensor unique.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The value and its place on the tape, apart: a unique value stays unique, so that an operation may write its
    /// result over it and still name the parent. The place has no elements.
    pub fn into_parts(self) -> (Tensor, Self) {
        let empty = Tensor::scratch(&[0], self.value.dtype(), self.value.account());
        (self.value, Self { value: empty, source: self.source, recipe: None })
    }

    /// Whether a gradient will be wanted.
    pub fn needs_grad(&self) -> bool {
        self.source != Source::Constant
    }

    /// The same value, held constant.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self::constant(self.value.clone())
    }

    /// Says how to compute the value again from what is saved anyway, so that consumers save no copy of it.
    #[must_use]
    pub fn with_recipe(mut self, make: impl Fn() -> Tensor + 'static) -> Self {
        if self.needs_grad() {
            self.recipe =
                Some(Rc::new(Recipe { make: Box::new(make), uses: Cell::new(0), made: RefCell::new(None) }));
        }
        self
    }

    /// What a consumer keeps of the value for its backward: the value, or the recipe if there is one.
    pub fn save(&self) -> Saved {
        match &self.recipe {
            Some(recipe) => {
                recipe.uses.set(recipe.uses.get() + 1);
                Saved::Again(recipe.clone())
            }
            None => Saved::Kept(self.value.clone()),
        }
    }
}

struct Recipe {
    make: Box<dyn Fn() -> Tensor>,
    uses: Cell<usize>,
    made: RefCell<Option<Tensor>>,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recipe({} uses)", self.uses.get())
    }
}

/// A value kept for backward: itself, or the means to make it again.
#[derive(Debug)]
pub enum Saved {
    /// The value.
    Kept(Tensor),
    /// Made again at the first [`take`](Saved::take), dropped at the last.
    #[expect(private_interfaces, reason = "only `Var::with_recipe` makes recipes")]
    Again(Rc<Recipe>),
}

impl Saved {
    /// The value.
    pub fn take(self) -> Tensor {
        match self {
            Self::Kept(value) => value,
            Self::Again(recipe) => {
                recipe.uses.set(recipe.uses.get() - 1);
                let value = recipe.made.borrow_mut().take().unwrap_or_else(|| (recipe.make)());
                if recipe.uses.get() > 0 {
                    *recipe.made.borrow_mut() = Some(value.clone());
                }
                value
            }
        }
    }
}

type Walk = Box<dyn FnOnce(&mut Backward<'_>)>;

struct Node {
    parents: Vec<Source>,
    outputs: usize,
    walk: Walk,
}

#[derive(Default)]
struct Record {
    nodes: Vec<Node>,
    uses: BTreeMap<ParamId, usize>,
}

enum Mode {
    Off,
    Trace(RefCell<BTreeMap<ParamId, Arc<Param>>>),
    Record(RefCell<Record>),
}

/// One forward run. See the module's head.
pub struct Tape {
    mode: Mode,
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

impl Tape {
    /// A tape that records.
    pub fn new() -> Self {
        Self { mode: Mode::Record(RefCell::default()) }
    }

    /// A tape that records nothing: evaluation, decoding.
    pub fn off() -> Self {
        Self { mode: Mode::Off }
    }

    /// A tape that only notes which leaves were touched.
    pub(crate) fn trace() -> Self {
        Self { mode: Mode::Trace(RefCell::default()) }
    }

    pub(crate) fn touched(self) -> Vec<Arc<Param>> {
        match self.mode {
            Mode::Trace(leaves) => leaves.into_inner().into_values().collect(),
            Mode::Off | Mode::Record(_) => Vec::new(),
        }
    }

    /// Whether gradients can be asked for later.
    pub fn is_recording(&self) -> bool {
        !matches!(self.mode, Mode::Off)
    }

    pub(crate) fn keeps_nodes(&self) -> bool {
        matches!(self.mode, Mode::Record(_))
    }

    /// The current value of a trained tensor.
    pub fn leaf(&self, param: &Arc<Param>) -> Var {
        let source = match &self.mode {
            Mode::Off => Source::Constant,
            Mode::Record(_) => Source::Leaf(param.id()),
            Mode::Trace(leaves) => {
                leaves.borrow_mut().insert(param.id(), param.clone());
                Source::Leaf(param.id())
            }
        };
        Var { value: param.value(), source, recipe: None }
    }

    /// A value whose gradient is wanted though it is no parameter (the input of a block, or of a test).
    pub fn input(&self, value: Tensor) -> (Var, ParamId) {
        let id = ParamId::fresh();
        let source = if self.is_recording() { Source::Leaf(id) } else { Source::Constant };
        (Var { value, source, recipe: None }, id)
    }

    /// Records an operation: its parents, its outputs, and its backward, which is dropped unseen when no parent needs
    /// a gradient. Build what it saves with [`Var::save`], and only if [`wants`](Self::wants) says so.
    pub fn record(
        &self,
        parents: &[&Var],
        outputs: Vec<Tensor>,
        walk: impl FnOnce(&mut Backward<'_>) + 'static,
    ) -> Vec<Var> {
        let needed = parents.iter().any(|p| p.needs_grad());
        let source = |output: usize| match &self.mode {
            _ if !needed => Source::Constant,
            Mode::Off => Source::Constant,
            Mode::Trace(_) => Source::Traced,
            Mode::Record(record) => Source::Node { node: record.borrow().nodes.len(), output },
        };
        let vars = outputs
            .into_iter()
            .enumerate()
            .map(|(i, value)| Var { value, source: source(i), recipe: None })
            .collect::<Vec<_>>();
        if let (true, Mode::Record(record)) = (needed, &self.mode) {
            let mut record = record.borrow_mut();
            let parents = parents.iter().map(|p| p.source).collect::<Vec<_>>();
            for parent in &parents {
                if let Source::Leaf(id) = parent {
                    *record.uses.entry(*id).or_default() += 1;
                }
            }
            record.nodes.push(Node { parents, outputs: vars.len(), walk: Box::new(walk) });
        }
        vars
    }

    /// [`record`](Self::record) for one output.
    pub fn record_one(
        &self,
        parents: &[&Var],
        output: Tensor,
        walk: impl FnOnce(&mut Backward<'_>) + 'static,
    ) -> Var {
        self.record(parents, vec![output], walk).pop().expect("one output in, one out")
    }

    /// Whether an operation on `parents` will be asked for gradients: if not, it need save nothing.
    pub fn wants(&self, parents: &[&Var]) -> bool {
        self.keeps_nodes() && parents.iter().any(|p| p.needs_grad())
    }

    /// Walks back from scalar `loss` with gradient `seed`, consuming the tape.
    pub fn backward(self, loss: Var, seed: f64, sink: &mut dyn Sink) {
        let dtype = loss.value.dtype();
        let gradient =
            Tensor::from_f64(loss.value.shape(), &vec![seed; loss.value.numel()], dtype, Account::Activation);
        self.backward_from(vec![(loss, gradient)], sink);
    }

    /// Walks back from several values with their gradients, consuming the tape.
    pub fn backward_from(self, seeds: Vec<(Var, Tensor)>, sink: &mut dyn Sink) {
        let Mode::Record(record) = self.mode else { return };
        let Record { mut nodes, uses } = record.into_inner();
        let grads = nodes.iter().map(|n| vec![None; n.outputs]).collect();
        let mut state = Walked { grads, leaves: BTreeMap::new(), uses, sink };
        for (var, gradient) in seeds {
            state.push(var.source, gradient);
        }
        while let Some(node) = nodes.pop() {
            let outputs = state.grads.pop().expect("one entry a node");
            let mut done = Vec::new();
            if outputs.iter().any(Option::is_some) {
                let mut backward =
                    Backward { parents: &node.parents, outputs, state: &mut state, done: Vec::new() };
                (node.walk)(&mut backward);
                done = backward.done;
            }
            for (_, parent) in node.parents.iter().enumerate().filter(|(i, _)| !done.contains(i)) {
                state.used(*parent);
            }
        }
    }
}

struct Walked<'a> {
    grads: Vec<Vec<Option<Tensor>>>,
    leaves: BTreeMap<ParamId, Tensor>,
    uses: BTreeMap<ParamId, usize>,
    sink: &'a mut dyn Sink,
}

impl Slots for Walked<'_> {
    fn slot(&mut self, source: Source) -> Option<Tensor> {
        match source {
            Source::Node { node, output } => self.grads[node][output].take(),
            Source::Leaf(id) => self.leaves.remove(&id).or_else(|| self.sink.partial(id)),
            Source::Constant | Source::Traced => None,
        }
    }

    fn put(&mut self, source: Source, gradient: Tensor) {
        match source {
            Source::Node { node, output } => self.grads[node][output] = Some(gradient),
            Source::Leaf(id) => drop(self.leaves.insert(id, gradient)),
            Source::Constant | Source::Traced => {}
        }
    }

    fn used(&mut self, source: Source) {
        let Source::Leaf(id) = source else { return };
        let uses = self.uses.get_mut(&id).expect("counted in forward");
        *uses -= 1;
        if *uses == 0
            && let Some(gradient) = self.leaves.remove(&id)
        {
            self.sink.leaf(id, gradient);
        }
    }

    fn push(&mut self, source: Source, gradient: Tensor) {
        let sum = match self.slot(source) {
            None => gradient,
            Some(mut sum) if sum.is_unique() => {
                add_assign(&mut sum, &gradient);
                sum
            }
            Some(sum) if gradient.is_unique() && gradient.dtype() == sum.dtype() => {
                let mut gradient = gradient;
                add_assign(&mut gradient, &sum);
                gradient
            }
            Some(sum) => {
                let mut own = sum.copy(sum.account());
                add_assign(&mut own, &gradient);
                own
            }
        };
        self.put(source, sum);
    }
}

/// What an operation's backward sees: gradients of its outputs, and where to push those of its parents.
pub struct Backward<'a> {
    parents: &'a [Source],
    outputs: Vec<Option<Tensor>>,
    state: &'a mut dyn Slots,
    /// Parents that need no more of this node.
    done: Vec<usize>,
}

/// The walk's gradients, as an operation reaches them.
trait Slots {
    fn slot(&mut self, source: Source) -> Option<Tensor>;
    fn put(&mut self, source: Source, gradient: Tensor);
    fn push(&mut self, source: Source, gradient: Tensor);
    /// One use of a leaf is done; at zero its gradient is complete.
    fn used(&mut self, source: Source);
}

impl Backward<'_> {
    /// Takes the gradient of output `i`: absent if nothing depended on it.
    pub fn output(&mut self, i: usize) -> Option<Tensor> {
        self.outputs[i].take()
    }

    /// Whether parent `i` needs a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.parents[i] != Source::Constant
    }

    /// Whether there is a parent `i`.
    pub fn has(&self, i: usize) -> bool {
        i < self.parents.len()
    }

    /// Adds `gradient` to parent `i`'s.
    pub fn push(&mut self, i: usize, gradient: Tensor) {
        self.state.push(self.parents[i], gradient);
    }

    /// [`push`](Self::push) for the last time, before the node is done: a parent that nothing else waits for is complete.
    pub fn push_last(&mut self, i: usize, gradient: Tensor) {
        self.push(i, gradient);
        self.done.push(i);
        self.state.used(self.parents[i]);
    }

    /// Adds to parent `i`'s gradient in place: `write(sum, accumulate)` adds to `sum` if `accumulate`, else writes it
    /// whole. The sum has this shape, type and, if it is new, account.
    pub fn accumulate(
        &mut self,
        i: usize,
        shape: &[usize],
        dtype: DType,
        account: Account,
        write: impl FnOnce(&mut Tensor, bool),
    ) {
        let source = self.parents[i];
        match self.state.slot(source) {
            Some(mut sum) if sum.is_unique() && sum.dtype() == dtype && sum.shape() == shape => {
                write(&mut sum, true);
                self.state.put(source, sum);
            }
            other => {
                if let Some(shared) = other {
                    self.state.put(source, shared);
                }
                let mut fresh = Tensor::scratch(shape, dtype, account);
                write(&mut fresh, false);
                self.state.push(source, fresh);
            }
        }
    }

    /// Takes what parent `i` has so far, to be given back by [`push`](Self::push).
    pub fn partial(&mut self, i: usize) -> Option<Tensor> {
        self.state.slot(self.parents[i])
    }
}

#[cfg(test)]
#[path = "tape_tests.rs"]
mod tests;
