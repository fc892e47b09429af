#!/usr/bin/env python3
"""The rate of torch's products (oneDNN, MKL) on the shapes of a step of SmolLM2-135M, as JSON: forward and input gradients of
every linear layer and of the head, each as often as a step has it; best of repetitions within a tenth of a second."""
import argparse, json, time
import torch

p = argparse.ArgumentParser()
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
p.add_argument("--tokens", type=int, default=1024)
p.add_argument("--threads", type=int, default=2)
a = p.parse_args()
torch.set_num_threads(a.threads)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
n = a.tokens
# d_in, d_out, times in a step, rows
layers = [(576, 576, 60, n), (576, 192, 60, n), (576, 1536, 60, n), (1536, 576, 30, n), (576, 49152, n // 256, 256)]


def best(f):
    f()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < 0.12:
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return min(times)


flops = seconds = 0.0
for d_in, d_out, count, rows in layers:
    w, x, dy = (torch.randn(*s).to(dtype) for s in ((d_out, d_in), (rows, d_in), (rows, d_out)))
    flops += 2 * 2.0 * rows * d_in * d_out * count
    seconds += count * (best(lambda: torch.nn.functional.linear(x, w)) + best(lambda: dy @ w))
print(json.dumps({"dtype": a.dtype, "gemm_peak_gflops": round(flops / seconds / 1e9, 1)}))
