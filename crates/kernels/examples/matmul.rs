//! Rates of the matrix products on the shapes of a 135M-parameter model. Usage: `matmul [name-filter [threads [tier]]]`; prints JSON lines.

#![allow(clippy::print_stdout)]

use half::bf16;
use luthier_kernels::isa;
use luthier_kernels::matmul::{Compute, MatMut, MatRef, Options, PackedB, gemm, gemm_packed, gemm_serial};
use std::time::Instant;

fn time(mut body: impl FnMut()) -> f64 {
    body();
    let (mut best, start, mut runs) = (f64::MAX, Instant::now(), 0);
    while runs < 5 || start.elapsed().as_secs_f64() < 0.4 {
        let t = Instant::now();
        body();
        best = best.min(t.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect()
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let threads = std::env::args().nth(2).and_then(|t| t.parse().ok()).unwrap_or(2);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.expect("the first pool of the process");
    if let Some(name) = std::env::args().nth(3) {
        let tier = isa::Tier::from_name(&name).expect("a tier's name");
        isa::force(Some(tier)).expect("a tier of this machine");
    }
    let shapes = [
        ("nt", 1024, 1536, 576),
        ("nt", 1024, 576, 1536),
        ("nt", 1024, 576, 576),
        ("nt", 1024, 192, 576),
        ("nt", 1024, 4096, 4096),
        ("nt", 1024, 49152, 576),
        ("nn", 1024, 576, 1536),
        ("nn", 1024, 1536, 576),
        ("nn", 1024, 576, 576),
        ("tn", 1536, 576, 1024),
        ("nt", 1024, 8, 576),
        ("nt", 1024, 576, 8),
        ("nn", 1024, 8, 576),
        ("nn", 1024, 576, 8),
        ("tn", 8, 576, 1024),
        ("tn", 576, 8, 1024),
        ("nt", 1, 49152, 576),
        ("nt", 8, 1536, 576),
        ("nt", 64, 64, 64),
    ];
    for (layout, m, n, k) in shapes {
        let (a, b) = (noise(m * k), noise(k * n));
        let half = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
        let (ah, bh) = (half(&a), half(&b));
        let (mut c, mut ch) = (vec![0f32; m * n], vec![bf16::ZERO; m * n]);
        let flops = 2.0 * (m * n * k) as f64;
        macro_rules! views {
            ($a:expr, $b:expr) => {{
                let a = if layout == "tn" { MatRef::new($a, k, m).t() } else { MatRef::new($a, m, k) };
                let b = if layout == "nt" { MatRef::new($b, n, k).t() } else { MatRef::new($b, k, n) };
                (a, b)
            }};
        }
        let options = Options::default();
        let (ra, rb) = views!(&ah[..], &bh[..]);
        let packed = PackedB::pack_nn(rb, Compute::Bf16);
        let (fa, fb) = views!(&a[..], &b[..]);
        let report = |what: &str, seconds: f64| {
            println!(
                r#"{{"layout":"{layout}","m":{m},"n":{n},"k":{k},"what":"{what}","us":{:.1},"gflops":{:.1}}}"#,
                seconds * 1e6,
                flops / seconds / 1e9
            );
        };
        let wants = |what: &str| what.contains(&filter);
        if wants("bf16") {
            report("bf16", time(|| gemm(MatMut::new(&mut ch[..], m, n), ra, rb, options)));
        }
        if wants("bf16-packed") {
            report("bf16-packed", time(|| gemm_packed(MatMut::new(&mut ch[..], m, n), ra, &packed, options)));
        }
        if wants("bf16-f32-out") {
            report("bf16-f32-out", time(|| gemm(MatMut::new(&mut c[..], m, n), ra, rb, options)));
        }
        if wants("bf16-serial") && m * n * k < 1 << 30 {
            report("bf16-serial", time(|| gemm_serial(MatMut::new(&mut ch[..], m, n), ra, rb, options)));
        }
        if wants("f32") {
            report("f32", time(|| gemm(MatMut::new(&mut c[..], m, n), fa, fb, options)));
        }
    }
}
