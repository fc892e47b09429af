"""Goldens of LoRA: adapters as PEFT saves them, and what PEFT computes with them.

Base: `models/golden/llama/default` (untied, f32). One folder a case:

    adapter_config.json, adapter_model.safetensors   as PEFT writes them, every adapter tensor moved off its start
    golden.safetensors   tokens, offsets, targets, logits, loss as in `models/golden/tiny.py`;
                         grad.<key>     gradient of `loss`, under the adapter file's own keys
                         merged.<name>  the base weight after PEFT's merge, for one adapted module
                         fresh.logits   logits straight after PEFT's own start (B = 0): the base's
`site/golden.safetensors` is one linear layer alone, for a test that knows no model:
    x [n, d_in], weight [d_out, d_in], lora_A, lora_B, y [n, d_out], dy, grad.x, grad.lora_A, grad.lora_B, merged;
    alpha and rslora in the metadata.
"""
import json, pathlib, sys
here = pathlib.Path(__file__).parent
models = here.parents[2] / "models/golden"
sys.path.insert(0, str(models))
import peft, torch
import tiny

ATTENTION = ["q_proj", "v_proj"]
CASES = {
    "default": dict(r=4, lora_alpha=8, target_modules=ATTENTION),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["k_proj", "o_proj", "up_proj"]),
    "patterns": dict(r=4, lora_alpha=8, target_modules=ATTENTION + ["down_proj"],
                     rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
                     alpha_pattern={"layers.0.self_attn.v_proj": 5, "down_proj": 12}),
    "bias-all": dict(base="bias", r=2, lora_alpha=4, bias="all", target_modules=ATTENTION),
    "bias-lora-only": dict(base="bias", r=2, lora_alpha=4, bias="lora_only", target_modules=ATTENTION),
    "lora-bias": dict(base="bias", r=2, lora_alpha=4, lora_bias=True, target_modules=ATTENTION),
    "modules-to-save": dict(r=2, lora_alpha=4, modules_to_save=["lm_head"], target_modules=ATTENTION),
    "layers": dict(r=4, lora_alpha=8, layers_to_transform=[1], target_modules=ATTENTION),
    "all-linear": dict(r=2, lora_alpha=4, target_modules="all-linear"),
    "head": dict(r=3, lora_alpha=6, target_modules=["lm_head", "q_proj"]),
    "regex": dict(r=2, lora_alpha=3, target_modules=r".*\.0\.(self_attn\.[qk]|mlp\.gate)_proj"),
    "excluded": dict(r=2, lora_alpha=4, target_modules="all-linear", exclude_modules=["gate_proj", "layers.1.self_attn.q_proj"]),
}


def move(model):
    """Every trained tensor off its start, so that zeros hide nothing."""
    generator = torch.Generator().manual_seed(tiny.SEED + 2)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.requires_grad:
                noise = torch.randn(p.shape, generator=generator)
                p.copy_(p + (0.2 if "lora_B" in name else 0.05) * noise)


def case(name, base="default", **options):
    torch.manual_seed(tiny.SEED)
    base = tiny.load(models / "llama" / base)
    plain, _, _ = tiny.run(base)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    fresh, _, _ = tiny.run(model)
    assert torch.equal(fresh, plain)
    move(model)
    folder = here / name
    model.peft_config["default"].base_model_name_or_path = "luthier/tiny-llama"
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)

    logits, _, loss = tiny.run(model)
    assert (logits - plain).abs().max() > 0.1, name
    loss.backward()
    keys = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    grads = {}
    for parameter, p in model.named_parameters():
        if p.requires_grad:
            key = parameter.replace(".default", "").replace(".modules_to_save", "")
            assert key in keys, (key, sorted(keys))
            grads[f"grad.{key}"] = p.grad
    assert len(grads) == len(keys), (len(grads), len(keys))
    merged = model.merge_and_unload()
    after, _, _ = tiny.run(merged)
    assert (after - logits).abs().max() < 1e-4
    adapted = min(k for k in keys if "lora_A" in k).removeprefix("base_model.model.").replace("lora_A.", "")
    tensors = tiny.inputs() | {"logits": logits, "loss": loss, "fresh.logits": fresh} | grads
    tensors[f"merged.{adapted}"] = dict(merged.named_parameters())[adapted]
    trainable = sum(g.numel() for g in grads.values())
    tiny.save(folder / "golden.safetensors", tensors, __file__, trainable=str(trainable))
    print(name, "loss", loss.item(), "trainable", trainable, "KiB", sum(f.stat().st_size for f in folder.glob("*")) // 1024)


def site():
    """One linear layer under LoRA, forward, backward and merge, by PEFT's own layer."""
    generator = torch.Generator().manual_seed(tiny.SEED + 3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    for name, alpha, rslora in (("site", 6, False), ("site-rslora", 6, True)):
        layer = torch.nn.Sequential(torch.nn.Linear(13, 17, bias=False))
        with torch.no_grad():
            layer[0].weight.copy_(draw(17, 13) * 13**-0.5)
        model = peft.get_peft_model(layer, peft.LoraConfig(r=3, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"]))
        weights = {k.split(".")[-3]: p for k, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for p in weights.values():
                p.copy_(draw(*p.shape) * 0.3)
        x, dy = draw(11, 13).requires_grad_(), draw(11, 17)
        y = model(x)
        y.backward(dy)
        out = {"x": x, "dy": dy, "y": y, "grad.x": x.grad, "weight": layer[0].weight}
        for key, p in weights.items():
            out |= {key: p, f"grad.{key}": p.grad}
        out = {k: v.detach().clone() for k, v in out.items()}
        out["merged"] = model.merge_and_unload()[0].weight
        (here / name).mkdir(exist_ok=True)
        tiny.save(here / name / "golden.safetensors", out, __file__, alpha=str(alpha), rslora=str(rslora).lower())
        print(name, {k: tuple(v.shape) for k, v in out.items()})


for name, options in CASES.items():
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        case(name, **options)
site()
