#!/usr/bin/env python3
"""Training steps of a BERT classifier in PyTorch (and PEFT), as JSON: what `luthier train` is measured against on encoders.

python bench/encoder_step.py --model models/minilm --data recipes/data/tweets-train.jsonl --method lora --dtype bf16

Rows of the data in their order, padded to the longest of each batch; tokens are real (not padding) tokens. `rss_mb` is the
process's peak, `import_mb` what importing and nothing else took. Needs torch, transformers and peft.
"""
import argparse
import json
import os
import resource
import time

p = argparse.ArgumentParser()
p.add_argument("--model", required=True)
p.add_argument("--data", required=True)
p.add_argument("--method", choices=["lora", "full"], default="lora")
p.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
p.add_argument("--rank", type=int, default=8)
p.add_argument("--batch", type=int, default=32)
p.add_argument("--steps", type=int, default=10)
p.add_argument("--threads", type=int, default=2)
a = p.parse_args()
os.environ["OMP_NUM_THREADS"] = str(a.threads)
import peft
import torch
from transformers import AutoTokenizer, BertForSequenceClassification


def rss():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


import_mb = rss()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
rows = [json.loads(line) for line in open(a.data)][: a.batch * (a.steps + 1)]
labels = {name: i for i, name in enumerate(sorted({r["label"] for r in rows}))}
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
model = BertForSequenceClassification.from_pretrained(a.model, num_labels=len(labels), dtype=dtype)
if a.method == "lora":
    linears = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=linears, task_type="SEQ_CLS")
    )
model.train()
params = [q for q in model.parameters() if q.requires_grad]
optimizer = torch.optim.AdamW(params, lr=1e-4)
tokenizer = AutoTokenizer.from_pretrained(a.model)
ms, tokens, loss = [], [], []
for i in range(0, len(rows), a.batch):
    part = rows[i : i + a.batch]
    batch = tokenizer([r["text"] for r in part], padding=True, truncation=True, max_length=128, return_tensors="pt")
    batch["labels"] = torch.tensor([labels[r["label"]] for r in part])
    start = time.perf_counter()
    out = model(**batch)
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    loss.append(round(float(out.loss), 4))
    if i:  # the first step warms up
        ms.append(round(1e3 * seconds, 1))
        tokens.append(int(batch["attention_mask"].sum()))
print(
    json.dumps(
        {
            "method": a.method, "dtype": a.dtype, "trainable": sum(q.numel() for q in params), "ms": ms, "tokens": tokens,
            "tokens_per_s": round(1e3 * sum(tokens) / sum(ms), 1), "rss_mb": rss(), "import_mb": import_mb, "loss": loss,
        }
    )
)
