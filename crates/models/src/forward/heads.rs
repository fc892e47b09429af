//! Heads: losses over a vocabulary, and scores of segments and tokens.
use super::Run;
use super::block::norm;
use crate::head::Takes;
use crate::model::Model;
use luthier_kernels::activation::activate;
use luthier_kernels::dropout::dropout_rows;
use luthier_kernels::head_loss::{HeadLoss, head_loss};
use luthier_kernels::linear::Delta;
use luthier_kernels::rows::gather;
use luthier_tensor::{Tape, Tensor, Var};
use std::sync::Arc;

impl Model {
    /// Summed loss on the labelled `rows`: of their next tokens `targets`, or of the tokens masked there.
    pub fn loss(&self, tape: &Tape, run: &Run, rows: &[u32], targets: &[u32]) -> HeadLoss {
        let hidden = self.hidden(tape, run);
        let mut deltas = run.deltas(tape, &self.head.out);
        let bias = self.head.out.bias.as_ref().map(|b| b.on(tape));
        deltas.extend(bias.map(|bias| Delta { bias: Some(bias), ..Delta::default() }));
        let weight = self.head.out.weight.on(tape);
        if self.head.dense.is_none() && self.head.norm.is_none() {
            return head_loss(tape, &hidden, &weight, &deltas, rows, targets, None);
        }
        // Few tokens are masked: the dense layer runs on theirs only.
        let labelled: Arc<[u32]> = rows.into();
        let h = self.transformed(tape, run, gather(tape, &hidden, &labelled), &labelled);
        let all = (0..rows.len() as u32).collect::<Vec<_>>();
        head_loss(tape, &h, &weight, &deltas, &all, targets, None)
    }

    /// Logits `[rows, vocab]` of hidden states, in the type of sums where the head has a dense layer.
    pub fn logits(&self, hidden: &Tensor, run: &Run) -> Tensor {
        let tape = Tape::off();
        let mut h = Var::constant(hidden.clone());
        if self.head.dense.is_some() || self.head.norm.is_some() {
            let all: Arc<[u32]> = (0..hidden.rows() as u32).collect();
            h = self.transformed(&tape, run, gather(&tape, &h, &all), &all);
        }
        run.linear(&tape, &self.head.out, &h).into_value()
    }

    /// Scores `[segments, labels]` of whole segments, in f32 (f64 on the reference path): of each one's first token, or
    /// its last on a decoder. Every segment has a token.
    pub fn class_logits(&self, tape: &Tape, run: &Run) -> Var {
        let segments = &run.context.segments;
        let row = |i: usize| match self.spec.head.takes {
            Takes::First => segments.range(i).start as u32,
            Takes::Last => segments.range(i).end as u32 - 1,
        };
        let rows = (0..segments.count()).map(row).collect::<Vec<_>>();
        self.token_logits(tape, run, &rows)
    }

    /// Scores `[rows, labels]` of the tokens at `rows`, in f32 (f64 on the reference path).
    pub fn token_logits(&self, tape: &Tape, run: &Run, rows: &[u32]) -> Var {
        let hidden = self.hidden(tape, run);
        let rows: Arc<[u32]> = rows.into();
        let h = self.transformed(tape, run, gather(tape, &hidden, &rows), &rows);
        run.linear(tape, &self.head.out, &h)
    }

    /// What the head's last linear reads, from the hidden states of the batch's `rows`.
    fn transformed(&self, tape: &Tape, run: &Run, h: Var, rows: &Arc<[u32]>) -> Var {
        let drop = |h: Var, i: usize| match run
            .context
            .dropout(self.spec.head.dropout[i], ["head.in", "head.out"][i])
        {
            Some(spec) => dropout_rows(tape, &h, &spec, rows),
            None => h,
        };
        let mut h = drop(h, 0);
        if let (Some(dense), Some(spec)) = (&self.head.dense, &self.spec.head.dense) {
            let bias = dense.bias.as_ref().map(|b| b.on(tape));
            let up = run.linear_before_bias(tape, dense, &h);
            h = activate(tape, &up, bias.as_ref(), spec.activation);
        }
        if let Some(slots) = &self.head.norm {
            h = norm(tape, &h, slots, self.spec.eps);
        }
        drop(h, 1)
    }
}
