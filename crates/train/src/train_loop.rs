//! The loop: visible, on one screen, for all methods.
use crate::event::{Event, Flow, Observer};
use crate::session::Session;
use std::time::Instant;

/// Puts a session on disk. `best` says whether its held-out loss is the best so far.
pub trait Save {
    /// What can go wrong.
    type Error;
    /// Writes a checkpoint and says where.
    fn save(&mut self, session: &Session, progress: &Outcome) -> Result<String, Self::Error>;
}

/// When to evaluate, save and stop.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Steps of the run.
    pub steps: u64,
    /// Steps between evaluations.
    pub eval_every: Option<u64>,
    /// Steps between checkpoints.
    pub save_every: Option<u64>,
    /// Evaluations without a better loss after which the run stops.
    pub patience: Option<usize>,
}

/// How a run ended, or stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Held-out loss last seen, and after which step.
    pub eval: Option<(u64, f64)>,
    /// Held-out loss of the best step, and which it is: the one of the lowest loss, or of the best metric of a task.
    pub best: Option<(u64, f64)>,
    /// What made it the best: minus the loss, or the metric, so that more is better.
    #[serde(default)]
    pub quality: Option<f64>,
    /// Evaluations since the best.
    pub since_best: usize,
    /// Why the run ended before its last step.
    pub stopped: Option<Stopped>,
}

/// Why a run ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// Someone asked.
    Asked,
    /// The held-out loss got no better for `patience` evaluations.
    Patience,
    /// The loss or the gradient is no longer finite.
    Diverged,
}

/// Runs `session` to the end of `plan`, from where `outcome` stands. A step that diverges is not saved.
pub fn train<S: Save>(
    session: &mut Session,
    plan: &Plan,
    mut outcome: Outcome,
    saver: &mut S,
    observers: &mut [&mut dyn Observer],
) -> Result<Outcome, S::Error> {
    let mut tell = |event: Event| {
        let verdicts = observers.iter_mut().map(|o| o.on(&event)).collect::<Vec<_>>();
        if verdicts.contains(&Flow::Stop) { Flow::Stop } else { Flow::Continue }
    };
    let due = |every: Option<u64>, t: u64| t == plan.steps || every.is_some_and(|n| t.is_multiple_of(n));
    tell(Event::Start {
        step: session.t,
        steps: plan.steps,
        trainable_parameters: session.trainable_parameters(),
        base_parameters: session.model.spec().parameters(),
    });
    while session.t < plan.steps && outcome.stopped.is_none() {
        // One step.
        let start = Instant::now();
        let s = session.step();
        let (step, seconds) = (session.t, start.elapsed().as_secs_f64());
        outcome.step = step;
        let flow = tell(Event::Step {
            step,
            steps: plan.steps,
            loss: s.loss,
            tokens: s.tokens,
            all_tokens: s.all_tokens,
            grad_norm: s.grad_norm,
            lr: s.lr,
            seconds,
        });
        if !(s.loss.is_finite() && s.grad_norm.is_finite()) {
            outcome.stopped = Some(Stopped::Diverged);
            break;
        }

        // Held-out rows.
        if due(plan.eval_every, step)
            && let Some(found) = session.evaluate()
        {
            let quality = found.quality(session.judging.metric.as_deref());
            let best = outcome.quality.is_none_or(|q| quality > q);
            outcome.eval = Some((step, found.loss));
            outcome.since_best = if best { 0 } else { outcome.since_best + 1 };
            if best {
                outcome.best = Some((step, found.loss));
                outcome.quality = Some(quality);
            }
            tell(Event::eval(step, &found, best));
            if plan.patience.is_some_and(|p| outcome.since_best >= p) {
                outcome.stopped = Some(Stopped::Patience);
            }
        }

        // Everything else is somebody's who watches.
        if flow == Flow::Stop && step < plan.steps {
            outcome.stopped = outcome.stopped.or(Some(Stopped::Asked));
        }
        let better = outcome.best.is_some_and(|(at, _)| at == step);
        if due(plan.save_every, step) || outcome.stopped.is_some() || better {
            let folder = saver.save(session, &outcome)?;
            tell(Event::Saved { step, folder });
        }
    }
    Ok(outcome)
}
