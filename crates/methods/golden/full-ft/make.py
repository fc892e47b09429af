"""Goldens of full fine-tuning: three steps of torch's AdamW in f32 on a whole tiny model.

Bases: `models/golden/llama/default` (untied) and `tied`, whose one matrix gathers gradient from the embedding and the head.
Every step sees the two samples of `models/golden/tiny.py` as one batch (mean over all labelled tokens), clips the
gradient's norm to 1.0, and decays every weight, norms included, as torch does for one parameter group.

    <case>/golden.safetensors
        tokens, offsets, targets    as in `models/golden/tiny.py`
        losses [4]                  before each step, and after the last
        grad_norms [3]              before clipping
        final.<name>                some weights after the last step
        final.logits [n, vocab]
    lr, weight_decay, clip, beta1, beta2, eps in the metadata.
"""
import pathlib, sys
here = pathlib.Path(__file__).parent
models = here.parents[2] / "models/golden"
sys.path.insert(0, str(models))
import torch
import tiny

SETTINGS = dict(lr=1e-2, weight_decay=0.1, clip=1.0, beta1=0.9, beta2=0.999, eps=1e-8)

for name in ("default", "tied"):
    model = tiny.load(models / "llama" / name)
    s = SETTINGS
    adamw = torch.optim.AdamW(model.parameters(), lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"],
                              weight_decay=s["weight_decay"], foreach=False)
    losses, norms = [], []
    for _ in range(3):
        _, _, loss = tiny.run(model)
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), s["clip"]).item())
        adamw.step()
        adamw.zero_grad(set_to_none=True)
    logits, _, loss = tiny.run(model)
    losses.append(loss.item())
    names = dict(model.named_parameters())
    out = tiny.inputs() | {"losses": torch.tensor(losses), "grad_norms": torch.tensor(norms), "final.logits": logits}
    out |= {f"final.{n}": names[n] for n in tiny.GRADS if n in names}
    (here / name).mkdir(exist_ok=True)
    tiny.save(here / name / "golden.safetensors", out, __file__, **{k: str(v) for k, v in s.items()})
    print(name, losses, norms)
