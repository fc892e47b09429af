//! Decoding: new tokens of several sequences against their caches.
use super::block::{Wires, norm};
use super::{Applied, Run};
use crate::cache::Cache;
use crate::model::Model;
use luthier_contract::{Context, Mode, Segments};
use luthier_kernels::attention::attend;
use luthier_tensor::{Tape, Tensor, Var};
use std::sync::Arc;

impl Model {
    /// Feeds new tokens of several sequences (each with its cache) and gives the hidden state of each sequence's last
    /// token, `[sequences, d_model]`.
    pub fn decode(&self, sequences: &mut [(&mut Cache, &[u32])], adapters: &[Applied]) -> Tensor {
        let tape = Tape::off();
        assert!(self.spec.wiring.causal, "an encoder does not decode");
        let wires = Wires::new(self);
        let tokens = sequences.iter().flat_map(|(_, t)| t.iter().copied()).collect::<Arc<[u32]>>();
        let positions =
            sequences.iter().flat_map(|(c, t)| c.len() as u32..(c.len() + t.len()) as u32).collect();
        let mut offsets = vec![0];
        for (_, t) in sequences.iter() {
            offsets.push(offsets[offsets.len() - 1] + t.len() as u32);
        }
        let segments = Segments::new(offsets);
        let context =
            Context { tokens, positions, segments: segments.clone(), token_types: None, mode: Mode::Eval };
        let run = Run { context: Arc::new(context), adapters: adapters.to_vec(), recompute: false };
        let mut x = self.embed(&tape, &run.context);
        for (i, layer) in self.layers.iter().enumerate() {
            let [q, k, v] = wires.qkv(&tape, layer, &run, &x).map(Var::into_value);
            let spec = wires.attention(layer.window);
            let mut attended = Tensor::scratch(q.shape(), q.dtype(), q.account());
            for (s, (cache, new)) in sequences.iter_mut().enumerate() {
                let rows = segments.range(s);
                let (keys, values) = cache.append(i, &k.narrow(rows.clone()), &v.narrow(rows.clone()));
                let (new, held) = (Segments::one(new.len()), Segments::one(keys.dim(0)));
                let out = attend(&q.narrow(rows.clone()), &new, &keys, &values, &held, &spec);
                let width = q.cols() * q.dtype().size();
                attended.bytes_mut()[rows.start * width..rows.end * width].copy_from_slice(out.bytes());
            }
            x = wires.rest(&tape, layer, &run, x, &Var::constant(attended));
        }
        for (cache, new) in sequences.iter_mut() {
            cache.advance(new.len());
        }
        let last = (0..segments.count()).map(|s| segments.range(s).end - 1).collect::<Vec<_>>();
        let x = gather_rows(x.value(), &last);
        match &self.norm {
            Some(slots) => norm(&tape, &Var::constant(x), slots, self.spec.eps).into_value(),
            None => x,
        }
    }
}

fn gather_rows(x: &Tensor, rows: &[usize]) -> Tensor {
    let mut out = Tensor::scratch(&[rows.len(), x.cols()], x.dtype(), x.account());
    let width = x.cols() * x.dtype().size();
    for (to, &from) in rows.iter().enumerate() {
        out.bytes_mut()[to * width..(to + 1) * width]
            .copy_from_slice(&x.bytes()[from * width..(from + 1) * width]);
    }
    out
}
