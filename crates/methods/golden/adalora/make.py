"""Goldens of AdaLoRA: PEFT's forward and gradients, and twenty steps of its schedule.

`default`: see `golden/peft_case.py`. `schedule/golden.safetensors`:

    tokens, offsets, targets     as in `models/golden/tiny.py`
    start.<key>                  the adapter before the first step
    losses [20]                  mean loss of each step, without the penalty
    ranks [20]                   triplets whose singular value is not zero, over the model, after each step
    final.<key>                  the adapter after the last step
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peft, torch
from peft_case import adapter_keys, case, models, tiny

STEPS, SETTINGS = 20, dict(init_r=4, target_r=2, lora_alpha=8, tinit=3, tfinal=6, deltaT=2, orth_reg_weight=0.1,
                           beta1=0.85, beta2=0.8, target_modules=["q_proj", "v_proj"])
adalora = lambda **options: peft.AdaLoraConfig(task_type="CAUSAL_LM", **options)
case(__file__, "default", adalora(total_step=10, init_r=3, target_r=2, lora_alpha=5, target_modules=["q_proj", "down_proj"]))

torch.manual_seed(tiny.SEED)
model = peft.get_peft_model(tiny.load(models / "llama/default"), adalora(total_step=STEPS, **SETTINGS))
named = adapter_keys(model)
out = tiny.inputs() | {f"start.{k}": p.detach().clone() for k, p in named.items()}
optimizer = torch.optim.AdamW(named.values(), lr=2e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, foreach=False)
values = [p for k, p in named.items() if k.endswith("lora_E")]
losses, ranks = [], []
for step in range(1, STEPS + 1):
    _, _, loss = tiny.run(model.base_model.model)
    losses.append(loss.item())
    # AdaLoraModel adds the penalty to a loss that its own forward computes; here the loss is ours.
    matrices = [p @ p.T if k.endswith("lora_A") else p.T @ p for k, p in named.items() if not k.endswith("lora_E")]
    penalty = sum(torch.norm(m - torch.eye(len(m)), p="fro") for m in matrices) / len(matrices)
    (loss + SETTINGS["orth_reg_weight"] * penalty).backward()
    optimizer.step()
    model.base_model.update_and_allocate(step)
    optimizer.zero_grad()
    ranks.append(sum(int((e != 0).sum()) for e in values))
out |= {"losses": torch.tensor(losses), "ranks": torch.tensor(ranks)} | {f"final.{k}": p for k, p in named.items()}
(pathlib.Path(__file__).parent / "schedule").mkdir(exist_ok=True)
tiny.save(pathlib.Path(__file__).parent / "schedule/golden.safetensors", out, __file__)
print(losses, ranks)
