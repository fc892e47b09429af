"""Tiny random encoders, and what transformers computes with them under each head.

Shared by the encoders' `make.py`. As in `tiny.py` a model has two layers, f32 arithmetic and random values everywhere.
Written per variant, into `<family>/<variant>`:

    config.json, model.safetensors   the base with its masked language-model head, as transformers saves it
    golden.safetensors:
      tokens [n], offsets [samples + 1], token_types [n] i32       as in `tiny.py`
      targets [n] i32            the token behind a mask at each place, -100 where the loss does not look
      hidden.embed, hidden.<layer>, hidden.final   [n, d_model] f32
      logits [n, vocab], loss [1], grad.<name>     of the masked language model
      classifier.weight.<name>   the tensors of a classifier's head with three labels, by the model's own names
      classifier.logits [samples, 3], classifier.loss [1], classifier.grad.<name>   cross-entropy with labels 2, 0
      token.weight.<name>, token.logits [n, 3]     likewise of a token classifier
"""
import hashlib, json, pathlib, sys
import torch, transformers
import tiny

LABELS = 3
CLASSES = torch.tensor([2, 0])


def fill(model, seed):
    """`tiny.fill` for these names: norms are called LayerNorm too."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda p: torch.randn(p.shape, generator=generator)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.dim() == 1:
                p.copy_((1 if name.endswith("weight") else 0) + 0.3 * draw(p))
            elif "embeddings" in name:
                p.copy_(0.3 * draw(p))
            else:
                p.copy_(draw(p) * p.shape[1] ** -0.5)


def samples():
    """`tiny.samples` without the ids 0 to 2: torch gives a padding token's embedding no gradient, and RoBERTa no place."""
    tokens, targets = tiny.samples()
    return [ids.clamp(min=3) for ids in tokens], targets


def token_types(config):
    """The second half of each sample is the second text, where the model knows of two."""
    types = [torch.arange(n) >= n // 2 for n in tiny.LENGTHS]
    return [t.long() if getattr(config, "type_vocab_size", 0) > 1 else torch.zeros_like(t).long() for t in types]


def forward(model, ids, types, **more):
    if getattr(model.config, "type_vocab_size", 0) > 0:
        more["token_type_ids"] = types[None]
    return model(input_ids=ids[None], **more)


def load(cls, folder, head=None, **more):
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **more).eval()
    weights = {}
    if head is not None:
        base = {n for n, _ in model.named_parameters() if n.startswith(model.base_model_prefix + ".")}
        generator = torch.Generator().manual_seed(tiny.SEED + 7)
        with torch.no_grad():
            for name, p in sorted(model.named_parameters()):
                if name not in base or "pooler" in name:
                    p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.dim() == 1 else p.shape[1] ** -0.5))
                    weights[f"{head}.weight.{name}"] = p.detach().clone()
    return model, weights


def write(folder, config, script, grads):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    auto = transformers
    torch.manual_seed(tiny.SEED)
    model = auto.AutoModelForMaskedLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    fill(model, tiny.SEED)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens, targets = samples()
    types = token_types(config)
    out = tiny.inputs() | {"tokens": torch.cat(tokens), "token_types": torch.cat(types)}

    model, _ = load(auto.AutoModelForMaskedLM, folder)
    outs = [forward(model, ids, t, output_hidden_states=True) for ids, t in zip(tokens, types)]
    hidden = [torch.cat([o.hidden_states[i][0] for o in outs]) for i in range(len(outs[0].hidden_states))]
    logits = torch.cat([o.logits[0] for o in outs])
    loss = torch.nn.functional.cross_entropy(logits, torch.cat(targets), ignore_index=tiny.IGNORE)
    loss.backward()
    names = dict(model.named_parameters())
    out |= {"logits": logits, "loss": loss, "hidden.embed": hidden[0], "hidden.final": hidden[-1]}
    out |= {f"hidden.{i}": h for i, h in enumerate(hidden[1:-1])}
    out |= {f"grad.{n}": names[n].grad for n in grads if n in names and names[n].grad is not None}

    model, weights = load(auto.AutoModelForSequenceClassification, folder, "classifier", num_labels=LABELS)
    logits = torch.cat([forward(model, ids, t).logits for ids, t in zip(tokens, types)])
    loss = torch.nn.functional.cross_entropy(logits, CLASSES)
    loss.backward()
    names = dict(model.named_parameters())
    out |= weights | {"classifier.logits": logits, "classifier.loss": loss}
    own = [n.removeprefix("classifier.weight.") for n in weights]
    out |= {f"classifier.grad.{n}": names[n].grad for n in [*grads, *own] if n in names}

    model, weights = load(auto.AutoModelForTokenClassification, folder, "token", num_labels=LABELS)
    out |= weights | {"token.logits": torch.cat([forward(model, ids, t).logits[0] for ids, t in zip(tokens, types)])}
    own_hash = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    tiny.save(folder / "golden.safetensors", out, script, encoders_sha256=own_hash)
    print(folder, sum(f.stat().st_size for f in folder.glob("*")) // 1024, "KiB, loss", loss.item())


def main(variants, script, grads):
    here = pathlib.Path(script).parent
    for name, config in variants.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            write(here / name, config, script, grads)
