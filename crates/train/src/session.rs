//! A run in progress: the model, what trains, and where the run stands.
use crate::estimators::{Estimator, Stepped};
use luthier_contract::{Adapter, Mode};
use luthier_data::{Batch, LabelSet, MicroLimit, Sample, Sampler, micro_batches};
use luthier_eval::{Assessed, Judged, Score, assess_batch, more_is_better, run_of, scores};
use luthier_models::{Applied, Model, Run};
use luthier_objectives::Objective;
use luthier_optim::{Chain, Leaf, Schedule, Step};
use luthier_tensor::{DType, ParamId, Sink, Tape, Tensor};
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
    /// How the direction of a step is found, and when it is applied.
    pub estimator: Arc<dyn Estimator>,
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
    /// What held-out rows are judged by, besides their loss.
    pub judging: Judging,
}

/// What held-out rows are judged by, besides their loss: nothing for language models.
#[derive(Clone, Debug, Default)]
pub struct Judging {
    /// Names of the labels in the order of the head's outputs.
    pub labels: LabelSet,
    /// The metric that makes a step the best; the task's first if none.
    pub metric: Option<String>,
}

/// Sums over some rows.
#[derive(Debug)]
pub struct Summed {
    /// Of the losses.
    pub loss: f64,
    /// Tokens, labels or numbers that count.
    pub tokens: usize,
    /// What divides the loss and the gradients: `tokens`, or the sum of their class weights.
    pub weight: f64,
    /// All tokens.
    pub all_tokens: usize,
    /// Of the gradients.
    pub gradients: Gradients,
}

/// What held-out rows came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Mean loss of what counts.
    pub loss: f64,
    /// How many count.
    pub tokens: usize,
    /// Metrics of the task; none of language models.
    pub scores: Vec<Score>,
}

impl Evaluated {
    /// The metric of that name (the first if none) and its value; none where nothing but the loss is measured.
    pub fn metric(&self, name: Option<&str>) -> Option<Score> {
        match name {
            None => self.scores.first().copied(),
            Some("loss") => None,
            Some(name) => self.scores.iter().find(|(n, _)| *n == name).copied(),
        }
    }

    /// What makes it better than another: more is better.
    pub fn quality(&self, name: Option<&str>) -> f64 {
        match self.metric(name) {
            Some((name, value)) if value.is_finite() => {
                if more_is_better(name) {
                    value
                } else {
                    -value
                }
            }
            // A metric that is not defined here is worse than any that is.
            Some(_) => f64::NEG_INFINITY,
            None => -self.loss,
        }
    }
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

impl Gradients {
    /// The sum of one tensor's, if anything reached it.
    pub fn take(&mut self, id: ParamId) -> Option<Tensor> {
        self.0.remove(&id)
    }
}

impl Sink for Gradients {
    fn partial(&mut self, id: ParamId) -> Option<Tensor> {
        self.0.remove(&id)
    }

    fn leaf(&mut self, id: ParamId, gradient: Tensor) {
        self.0.insert(id, gradient);
    }
}

impl Session {
    /// Elements that train.
    pub fn trainable_parameters(&self) -> usize {
        self.leaves.iter().map(|l| l.param.value().numel()).sum()
    }

    pub(crate) fn run(&self, batch: &Batch, mode: Mode) -> Run {
        run_of(&self.model, &self.applied(), batch, mode, self.limits.recompute && mode != Mode::Eval)
    }

    fn applied(&self) -> Vec<Applied> {
        self.adapter.iter().map(|a| Applied::to_all(a.clone())).collect()
    }

    /// Sums of losses and gradients over the samples `rows`.
    pub fn gradients(&self, rows: &[usize]) -> Summed {
        let gradients = Gradients::default();
        let mut sums = Summed { loss: 0.0, tokens: 0, weight: 0.0, all_tokens: 0, gradients };
        for micro in micro_batches(rows, &self.samples, self.limits.micro) {
            let batch = Batch::new(micro.iter().map(|&i| &self.samples[i]));
            let first_row = sums.all_tokens as u64;
            let mode = Mode::Train { seed: self.seed, step: self.t, pass: 0, first_row };
            let tape = Tape::new();
            let part = self.objective.loss(&self.model, &tape, &self.run(&batch, mode), &batch);
            sums.loss += part.sum.value().item();
            sums.tokens += part.tokens;
            sums.weight += part.weight;
            sums.all_tokens += batch.tokens.len();
            tape.backward(part.sum, 1.0, &mut sums.gradients);
        }
        sums
    }

    /// One optimizer step on the next rows.
    pub fn step(&mut self) -> Stepped {
        let rows = self.sampler.next_step();
        self.step_on(&rows)
    }

    /// One optimizer step on the samples `rows`; the sampler stays where it is.
    pub fn step_on(&mut self, rows: &[usize]) -> Stepped {
        let estimator = self.estimator.clone();
        let stepped = estimator.step(self, rows);
        self.t += 1;
        stepped
    }

    /// Where the step that comes next stands.
    pub(crate) fn this_step(&self) -> Step {
        Step { t: self.t, lr: self.schedule.rate(self.t as usize), seed: self.seed }
    }

    /// Losses and scores of `samples`, in their order, without gradients.
    pub fn assess(&self, samples: &[Sample]) -> Vec<Assessed> {
        let all = (0..samples.len()).collect::<Vec<_>>();
        let mut out = Vec::with_capacity(samples.len());
        for micro in micro_batches(&all, samples, self.limits.micro) {
            let batch = Batch::new(micro.iter().map(|&i| &samples[i]));
            out.extend(assess_batch(&self.model, &self.applied(), self.objective.as_ref(), &batch));
        }
        out
    }

    /// Loss of everything that counts in `samples`, sample by sample.
    pub fn losses(&self, samples: &[Sample]) -> Vec<Vec<f64>> {
        self.assess(samples).into_iter().map(|a| a.losses).collect()
    }

    /// The answers of a task's head; none of language models.
    pub fn judge(&self, samples: &[Sample], assessed: &[Assessed]) -> Vec<Judged> {
        let pairs = samples.iter().zip(assessed);
        pairs.filter_map(|(s, a)| Judged::of(&s.label, &a.scores, &self.judging.labels)).collect()
    }

    /// What the held-out rows come to; none if there are none.
    pub fn evaluate(&self) -> Option<Evaluated> {
        let assessed = self.assess(&self.held_out);
        let judged = self.judge(&self.held_out, &assessed);
        evaluated(&assessed, &judged, self.judging.labels.len())
    }

    /// Type of activations.
    pub fn compute(&self) -> DType {
        self.model.compute()
    }
}

/// Mean loss and metrics of some rows; none if nothing counts in them.
pub(crate) fn evaluated(assessed: &[Assessed], judged: &[Judged], labels: usize) -> Option<Evaluated> {
    let losses = || assessed.iter().flat_map(|a| &a.losses);
    let tokens = losses().count();
    let loss = losses().sum::<f64>() / tokens as f64;
    (tokens > 0).then(|| Evaluated { loss, tokens, scores: scores(judged.iter(), labels) })
}
