"""One adapter as PEFT makes, saves and computes it: shared by the `make.py` of methods that PEFT has.

A folder holds what `golden/lora/make.py` describes: adapter_config.json and adapter_model.safetensors as PEFT writes
them, every trained tensor moved off its start; golden.safetensors with tokens, offsets, targets, logits, loss, grad.<key>,
merged.<name> and fresh.logits.
"""
import hashlib, pathlib, sys
models = pathlib.Path(__file__).resolve().parents[2] / "models/golden"
sys.path.insert(0, str(models))
import peft, torch
import tiny


def adapter_keys(model):
    """Key in the adapter's file of every trained parameter."""
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    named = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            plain = name.replace(".default", "").replace(".modules_to_save", "")
            key = next(k for k in (plain, plain.removesuffix(".weight")) if k in state)
            named[key] = p
    return named


def move(model):
    """Every trained tensor off its start, so that zeros hide nothing."""
    generator = torch.Generator().manual_seed(tiny.SEED + 2)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.requires_grad:
                p.copy_(p + 0.15 * torch.randn(p.shape, generator=generator))


def case(script, name, config, base="default"):
    folder = pathlib.Path(script).parent / name
    torch.manual_seed(tiny.SEED)
    plain, _, _ = tiny.run(tiny.load(models / "llama" / base))
    model = peft.get_peft_model(tiny.load(models / "llama" / base), config).eval()
    fresh, _, _ = tiny.run(model)
    assert (fresh - plain).abs().max() < 1e-5
    move(model)
    model.peft_config["default"].base_model_name_or_path = "luthier/tiny-llama"
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    # Below PeftModel and AdaLoRA's own forward: the bare loss, without penalties.
    logits, _, loss = tiny.run(model.base_model.model)
    assert (logits - plain).abs().max() > 0.05, name
    loss.backward()
    named = adapter_keys(model)
    grads = {f"grad.{key}": p.grad for key, p in named.items()}
    trainable = sum(p.numel() for p in named.values())
    merged = model.merge_and_unload()
    after, _, _ = tiny.run(merged)
    assert (after - logits).abs().max() < 1e-4
    first = min(named).removeprefix("base_model.model.").split(".lora_")[0].split(".vera_")[0].split(".ia3_")[0] + ".weight"
    tensors = tiny.inputs() | {"logits": logits, "loss": loss, "fresh.logits": fresh} | grads
    tensors[f"merged.{first}"] = dict(merged.named_parameters())[first]
    shared = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    tiny.save(folder / "golden.safetensors", tensors, script, trainable=str(trainable), case_sha256=shared)
    print(name, "loss", loss.item(), "trainable", trainable, "KiB", sum(f.stat().st_size for f in folder.glob("*")) // 1024)
