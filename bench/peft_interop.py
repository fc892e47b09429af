#!/usr/bin/env python3
"""Do PEFT and Luthier read each other's adapters alike? Run by hand; needs torch, transformers, peft.

    peft_interop.py make    BASE ADAPTER [--rank 4] [--targets all-linear]   an adapter by PEFT, moved off its start
    peft_interop.py logits  BASE TOKENS.json OUT.safetensors [--adapter DIR] what PEFT computes with an adapter, f32
    peft_interop.py compare ONE.safetensors OTHER.safetensors                largest difference of two such files

Ours of the second line: `cargo run --release --package luthier-train --example logits -- BASE TOKENS.json OUT [ADAPTER]`.
BASE is a Hugging Face folder. TOKENS.json is a list of lists of token ids. OUT holds `logits.<i> [n, vocab]`.
Each prints one line of JSON.
"""
import argparse, json, pathlib


def load(base):
    import torch, transformers
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()


def make(a):
    import peft, torch
    torch.manual_seed(a.seed)
    targets = a.targets if a.targets == "all-linear" else a.targets.split(",")
    config = peft.LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(load(a.base), config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.02)
    model.save_pretrained(a.adapter)
    return {"adapter": a.adapter, "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad)}


def logits(a):
    import safetensors.torch, torch
    model = load(a.base)
    loaded = None
    if a.adapter:
        import peft
        model = peft.PeftModel.from_pretrained(model, a.adapter).eval()
        loaded = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n or "modules_to_save" in n)
    out, losses, greedy = {}, [], []
    with torch.no_grad():
        for i, ids in enumerate(json.loads(pathlib.Path(a.tokens).read_text())):
            ids = torch.tensor([ids])
            rows = model(input_ids=ids).logits[0].float()
            out[f"logits.{i}"] = rows.contiguous()
            losses.append(torch.nn.functional.cross_entropy(rows[:-1], ids[0, 1:]).item())
            greedy.append(int(rows[-1].argmax()))
    safetensors.torch.save_file(out, a.out)
    return {"out": a.out, "loss": losses, "next": greedy, "adapter_parameters": loaded}


def compare(a):
    import safetensors.torch
    one, other = safetensors.torch.load_file(a.one), safetensors.torch.load_file(a.other)
    shared = sorted(set(one) & set(other))
    assert shared, f"no tensor in common: {sorted(one)} and {sorted(other)}"
    differences = {k: (one[k].float() - other[k].float()).abs().max().item() for k in shared}
    same = {k: bool((one[k].argmax(-1) == other[k].argmax(-1)).all()) for k in shared}
    worst = max(differences.values())
    return {"max_difference": worst, "within_1e-4": worst <= 1e-4, "same_argmax": all(same.values()), "tensors": len(shared)}


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
commands = p.add_subparsers(required=True)
c = commands.add_parser("make"); c.set_defaults(run=make)
c.add_argument("base"); c.add_argument("adapter")
c.add_argument("--rank", type=int, default=4); c.add_argument("--targets", default="all-linear"); c.add_argument("--seed", type=int, default=0)
c = commands.add_parser("logits"); c.set_defaults(run=logits)
c.add_argument("base"); c.add_argument("tokens"); c.add_argument("out"); c.add_argument("--adapter")
c = commands.add_parser("compare"); c.set_defaults(run=compare)
c.add_argument("one"); c.add_argument("other")
a = p.parse_args()
print(json.dumps(a.run(a)))
