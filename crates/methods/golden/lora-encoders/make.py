"""Goldens of LoRA on classifying encoders: adapters as PEFT saves them, with the task's head among their tensors.

Base: `models/golden/<family>/default`, with three labels. One folder a case:

    adapter_config.json, adapter_model.safetensors   as PEFT writes them, every trained tensor moved off its start
    golden.safetensors   tokens, offsets, targets, token_types; base.<name>: what the base's folder lacks (a pooler);
                         logits [samples, 3], loss of classes 2 and 0, grad.<key> under the adapter file's own keys
"""
import pathlib, sys
here = pathlib.Path(__file__).parent
models = here.parents[2] / "models/golden"
sys.path.insert(0, str(models))
import peft, torch, transformers
import encoders, tiny

CASES = {
    "bert": dict(base="bert", r=4, lora_alpha=8, target_modules=["query", "value"]),
    "bert-paths": dict(base="bert", r=2, lora_alpha=4, target_modules=["attention.output.dense", "intermediate.dense", "key"]),
    "roberta": dict(base="roberta", r=2, lora_alpha=3, target_modules=["query", "output.dense"]),
    "distilbert": dict(base="distilbert", r=3, lora_alpha=6, target_modules=["q_lin", "lin1", "lin2"]),
    "deberta-v2": dict(base="deberta-v2", variant="v3", r=2, lora_alpha=4, target_modules=["query_proj", "key_proj"]),
}


def move(model):
    generator = torch.Generator().manual_seed(tiny.SEED + 2)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.requires_grad:
                p.copy_(p + (0.2 if "lora_B" in name else 0.05) * torch.randn(p.shape, generator=generator))


def case(name, base, variant="default", **options):
    torch.manual_seed(tiny.SEED)
    folder = models / base / variant
    model, weights = encoders.load(transformers.AutoModelForSequenceClassification, folder, "head", num_labels=3)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **options)).eval()
    move(model)
    out = here / name
    model.peft_config["default"].base_model_name_or_path = f"luthier/tiny-{base}"
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    tokens, _ = encoders.samples()
    types = encoders.token_types(model.config)
    logits = torch.cat([encoders.forward(model, ids, t).logits for ids, t in zip(tokens, types)])
    loss = torch.nn.functional.cross_entropy(logits, encoders.CLASSES)
    loss.backward()
    keys = set(peft.get_peft_model_state_dict(model))
    grads = {}
    for parameter, p in model.named_parameters():
        if p.requires_grad:
            key = parameter.replace(".default", "").replace(".modules_to_save", "")
            assert key in keys, (key, sorted(keys))
            grads[f"grad.{key}"] = p.grad
    assert len(grads) == len(keys), (sorted(grads), sorted(keys))
    lacks = {n.replace("head.weight.", "base."): t for n, t in weights.items()}
    tensors = tiny.inputs() | {"tokens": torch.cat(tokens), "token_types": torch.cat(types)} | lacks
    tiny.save(out / "golden.safetensors", tensors | {"logits": logits, "loss": loss} | grads, __file__)
    print(name, "loss", loss.item(), sorted(k for k in keys if "lora" not in k))


for name, options in CASES.items():
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        case(name, **options)
