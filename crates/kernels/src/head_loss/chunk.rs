//! One chunk of labelled rows: logits, losses, and what they send back.
use super::{cpu, reference};
use crate::dropout::Dropout;
use crate::linear::{Delta, LowRank, Weight};
use crate::matmul::{Compute, MatMut, MatRef, Options, gemm};
use luthier_tensor::{Account, DType, Tensor, Var, to_dtype};

/// The head and what it reads.
pub(super) struct Head<'a> {
    /// `[n, d]`
    pub(super) hidden: &'a Tensor,
    pub(super) weight: &'a Weight,
    pub(super) deltas: &'a [Delta],
}

/// What all chunks send back, for a seed of one.
pub(super) struct Gradients {
    /// `[labelled rows, d]` in the activations' type, if wanted.
    pub(super) hidden: Option<Tensor>,
    /// Of the trained tensors, in the order of the node's parents: W, then each delta's A, B, bias.
    pub(super) trained: Vec<Sum>,
}

/// A parameter's gradient over the chunks so far.
pub(super) struct Sum {
    wanted: bool,
    shape: Vec<usize>,
    dtype: DType,
    /// Absent before the first chunk.
    pub(super) so_far: Option<Tensor>,
}

impl Gradients {
    pub(super) fn new(hidden: &Var, rows: usize, trained: &[&Var]) -> Self {
        let (d, dtype) = (hidden.value().cols(), hidden.value().dtype());
        let sum = |v: &&Var| Sum {
            wanted: v.needs_grad(),
            shape: v.value().shape().to_vec(),
            dtype: v.value().dtype().accumulator(),
            so_far: None,
        };
        Self {
            hidden: hidden.needs_grad().then(|| Tensor::scratch(&[rows, d], dtype, Account::Activation)),
            trained: trained.iter().map(sum).collect(),
        }
    }
}

impl Sum {
    /// `sum += left^T right`; a product that replaces an absent sum.
    fn add(&mut self, left: MatRef<'_>, right: MatRef<'_>, compute: Compute) {
        if !self.wanted {
            return;
        }
        let accumulate = self.so_far.is_some();
        let sum =
            self.so_far.get_or_insert_with(|| Tensor::scratch(&self.shape, self.dtype, Account::Gradient));
        gemm(MatMut::of(sum), left.t(), right, Options { accumulate, compute, ..Options::default() });
    }
}

/// What one low-rank update keeps within a chunk.
struct Middle {
    /// `dropout(h)`, if it drops.
    dropped: Option<Tensor>,
    /// `scale dropout(h) A^T [c, r]`
    u: Tensor,
}

impl Head<'_> {
    /// Losses of one chunk; writes its rows of `dh` from row `first` on and adds to the other gradients.
    pub(super) fn chunk(
        &self,
        first: usize,
        rows: &[u32],
        targets: &[u32],
        weights: Option<&[f32]>,
        gradients: Option<&mut Gradients>,
    ) -> Vec<f64> {
        let h = gather(self.hidden, rows);
        let (mut logits, middles) = self.logits(&h, rows);
        let Some(gradients) = gradients else { return losses(&mut logits, targets) };
        let (losses, dz) = losses_and_gradient(logits, targets, weights, h.dtype());

        let mut dh =
            gradients.hidden.as_ref().map(|dh| self.input_grad(&dz, h.dtype().accumulator(), dh.cols()));
        let mut trained = gradients.trained.iter_mut();
        if matches!(self.weight, Weight::Trained(_)) {
            let dw = trained.next().expect("one entry a parent");
            dw.add(MatRef::of(&dz), MatRef::of(&h), Compute::Auto);
        }
        let ones = vec![1f32; rows.len()];
        for (delta, middle) in self.deltas.iter().zip(middles) {
            if let (Some(low_rank), Some(middle)) = (&delta.low_rank, middle) {
                let da = trained.next().expect("one entry a parent");
                let db = trained.next().expect("one entry a parent");
                db.add(MatRef::of(&dz), MatRef::of(&middle.u), Compute::Auto);
                let du = middle_grad(&dz, low_rank);
                // An f32 left factor of a bf16 right one is rounded as an activation's gradient is.
                let compute = if h.dtype() == DType::Bf16 { Compute::Bf16 } else { Compute::Auto };
                da.add(MatRef::of(&du), MatRef::of(middle.dropped.as_ref().unwrap_or(&h)), compute);
                if let Some(dh) = &mut dh {
                    add_input_grad(dh, &du, low_rank, rows);
                }
            }
            if delta.bias.is_some() {
                let bias = trained.next().expect("one entry a parent");
                bias.add(MatRef::new(&ones[..], rows.len(), 1), MatRef::of(&dz), Compute::Auto);
            }
        }
        if let (Some(all), Some(dh)) = (&mut gradients.hidden, dh) {
            let dh = to_dtype(&dh, all.dtype(), Account::Workspace);
            let at = first * all.cols() * all.dtype().size();
            all.bytes_mut()[at..at + dh.size()].copy_from_slice(dh.bytes());
        }
        losses
    }

    /// `z [c, vocab]`, and what the low-rank updates keep.
    fn logits(&self, h: &Tensor, rows: &[u32]) -> (Tensor, Vec<Option<Middle>>) {
        let sums = h.dtype().accumulator();
        let mut z = Tensor::scratch(&[h.rows(), self.weight.d_out()], sums, Account::Workspace);
        match self.weight {
            Weight::Frozen(base) => base.forward_into(h, &mut z, false),
            Weight::Trained(w) => {
                gemm(MatMut::of(&mut z), MatRef::of(h), MatRef::of(w.value()).t(), Options::default());
            }
        }
        let add = Options { accumulate: true, ..Options::default() };
        let ones = vec![1f32; rows.len()];
        let mut middles = Vec::with_capacity(self.deltas.len());
        for delta in self.deltas {
            middles.push(delta.low_rank.as_ref().map(|low_rank| {
                let dropped = low_rank.dropout.as_ref().map(|dropout| drop_rows(h, rows, dropout));
                let a = low_rank.a.value();
                let mut u = Tensor::scratch(&[rows.len(), a.dim(0)], sums, Account::Workspace);
                let scaled = Options { alpha: low_rank.scale, ..Options::default() };
                let input = MatRef::of(dropped.as_ref().unwrap_or(h));
                gemm(MatMut::of(&mut u), input, MatRef::of(a).t(), scaled);
                gemm(MatMut::of(&mut z), MatRef::of(&u), MatRef::of(low_rank.b.value()).t(), add);
                Middle { dropped, u }
            }));
            if let Some(bias) = &delta.bias {
                assert_eq!(bias.value().numel(), z.cols(), "length of a head's bias");
                let row = bias.value().reshape(&[1, z.cols()]);
                gemm(MatMut::of(&mut z), MatRef::new(&ones[..], rows.len(), 1), MatRef::of(&row), add);
            }
        }
        (z, middles)
    }

    /// `dz W [c, d]`
    fn input_grad(&self, dz: &Tensor, dtype: DType, d: usize) -> Tensor {
        let mut dh = Tensor::scratch(&[dz.rows(), d], dtype, Account::Workspace);
        match self.weight {
            Weight::Frozen(base) => base.input_grad_into(dz, &mut dh, false),
            Weight::Trained(w) => {
                gemm(MatMut::of(&mut dh), MatRef::of(dz), MatRef::of(w.value()), Options::default());
            }
        }
        dh
    }
}

/// `du = scale dz B [c, r]`
fn middle_grad(dz: &Tensor, low_rank: &LowRank) -> Tensor {
    let b = low_rank.b.value();
    let mut du = Tensor::scratch(&[dz.rows(), b.dim(1)], dz.dtype().accumulator(), Account::Workspace);
    let scaled = Options { alpha: low_rank.scale, ..Options::default() };
    gemm(MatMut::of(&mut du), MatRef::of(dz), MatRef::of(b), scaled);
    du
}

/// `dh += mask(du A)`
fn add_input_grad(dh: &mut Tensor, du: &Tensor, low_rank: &LowRank, rows: &[u32]) {
    let a = MatRef::of(low_rank.a.value());
    let Some(dropout) = &low_rank.dropout else {
        gemm(MatMut::of(dh), MatRef::of(du), a, Options { accumulate: true, ..Options::default() });
        return;
    };
    let mut through = Tensor::scratch(dh.shape(), dh.dtype(), Account::Workspace);
    gemm(MatMut::of(&mut through), MatRef::of(du), a, Options::default());
    luthier_tensor::add_assign(dh, &drop_rows(&through, rows, dropout));
}

/// Each maximal run of consecutive rows: (place of its first, length).
fn runs(rows: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    let runs = rows.chunk_by(|a, b| a + 1 == *b);
    runs.scan(0, |at, run| {
        *at += run.len();
        Some((*at - run.len(), run.len()))
    })
}

/// `x[rows]`, shared if they are consecutive.
fn gather(x: &Tensor, rows: &[u32]) -> Tensor {
    let (n, d) = (x.rows(), x.cols());
    let x = x.reshape(&[n, d]);
    let first = rows.first().map_or(0, |r| *r as usize);
    if rows.last().is_none_or(|last| *last as usize + 1 == first + rows.len()) {
        return x.narrow(first..first + rows.len());
    }
    let mut h = Tensor::scratch(&[rows.len(), d], x.dtype(), Account::Workspace);
    let row_bytes = d * x.dtype().size();
    for (at, len) in runs(rows) {
        let from = rows[at] as usize * row_bytes;
        h.bytes_mut()[at * row_bytes..][..len * row_bytes]
            .copy_from_slice(&x.bytes()[from..][..len * row_bytes]);
    }
    h
}

/// Dropout of rows that stand at `rows` of the micro-batch.
fn drop_rows(x: &Tensor, rows: &[u32], dropout: &Dropout) -> Tensor {
    let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Workspace);
    let row_bytes = x.cols() * x.dtype().size();
    for (at, len) in runs(rows) {
        let here = Dropout { first_row: dropout.first_row + u64::from(rows[at]), ..*dropout };
        let run = here.apply(&x.narrow(at..at + len));
        y.bytes_mut()[at * row_bytes..][..len * row_bytes].copy_from_slice(run.bytes());
    }
    y
}

/// Losses alone; the logits are spent.
fn losses(logits: &mut Tensor, targets: &[u32]) -> Vec<f64> {
    match logits.dtype() {
        DType::F64 => reference::losses(logits, targets),
        _ => cpu::losses(logits, targets),
    }
}

/// Losses and `w (softmax(z) - onehot) [c, vocab]` in `dtype`.
fn losses_and_gradient(
    mut logits: Tensor,
    targets: &[u32],
    weights: Option<&[f32]>,
    dtype: DType,
) -> (Vec<f64>, Tensor) {
    match dtype {
        DType::F64 => (reference::losses_and_gradient(&mut logits, targets, weights), logits),
        DType::F32 => (cpu::losses_and_gradient(&mut logits, targets, weights), logits),
        _ => {
            let mut dz = Tensor::scratch(logits.shape(), dtype, Account::Workspace);
            (cpu::losses_and_rounded_gradient(&mut logits, targets, weights, &mut dz), dz)
        }
    }
}
