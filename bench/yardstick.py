#!/usr/bin/env python3
"""The yardstick: training steps of PyTorch with Hugging Face PEFT, as JSON; what `luthier bench step` is compared with.

Needs `pip install torch transformers peft`. Two workloads on the shape of SmolLM2-135M:
  dense   random tokens, every one labelled, random weights
  sft     real rows (jsonl with "question" and "answer"), the loss on answers, padded to the longest row of a batch; --model is
          a Hugging Face folder
`--tuned` is what a careful user makes of the sft workload: rows grouped by length, the head on labelled rows only, and
`torch.compile` with `--compile` where it works. `--save-init DIR` leaves the start of a dense run (base/, adapter/,
ids.json), which `luthier bench step --init DIR` loads. One warm-up step is not counted; tokens are real tokens.
"""
import argparse, json, os, resource, time

p = argparse.ArgumentParser()
p.add_argument("--work", choices=["dense", "sft"], default="dense")
p.add_argument("--method", choices=["lora", "full"], default="lora")
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
p.add_argument("--rank", type=int, default=8)
p.add_argument("--batch", type=int, default=4)
p.add_argument("--seq", type=int, default=256)
p.add_argument("--steps", type=int, default=5)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--recompute", action="store_true")
p.add_argument("--tuned", action="store_true")
p.add_argument("--compile", action="store_true")
p.add_argument("--model")
p.add_argument("--data")
p.add_argument("--save-init")
a = p.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
import peft

torch.set_num_threads(a.threads)
torch.manual_seed(0)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
SHAPE = dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
             vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192, rope_theta=100000.0)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
if a.model:
    model = LlamaForCausalLM.from_pretrained(a.model, dtype=dtype)
else:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype)
if a.save_init:
    model.save_pretrained(f"{a.save_init}/base")
if a.method == "lora":
    conf = peft.LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, conf)
    if a.save_init:
        model.save_pretrained(f"{a.save_init}/adapter")
inner = model.get_base_model() if a.method == "lora" else model
if a.recompute:
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
model.train()
params = [q for q in model.parameters() if q.requires_grad]
opt = torch.optim.AdamW(params, lr=1e-4)
trunk = torch.compile(inner.model, dynamic=True) if a.compile else inner.model


def dense():
    ids = torch.randint(0, SHAPE["vocab_size"], (a.batch, a.seq))
    if a.save_init:
        with open(f"{a.save_init}/ids.json", "w") as out:
            json.dump(ids.tolist(), out)
    return [(dict(input_ids=ids, labels=ids), ids.numel())] * (a.steps + 1)


def rows(tok):
    with open(a.data) as lines:
        for line in [next(lines) for _ in range(a.batch * (a.steps + 1))]:
            r = json.loads(line)
            q = tok(f"<|im_start|>user\n{r['question']}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
            s = q + tok(f"{r['answer']}<|im_end|>")["input_ids"]
            yield s[: a.seq], min(len(q), a.seq)


def sft():
    seqs = list(rows(AutoTokenizer.from_pretrained(a.model)))
    if a.tuned:  # the first batch warms up and stays; the others are grouped
        seqs = seqs[: a.batch] + sorted(seqs[a.batch:], key=lambda s: len(s[0]))
    batches = []
    for i in range(0, len(seqs), a.batch):
        part = seqs[i : i + a.batch]
        n = max(len(s) for s, _ in part)
        ids = torch.full((len(part), n), 0)
        lab = torch.full((len(part), n), -100)
        att = torch.zeros(len(part), n, dtype=torch.long)
        for j, (s, q) in enumerate(part):
            ids[j, : len(s)] = torch.tensor(s)
            att[j, : len(s)] = 1
            lab[j, q : len(s)] = torch.tensor(s[q:])
        batches.append((dict(input_ids=ids, attention_mask=att, labels=lab), int(att.sum())))
    return batches


def loss_of(batch):
    if not a.tuned:
        return model(**batch).loss
    hidden = trunk(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).last_hidden_state
    labels = batch["labels"][:, 1:]
    picked = labels != -100
    return F.cross_entropy(inner.lm_head(hidden[:, :-1][picked]).float(), labels[picked])


ms, tokens, loss = [], [], []
for i, (batch, count) in enumerate((dense if a.work == "dense" else sft)()):
    t = time.perf_counter()
    out = loss_of(batch)
    out.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    opt.step()
    opt.zero_grad(set_to_none=True)
    s = time.perf_counter() - t
    loss.append(round(float(out), 6))
    if i:  # the first step warms up
        ms.append(round(1e3 * s, 1))
        tokens.append(count)
print(json.dumps({"method": a.method, "dtype": a.dtype, "work": a.work, "trainable": sum(q.numel() for q in params), "ms": ms,
                  "tokens": tokens, "tokens_per_s": round(1e3 * sum(tokens) / sum(ms), 1),
                  "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "loss": loss}))
