#!/usr/bin/env python3
"""The held-out answer loss by transformers, to compare with `luthier eval`. Needs torch, transformers (and peft).

    hf_eval.py BASE ROWS.jsonl [--adapter DIR] [--limit N] [--max-tokens 512]

Rows have `question` and `answer`. Each is rendered by the model's own chat template; labels are the answer and the token
that ends the turn. Prints {"loss", "perplexity", "tokens"}: mean over all labelled tokens, f32.
"""
import argparse, json, math
import torch, transformers

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("base"); p.add_argument("rows")
p.add_argument("--adapter"); p.add_argument("--limit", type=int); p.add_argument("--max-tokens", type=int, default=512)
a = p.parse_args()
transformers.utils.logging.disable_progress_bar()
model = transformers.AutoModelForCausalLM.from_pretrained(a.base, dtype=torch.float32).eval()
if a.adapter:
    import peft
    model = peft.PeftModel.from_pretrained(model, a.adapter).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(a.base)
total, count = 0.0, 0
for line in open(a.rows, encoding="utf-8").read().splitlines()[: a.limit]:
    row = json.loads(line)
    turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(prompt)
    answer = whole[len(prompt):].rstrip("\n")  # the line's end after the closing token is not the model's to say
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = (head + tokenizer(answer, add_special_tokens=False)["input_ids"])[: a.max_tokens]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    start = len(head)
    total += torch.nn.functional.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]), reduction="sum").item()
    count += len(ids) - start
print(json.dumps({"loss": total / count, "perplexity": math.exp(total / count), "tokens": count}))
