"""Three small tensors, ten gradients for each, and how an optimizer's golden is written.

Everything is computed in f64 and rounded to f32 once, at the end. Sizes of the gradients grow and shrink, so that
clipping to norm 1.0 works on some steps and not on others. A golden holds

    start.<name>            the values before the first step
    grad.<step>.<name>      gradients of steps 1..10, before clipping
    param.<step>.<name>     the values after that step
    norm [10]               the gradients' norm over all three tensors, before clipping
    lr [10]                 the rate of each step
"""
import hashlib, pathlib
import safetensors.torch, torch

SEED = 1843
STEPS = 10
SHAPES = {"matrix": (5, 3), "vector": (7,), "cube": (2, 2, 3)}


def run(script, optimizer, clip=1.0, **settings):
    """Ten steps of `optimizer(parameters)`, clipped by torch's `clip_grad_norm_`, saved beside `script`."""
    generator = torch.Generator().manual_seed(SEED)
    draw = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64).float().double()
    params = {k: torch.nn.Parameter(draw(s)) for k, s in SHAPES.items()}
    out = {f"start.{k}": p.detach().clone() for k, p in params.items()}
    chosen = optimizer(list(params.values()))
    norms, rates = [], []
    for step in range(1, STEPS + 1):
        size = (0.02, 1.0, 5.0, 0.1)[step % 4]
        for k, p in params.items():
            p.grad = (size * draw(SHAPES[k])).float().double()
            out[f"grad.{step}.{k}"] = p.grad.clone()
        for group in chosen.param_groups:
            group["lr"] = settings["lr"] * (1 - 0.05 * (step - 1))  # a rate that moves, as under a schedule
        rates.append(chosen.param_groups[0]["lr"])
        norms.append(torch.nn.utils.clip_grad_norm_(params.values(), clip).item())
        chosen.step()
        out |= {f"param.{step}.{k}": p.detach().clone() for k, p in params.items()}
    assert min(norms) < clip < max(norms)
    out |= {"norm": torch.tensor(norms, dtype=torch.float64), "lr": torch.tensor(rates, dtype=torch.float64)}
    save(script, out, clip=clip, **settings)


def save(script, tensors, **settings):
    """Writes `golden.safetensors` beside the script."""
    script = pathlib.Path(script)
    metadata = {k: str(v) for k, v in settings.items()} | {
        "torch": torch.__version__.split("+")[0], "seed": str(SEED),
        "make_sha256": hashlib.sha256(script.read_bytes()).hexdigest()}
    safetensors.torch.save_file({k: v.float().contiguous() for k, v in tensors.items()},
                                script.parent / "golden.safetensors", metadata=metadata)
    print(script.parent.name, metadata)
