//! The large products of a step: their rate, and the FLOPs that a step cannot do without.

use super::stopwatch::best;
use luthier_kernels::matmul::{MatMut, MatRef, Options, gemm};
use luthier_models::ModelSpec;
use luthier_tensor::{Account, DType, Tensor, to_dtype};

/// How the operands of `C [m, n] = A B` lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `B` is stored transposed: forward, `y = x W^T`.
    Nt,
    /// As they are: `dx = dy W`.
    Nn,
    /// `A` is stored transposed: `dW = dy^T x`.
    Tn,
}

impl Layout {
    /// The layout's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nt => "nt",
            Self::Nn => "nn",
            Self::Tn => "tn",
        }
    }
}

/// One product of a step.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What it is for.
    pub name: String,
    /// How operands lie.
    pub layout: Layout,
    /// Rows of C, columns of C, length of the sums.
    pub mnk: [usize; 3],
    /// Times in a step.
    pub count: usize,
}

impl Shape {
    /// Operations of one product.
    pub fn flops(&self) -> f64 {
        2.0 * self.mnk.iter().map(|&x| x as f64).product::<f64>()
    }
}

/// Rows of logits at a time, as the head's loss takes them.
const HEAD_ROWS: usize = 256;

/// Linear layers of a block: name, d_in, d_out, how many alike.
fn linears(spec: &ModelSpec) -> [(&'static str, usize, usize, usize); 5] {
    let (d, q, kv, ff) = (spec.d_model, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, spec.d_ff);
    [("q", d, q, 1), ("k, v", d, kv, 2), ("o", q, d, 1), ("gate, up", d, ff, 2), ("down", ff, d, 1)]
}

/// Products over whole weights in a step of `n` tokens, all labelled; `dW` if the base trains.
pub fn products(spec: &ModelSpec, n: usize, base_trains: bool) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let head_rows = HEAD_ROWS.min(n);
    let each = linears(spec).map(|(name, d_in, d_out, alike)| (name, d_in, d_out, alike * spec.layers, n));
    let head = ("head", spec.d_model, spec.vocab, n.div_ceil(head_rows), head_rows);
    for (name, d_in, d_out, count, n) in each.into_iter().chain([head]) {
        let mut push = |what: &str, layout, mnk| {
            shapes.push(Shape { name: format!("{name} {what}"), layout, mnk, count });
        };
        push("forward", Layout::Nt, [n, d_out, d_in]);
        push("input grad", Layout::Nn, [n, d_in, d_out]);
        if base_trains {
            push("weight grad", Layout::Tn, [d_out, d_in, n]);
        }
    }
    shapes
}

/// Products of low-rank updates of rank `r`.
pub fn low_rank(spec: &ModelSpec, n: usize, r: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (name, d_in, d_out, alike) in linears(spec) {
        for (what, layout, mnk) in [
            ("x A^T", Layout::Nt, [n, r, d_in]),
            ("u B^T", Layout::Nt, [n, d_out, r]),
            ("dy B", Layout::Nn, [n, r, d_out]),
            ("du A", Layout::Nn, [n, d_in, r]),
            ("dA", Layout::Tn, [r, d_in, n]),
            ("dB", Layout::Tn, [d_out, r, n]),
        ] {
            shapes.push(Shape { name: format!("{name} {what}"), layout, mnk, count: alike * spec.layers });
        }
    }
    shapes
}

/// Numbers in [-1, 1) for operands: real enough that no product is subnormal.
pub fn noise(shape: &[usize], dtype: DType, account: Account) -> Tensor {
    let mut state = shape.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |s, &n| s.rotate_left(7) ^ n as u64);
    let mut values = Tensor::scratch(shape, DType::F32, account);
    for x in values.slice_mut::<f32>() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *x = (state >> 40) as f32 / 8_388_608.0 - 1.0;
    }
    if dtype == DType::F32 { values } else { to_dtype(&values, dtype, account) }
}

/// Seconds of one product, operands and result in `dtype`.
pub fn seconds(shape: &Shape, dtype: DType) -> f64 {
    let [m, n, k] = shape.mnk;
    let (a, b) = match shape.layout {
        Layout::Nt => ([m, k], [n, k]),
        Layout::Nn => ([m, k], [k, n]),
        Layout::Tn => ([k, m], [k, n]),
    };
    let (a, b) = (noise(&a, dtype, Account::Workspace), noise(&b, dtype, Account::Workspace));
    let mut c = Tensor::scratch(&[m, n], dtype, Account::Workspace);
    best(|| {
        let (a, b) = (MatRef::of(&a), MatRef::of(&b));
        let (a, b) = match shape.layout {
            Layout::Nt => (a, b.t()),
            Layout::Nn => (a, b),
            Layout::Tn => (a.t(), b),
        };
        gemm(MatMut::of(&mut c), a, b, Options::default());
    })
}

/// GFLOP/s over all `shapes`, each as often as a step has it.
pub fn rate(shapes: &[Shape], mut seconds: impl FnMut(&Shape) -> f64) -> f64 {
    let (mut flops, mut time) = (0.0, 0.0);
    for shape in shapes {
        flops += shape.flops() * shape.count as f64;
        time += seconds(shape) * shape.count as f64;
    }
    if time > 0.0 { flops / time / 1e9 } else { 0.0 }
}

/// Operations that a step on segments of these lengths cannot do without: forward `2N + A`, of which backward repeats
/// `2N` for inputs' gradients, `2N` more for the weights' if the base trains, and 2.5 of attention's `A = 2 L d T`; an
/// adapter's `P` parameters cost `6P`. The head counts on labelled rows only. Recomputing adds nothing: it is a choice.
pub fn necessary(
    spec: &ModelSpec,
    lengths: &[usize],
    labelled: usize,
    adapter: usize,
    base_trains: bool,
) -> f64 {
    let n = lengths.iter().sum::<usize>() as f64;
    let block = linears(spec).iter().map(|(_, d_in, d_out, alike)| d_in * d_out * alike).sum::<usize>();
    let (blocks, head) = ((block * spec.layers) as f64, (spec.vocab * spec.d_model) as f64);
    let passes = if base_trains { 6.0 } else { 4.0 };
    let square = lengths.iter().map(|&t| (t * t) as f64).sum::<f64>();
    let attention = 2.0 * spec.layers as f64 * (spec.heads * spec.head_dim) as f64 * square;
    passes * (blocks * n + head * labelled as f64) + 3.5 * attention + 6.0 * adapter as f64 * n
}

#[cfg(test)]
mod tests {
    use super::super::shape::spec;
    use super::*;

    #[test]
    fn a_dense_step_needs_what_the_formula_says() {
        let spec = spec("smollm2-135m").expect("a known shape");
        let (n, t) = (134_479_872.0, 256.0); // matrices, the tied head once
        let a = 2.0 * 30.0 * 576.0 * t;
        let tokens = 4.0 * t;
        let expected = tokens * (4.0 * n + 3.5 * a + 6.0 * 2_442_240.0);
        let got = necessary(&spec, &[256; 4], 1024, 2_442_240, false);
        assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
        let full = necessary(&spec, &[256; 4], 1024, 0, true);
        assert!((full / (tokens * (6.0 * n + 3.5 * a)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn products_of_a_step_are_its_passes_over_the_weights() {
        let spec = spec("smollm2-135m").expect("a known shape");
        for (trains, passes) in [(false, 4.0), (true, 6.0)] {
            let all = products(&spec, 1024, trains);
            let flops = all.iter().map(|s| s.flops() * s.count as f64).sum::<f64>();
            assert!((flops / (passes * 134_479_872.0 * 1024.0) - 1.0).abs() < 1e-12, "{flops}");
        }
    }

    #[test]
    fn a_rate_is_flops_over_time() {
        let shape = Shape { name: "x".into(), layout: Layout::Nn, mnk: [10, 10, 10], count: 3 };
        assert!((rate(&[shape], |_| 1e-6) - 2.0).abs() < 1e-9);
        assert_eq!(rate(&[], |_| 1.0), 0.0);
    }
}
