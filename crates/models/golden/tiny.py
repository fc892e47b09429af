"""Tiny random models of the families, and what the reference computes with them.

Shared by `<family>/make.py` and by the goldens of the methods. A model has two layers, f32 arithmetic, and random
values everywhere that training could reach: norms are not one and biases are not zero, so that a skipped one shows.

Written per variant: a Hugging Face folder (`config.json` as transformers 5 spells it, `config.old.json` with
`rope_theta` and `rope_scaling`, `model.safetensors`) and `golden.safetensors`:

    tokens    [n] i32           the samples, one behind the other
    offsets   [samples + 1] i32 where each sample starts; the last is n
    targets   [n] i32           the token to predict at each place, -100 where the loss does not look
    logits    [n, vocab] f32
    hidden.embed, hidden.<layer>, hidden.final   [n, d_model] f32: after the embedding, after each layer, after the last norm
    loss      [1] f32           mean cross-entropy over the labelled places of all samples together
    grad.<name>                 gradient of `loss` for a few weights, in the weight's own shape
"""
import hashlib, json, pathlib, sys
import safetensors.torch, torch, transformers

transformers.utils.logging.disable_progress_bar()

SEED = 1815
VOCAB = 61
LENGTHS = (7, 21)
IGNORE = -100
SIZES = dict(hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
             vocab_size=VOCAB, max_position_embeddings=64, rms_norm_eps=1e-5, attn_implementation="eager")


def fill(model):
    """Random values for every weight: rows scaled by fan-in, norms around one, biases around zero."""
    generator = torch.Generator().manual_seed(SEED)
    draw = lambda p: torch.randn(p.shape, generator=generator)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.copy_(0.3 * draw(p))
            elif "norm" in name:
                p.copy_(1 + 0.3 * draw(p))
            elif "embed" in name:
                p.copy_(0.2 * draw(p))  # small, since a tied head multiplies by it too
            else:
                p.copy_(draw(p) * p.shape[1] ** -0.5)


def samples():
    """Token ids per sample, and targets: the next token where a coin says so, never at a sample's last place."""
    generator = torch.Generator().manual_seed(SEED + 1)
    tokens = [torch.randint(0, VOCAB, (n,), generator=generator) for n in LENGTHS]
    targets = []
    for ids in tokens:
        labelled = torch.rand(len(ids), generator=generator) < 0.5
        target = torch.full_like(ids, IGNORE)
        target[:-1] = torch.where(labelled[:-1], ids[1:], IGNORE)
        targets.append(target)
    return tokens, targets


def run(model):
    """Each sample alone through `model`: no padding, no mask. Returns logits, hidden states and the loss."""
    tokens, targets = samples()
    outs = [model(input_ids=ids[None], output_hidden_states=True, use_cache=False) for ids in tokens]
    logits = torch.cat([o.logits[0] for o in outs])
    hidden = [torch.cat([o.hidden_states[i][0] for o in outs]) for i in range(len(outs[0].hidden_states))]
    loss = torch.nn.functional.cross_entropy(logits, torch.cat(targets), ignore_index=IGNORE)
    return logits, hidden, loss


def inputs():
    """The tensors that every golden repeats, so that it stands alone."""
    tokens, targets = samples()
    ends = torch.tensor([0, *LENGTHS]).cumsum(0)
    return {"tokens": torch.cat(tokens).int(), "offsets": ends.int(), "targets": torch.cat(targets).int()}


def provenance(script):
    """What made a golden: versions, seed, and the hash of the scripts, so that a stale file is seen."""
    import peft
    here = hashlib.sha256(pathlib.Path(script).read_bytes()).hexdigest()
    shared = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "peft": peft.__version__,
            "seed": str(SEED), "make_sha256": here, "tiny_sha256": shared}


def save(path, tensors, script, **more):
    """Writes one golden file: everything contiguous, f32 or i32."""
    out = {}
    for name, t in tensors.items():
        t = torch.as_tensor(t).detach()
        out[name] = t.to(torch.int32 if not t.is_floating_point() else torch.float32).reshape(t.shape or (1,)).clone().contiguous()
    safetensors.torch.save_file(out, path, metadata=provenance(script) | more)


def old_spelling(config):
    """`config.json` as files before transformers 5 wrote it."""
    old = {k: v for k, v in config.items() if k not in ("rope_parameters", "dtype", "layer_types")}
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    # Linear scaling has its first spelling, `type`, from before `rope_type` came with llama3 and yarn.
    old["rope_scaling"] = None if kind == "default" else {("type" if kind == "linear" else "rope_type"): kind, **rope}
    old["torch_dtype"] = config["dtype"]
    if config["model_type"] != "qwen3" and config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        old.pop("head_dim")  # absent from files of the first Llamas
    return old


GRADS = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.bias",
         "model.layers.0.self_attn.k_norm.weight", "model.layers.0.input_layernorm.weight",
         "model.layers.1.mlp.down_proj.weight", "model.norm.weight")


def write(folder, config, dtype=torch.float32, shard_size=None, script=None):
    """Builds the model of `config`, saves it as `dtype`, and records what the reload computes in f32."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    torch.manual_seed(SEED)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    fill(model)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.old.json").write_text(json.dumps(old_spelling(saved), indent=2, sort_keys=True) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = load(folder)
    logits, hidden, loss = run(model)
    loss.backward()
    names = dict(model.named_parameters())
    tensors = inputs() | {"logits": logits, "loss": loss, "hidden.embed": hidden[0], "hidden.final": hidden[-1]}
    tensors |= {f"hidden.{i}": h for i, h in enumerate(hidden[1:-1])}
    tensors |= {f"grad.{n}": names[n].grad for n in GRADS if n in names}
    save(folder / "golden.safetensors", tensors, script)
    check_old_spelling(folder, logits)
    print(folder, sum(f.stat().st_size for f in folder.glob("*")) // 1024, "KiB, loss", loss.item())


def load(folder):
    """The saved folder in f32, in evaluation mode."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def check_old_spelling(folder, logits):
    """transformers itself must read both spellings alike, or the second file would prove nothing."""
    import shutil, tempfile
    with tempfile.TemporaryDirectory() as other:
        for f in folder.glob("model*"):
            shutil.copy(f, other)
        shutil.copy(folder / "config.old.json", pathlib.Path(other) / "config.json")
        again, _, _ = run(load(other))
    assert torch.equal(again, logits), f"{folder}: transformers reads the two spellings differently"


def main(variants, script):
    """Writes all variants, or those named on the command line."""
    here = pathlib.Path(script).parent
    for name, (config, options) in variants.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            write(here / name, config, script=script, **options)
