//! A run in progress: the model, what trains, and where the run stands.
use luthier_contract::{Adapter, Context, Mode, Segments};
use luthier_data::{Batch, MicroLimit, Sample, Sampler, micro_batches};
use luthier_models::{Applied, Model, Run};
use luthier_objectives::Objective;
use luthier_optim::{Chain, Leaf, Schedule, Step};
use luthier_tensor::{Account, DType, ParamId, Sink, Tape, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run in progress. Everything that a checkpoint must restore is `t`, `leaves`, the sampler's cursor and the
/// adapter's frozen tensors.
#[derive(Debug)]
pub struct Session {
    /// The model.
    pub model: Model,
    /// The adapter, for methods that add something.
    pub adapter: Option<Arc<Adapter>>,
    /// What is optimised.
    pub objective: Box<dyn Objective>,
    /// The optimizer.
    pub chain: Chain,
    /// The learning rate.
    pub schedule: Schedule,
    /// Everything that trains, with its optimizer state.
    pub leaves: Vec<Leaf>,
    /// Rows to train on.
    pub samples: Vec<Sample>,
    /// Rows held out.
    pub held_out: Vec<Sample>,
    /// Which rows come next.
    pub sampler: Sampler,
    /// Steps done.
    pub t: u64,
    /// Seed of all draws.
    pub seed: u64,
    /// How large a forward run may be, and whether blocks are recomputed.
    pub limits: Limits,
}

/// What one forward run may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples and tokens of a micro-batch.
    pub micro: MicroLimit,
    /// Whether blocks keep only their inputs.
    pub recompute: bool,
}

/// Sums of gradients of a step, in f32 (f64 on the reference path).
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<ParamId, Tensor>);

impl Sink for Gradients {
    fn partial(&mut self, id: ParamId) -> Option<Tensor> {
        self.0.remove(&id)
    }

    fn leaf(&mut self, id: ParamId, gradient: Tensor) {
        self.0.insert(id, gradient);
    }
}

/// What one step saw.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// Mean loss of the tokens that count, before the step.
    pub loss: f64,
    /// Tokens that count.
    pub tokens: usize,
    /// All tokens.
    pub all_tokens: usize,
    /// Norm of the mean gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

impl Session {
    /// Elements that train.
    pub fn trainable_parameters(&self) -> usize {
        self.leaves.iter().map(|l| l.param.value().numel()).sum()
    }

    pub(crate) fn run(&self, batch: &Batch, mode: Mode) -> Run {
        let context = Context {
            tokens: batch.tokens.as_slice().into(),
            positions: batch.positions.as_slice().into(),
            segments: Segments::new(batch.segments.clone()),
            token_types: None,
            mode,
        };
        let adapters = self.adapter.iter().map(|a| Applied::to_all(a.clone())).collect();
        Run { context: Arc::new(context), adapters, recompute: self.limits.recompute && mode != Mode::Eval }
    }

    /// Loss sum, labelled tokens, all tokens and summed gradients of the samples `rows`.
    pub fn gradients(&self, rows: &[usize]) -> (f64, usize, usize, Gradients) {
        let mut gradients = Gradients::default();
        let (mut loss, mut tokens, mut all) = (0.0, 0, 0);
        for micro in micro_batches(rows, &self.samples, self.limits.micro) {
            let batch = Batch::new(micro.iter().map(|&i| &self.samples[i]));
            let mode = Mode::Train { seed: self.seed, step: self.t, pass: 0, first_row: all as u64 };
            let tape = Tape::new();
            let part = self.objective.loss(&self.model, &tape, &self.run(&batch, mode), &batch);
            loss += part.sum.value().item();
            tokens += part.tokens;
            all += batch.tokens.len();
            tape.backward(part.sum, 1.0, &mut gradients);
        }
        (loss, tokens, all, gradients)
    }

    /// One optimizer step on the next rows.
    pub(crate) fn step(&mut self) -> Stepped {
        let rows = self.sampler.next_step();
        self.step_on(&rows)
    }

    /// One optimizer step on the samples `rows`; the sampler stays where it is.
    pub fn step_on(&mut self, rows: &[usize]) -> Stepped {
        let (loss, tokens, all_tokens, mut sums) = self.gradients(rows);
        // A leaf that nothing reached in this step has gradient zero.
        let zero = |leaf: &Leaf| {
            let value = leaf.param.value();
            Tensor::zeros(value.shape(), value.dtype().accumulator(), Account::Gradient)
        };
        let mut gradients = self
            .leaves
            .iter()
            .map(|l| sums.0.remove(&l.param.id()).unwrap_or_else(|| zero(l)))
            .collect::<Vec<_>>();
        // One division, by the tokens of the whole step.
        let mean = 1.0 / tokens.max(1) as f64;
        let step = Step { t: self.t, lr: self.schedule.rate(self.t as usize), seed: self.seed };
        let grad_norm = self.chain.update(&mut self.leaves, &mut gradients, mean, &step);
        self.t += 1;
        Stepped { loss: loss * mean, tokens, all_tokens, grad_norm, lr: step.lr }
    }

    /// Loss of every labelled token of `samples`, sample by sample, without gradients.
    pub fn losses(&self, samples: &[Sample]) -> Vec<Vec<f64>> {
        let all = (0..samples.len()).collect::<Vec<_>>();
        let mut out = Vec::with_capacity(samples.len());
        for micro in micro_batches(&all, samples, self.limits.micro) {
            let batch = Batch::new(micro.iter().map(|&i| &samples[i]));
            let loss = self.objective.loss(&self.model, &Tape::off(), &self.run(&batch, Mode::Eval), &batch);
            let mut each = loss.each.into_iter();
            for &i in &micro {
                out.push(each.by_ref().take(samples[i].targets()).collect());
            }
        }
        out
    }

    /// Mean loss and number of the labelled tokens of the held-out rows; none if there are none.
    pub fn evaluate(&self) -> Option<(f64, usize)> {
        let losses = self.losses(&self.held_out);
        let tokens = losses.iter().map(Vec::len).sum::<usize>();
        (tokens > 0).then(|| (losses.iter().flatten().sum::<f64>() / tokens as f64, tokens))
    }

    /// Type of activations.
    pub fn compute(&self) -> DType {
        self.model.compute()
    }
}
