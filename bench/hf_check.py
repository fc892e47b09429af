#!/usr/bin/env python3
"""Does transformers load a folder that Luthier wrote, whole, and does the model still speak? Needs torch, transformers.

    hf_check.py DIR [--prompt TEXT] [--like OTHER_DIR] [--tokens 48]

Loads DIR (weights, tokenizer, chat template), answers one prompt greedily, and prints one line of JSON. Missing,
unexpected or misshapen tensors end with exit code 1. With --like it also gives the largest difference of the logits.
"""
import argparse, json, sys
import torch, transformers

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("dir")
p.add_argument("--prompt", default="A box holds 12 eggs. How many eggs are in 3 boxes?")
p.add_argument("--like")
p.add_argument("--tokens", type=int, default=48)
a = p.parse_args()
transformers.utils.logging.disable_progress_bar()


def load(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    return model.eval(), {k: sorted(map(str, v)) for k, v in report.items() if v}


model, wrong = load(a.dir)
tokenizer = transformers.AutoTokenizer.from_pretrained(a.dir)
if tokenizer.chat_template:
    text = tokenizer.apply_chat_template([{"role": "user", "content": a.prompt}], add_generation_prompt=True, tokenize=False)
else:
    text = a.prompt
ids = tokenizer(text, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)["input_ids"]
with torch.no_grad():
    logits = model(input_ids=ids).logits[0]
    answer = model.generate(ids, max_new_tokens=a.tokens, do_sample=False)[0, ids.shape[1]:]
result = {"parameters": sum(q.numel() for q in model.parameters()), "wrong": wrong, "prompt_tokens": ids.shape[1],
          "answer": tokenizer.decode(answer), "eos": model.generation_config.eos_token_id}
if a.like:
    with torch.no_grad():
        other = load(a.like)[0](input_ids=ids).logits[0]
    result["max_difference"] = (other - logits).abs().max().item()
print(json.dumps(result, ensure_ascii=False))
sys.exit(1 if wrong else 0)
