#!/usr/bin/env python3
"""Measures luthier against PyTorch + PEFT, row by row, and writes docs/performance.md from what it saw.

    performance.py run --model HF_FOLDER --gguf Q4_FILE --data GSM8K.jsonl [--rows ID,..] [--pairs N] [--minutes M]
    performance.py write

Pairs are interleaved: ours, theirs, ours, theirs. Every finished pair goes into the state file at once, so that a run may be
broken off and goes on where it stood; a row that has its pairs is not run again unless it is named with --again.
"""
import argparse, datetime, json, os, platform, shlex, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
STEPS = "--steps 2"
# Of the slow rows: one step that counts, in as many pairs.
ONE = "--steps 1"
# Values kept a token and layer: 3 d + (d + 2 kv) + 2 ff, and what surrounds them.
PER_TOKEN = 5771


def rate(a, b):
    return a["tokens_per_s"] / b["tokens_per_s"]


def memory(a, b):
    return a["peak_rss_mb"] / b["peak_rss_mb"]


def peak_share(a, b):
    return a["necessary_gflops_per_s"] / max(a["gemm_peak_gflops"], b["gemm_peak_gflops"])


def activations(a, b):
    return a["peak_bytes"]["activation"] / (a["tokens"][0] * 30 * PER_TOKEN * 2)


def workspace(a, b):
    bound = 256 * 49152 * 4 + a["tokens"][0] * PER_TOKEN * 2
    return a["peak_bytes"]["workspace"] / bound


def activation_ratio(a, b):
    return a["peak_bytes"]["activation"] / b["peak_bytes"]["activation"]


def gigabytes(a, b):
    return a["peak_rss_mb"] / 1e3 * 1.048576


def worst_loss(a, b):
    return max(abs(x - y) for x, y in zip(a["loss"], b["loss"]))


def worst_share(a, b):
    return max(abs(x / y - 1) for x, y in zip(a["loss"], b["loss"]))


# A row of measurements: id, ours, theirs (None: nothing to compare with; "torch": the products; "ours": our own program), and
# the lines of the table that it answers: (what, ratio, comparison, target).
def runs(o):
    ours, theirs = "{ours} bench ", "{python} {bench}/yardstick.py "
    real = f"--batch 8 --seq 512 {STEPS} "
    ours_real = ours + f"step --dtype bf16 --base {o.model} --data {o.data} {real}"
    theirs_real = theirs + f"--dtype bf16 --work sft --model {o.model} --data {o.data} {real}"
    decode = ours + "decode --tokens 48 "
    return {
        "dense-bf16": (ours + f"step --dtype bf16 {STEPS}", theirs + f"--dtype bf16 {STEPS}", [
            ("dense B4 x T256, bf16, tokens/s against PEFT's", rate, ">=", 1.8),
            ("peak RSS, dense bf16, against PEFT's", memory, "<=", 0.35),
            ("peak of activations over tokens x layers x 5,771 x 2 bytes", activations, "<=", 1.25),
            ("peak of workspace over 256 logit rows and a layer's backward set", workspace, "<=", 1.25)]),
        "dense-f32": (ours + f"step --dtype f32 {ONE}", theirs + f"--dtype f32 {ONE}", [
            ("dense B4 x T256, f32, tokens/s against PEFT's", rate, ">=", 1.25)]),
        "share": (ours + f"step --dtype bf16 {STEPS}", "{python} {bench}/torch_gemm.py --dtype bf16", [
            ("dense bf16, share of the larger of both programs' rates of products", peak_share, ">=", 0.72)]),
        "real": (ours_real, theirs_real, [
            ("real rows (GSM8K, loss on answers, batch 8, seq 512), bf16, real tokens/s against PEFT's", rate, ">=", 3.5),
            ("peak RSS, real rows, against PEFT's", memory, "<=", 0.2)]),
        "real-tuned": (ours_real, theirs_real + f"--tuned {o.tuned}", [
            ("the same against a tuned PEFT (grouped by length, head on labelled rows)", rate, ">=", 1.5)]),
        "full-f32": (ours + f"step --method full-ft --dtype f32 {ONE}", theirs + f"--method full --dtype f32 {ONE}", [
            ("full fine-tuning f32, B4 x T256, tokens/s against PyTorch's", rate, ">=", 1.25),
            ("its peak RSS against PyTorch's", memory, "<=", 0.65)]),
        "recompute": (ours + f"step --dtype bf16 --recompute {STEPS}", ours + f"step --dtype bf16 {STEPS}", [
            ("recompute, LoRA: speed against without", rate, ">=", 0.67),
            ("its activations against without", activation_ratio, "<=", 0.2)]),
        "avx2": (ours + f"step --dtype f32 --tier avx2 {ONE}", theirs + f"--dtype f32 {ONE}", [
            ("AVX2 tier, f32, against PEFT held to AVX2", rate, ">=", 1.0)]),
        "threads": (ours + f"step --dtype bf16 --threads 2 {STEPS}", ours + f"step --dtype bf16 --threads 1 {STEPS}", [
            ("two threads against one", rate, ">=", 1.85)]),
        "long": (ours + "step --dtype bf16 --recompute --batch 1 --seq 8192 --steps 1", None, [
            ("T = 8192, B1, LoRA with recompute, bf16: GB of the process", gigabytes, "<=", 1.5)]),
        "decode-bf16": (decode + f"--base {o.model} --storage bf16", None, [
            ("generation, batch 1, bf16, share of the roofline", lambda a, b: a["roofline_share"], ">=", 0.6)]),
        "decode-q4": (decode + f"--base {o.gguf}", None, [
            ("generation, batch 1, Q4_1 as it is, share of the roofline", lambda a, b: a["roofline_share"], ">=", 0.4)]),
        "decode-q8": (decode + f"--base {o.gguf8}", None, [
            ("generation, batch 1, Q8_0 as it is, share of the roofline", lambda a, b: a["roofline_share"], ">=", 0.4)]),
        "loss-f32": (ours + "step --init {init} --dtype f32 --steps 9", theirs + "--dtype f32 --steps 9 --save-init {init}", [
            ("ten losses from the yardstick's own start, f32: largest difference", worst_loss, "<=", 1e-4)]),
        "loss-bf16": (ours + "step --init {init} --dtype bf16 --steps 9", ours + "step --init {init} --dtype f32 --steps 9", [
            ("the same in bf16 against f32: largest relative difference", worst_share, "<=", 0.01)]),
    }


def call(command, o, extra=None):
    words = shlex.split(command.format(ours=o.ours, python=o.python, bench=HERE, init=o.init))
    if words[0] == o.ours:
        words += ["--json", "--quiet"] + ([] if "--threads" in words else ["--threads", "2"])
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **(extra or {})})
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def load(o):
    return json.loads(o.state.read_text()) if o.state.exists() else {"rows": {}}


def save(o, state):
    o.state.parent.mkdir(parents=True, exist_ok=True)
    part = o.state.with_suffix(".part")
    part.write_text(json.dumps(state))
    part.replace(o.state)


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.processor())
    return f"{cpu}, {os.cpu_count()} hardware threads"


def versions(o):
    code = "import torch,transformers,peft;print(torch.__version__,transformers.__version__,peft.__version__)"
    torch, transformers, peft = subprocess.run([o.python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"torch": torch, "transformers": transformers, "peft": peft, "luthier": own}


def run(o):
    start, state, table = time.monotonic(), load(o), runs(o)
    chosen = o.rows.split(",") if o.rows else list(table)
    if o.again:
        for name in chosen:
            state["rows"].pop(name, None)
    state.update(machine=machine(), versions=versions(o))
    for name in chosen:
        ours, theirs, _ = table[name]
        row = state["rows"].setdefault(name, {"pairs": []})
        row["ours"], row["theirs"] = ours, theirs
        pairs = 1 if name in ("loss-f32", "loss-bf16", "long") else o.pairs
        while len(row["pairs"]) < pairs:
            if time.monotonic() - start > o.minutes * 60:
                return print("out of time; run again to go on")
            # What theirs leaves behind is what ours starts from in the comparison of losses.
            if name == "loss-f32":
                b = call(theirs, o)
                a = call(ours, o)
            else:
                a = call(ours, o)
                b = call(theirs, o, AVX2 if name == "avx2" else None) if theirs else None
            row["pairs"].append([a, b])
            row["date"] = datetime.date.today().isoformat()
            row["load"] = os.getloadavg()[0]
            row["version"] = state["versions"]["luthier"]
            save(o, state)
            for what, ratio, _, target in table[name][2]:
                print(f"{name}: {what}: {ratio(a, b):.4g} (target {target})", flush=True)


def number(x):
    return f"{x:.1e}" if 0 < abs(x) < 1e-3 else f"{x:.2f}" if x < 10 else f"{x:.0f}"


def write(o):
    state, table = load(o), runs(o)
    v = state.get("versions", {})
    out = [(HERE / "performance-head.md").read_text().format(machine=state.get("machine", "?"), **v)]
    out += ["| what | target | measured | spread | pairs | load | date, commit |", "|---|---|---|---|---|---|---|"]
    for name, (_, _, lines) in table.items():
        row = state["rows"].get(name, {"pairs": []})
        for what, ratio, way, target in lines:
            values = [ratio(a, b) for a, b in row["pairs"]]
            if not values:
                out.append(f"| {what} | {'at least' if way == '>=' else 'at most'} {target} | not measured | | 0 | | |")
                continue
            middle = statistics.median(values)
            hit = middle >= target if way == ">=" else middle <= target
            out.append(f"| {what} | {'at least' if way == '>=' else 'at most'} {target} | **{number(middle)}**{'' if hit else ' (misses)'} "
                       f"| {number(min(values))} to {number(max(values))} | {len(values)} | {row['load']:.1f} | {row['date']}, {row['version']} |")
    out += ["", "## What was run", "", "`OURS` is `target/release/luthier` with `--json --threads 2`; medians are over pairs, each pair one run of both sides.", ""]
    names = {o.model: "MODEL", o.data: "DATA", o.gguf: "Q4_FILE", o.gguf8: "Q8_FILE"}
    for name, (ours, theirs, _) in table.items():
        text = [c.format(ours="OURS", python="python", bench="bench", init="INIT") for c in (ours, theirs) if c]
        for path, short in names.items():
            text = [t.replace(str(path), short) for t in text]
        out.append(f"- {name}: " + " against ".join(f"`{' '.join(t.split())}`" for t in text))
    out += ["", "## Absolute figures", "", "Medians over the pairs; on a shared machine only the ratios above mean something.", "",
            "| run | ours, tokens/s | theirs | ours, MB | theirs |", "|---|---|---|---|---|"]
    for name in table:
        pairs = state["rows"].get(name, {"pairs": []})["pairs"]
        def middle(i, key):
            values = [p[i][key] for p in pairs if p[i] and p[i].get(key) is not None]
            return f"{statistics.median(values):.0f}" if values else ""
        if pairs:
            out.append(f"| {name} | {middle(0, 'tokens_per_s')} | {middle(1, 'tokens_per_s')} | {middle(0, 'peak_rss_mb')} | {middle(1, 'peak_rss_mb')} |")
    profile = HERE / "performance-profile.md"
    if profile.exists():
        out += ["", profile.read_text().rstrip()]
    (ROOT / "docs/performance.md").write_text("\n".join(out) + "\n")


p = argparse.ArgumentParser()
p.add_argument("do", choices=["run", "write"])
p.add_argument("--model", default="MODEL", help="Hugging Face folder of SmolLM2-135M")
p.add_argument("--gguf", default="Q4_FILE", help="the same as a GGUF file in Q4")
p.add_argument("--gguf8", default="Q8_FILE", help="the same in Q8_0")
p.add_argument("--data", default="DATA", help="rows with question and answer")
p.add_argument("--rows", help="ids, with commas between")
p.add_argument("--again", action="store_true", help="measure the named rows afresh")
p.add_argument("--pairs", type=int, default=5)
p.add_argument("--minutes", type=float, default=1e9, help="start no pair after this long")
p.add_argument("--tuned", default="", help="further options of the tuned yardstick: --compile")
p.add_argument("--ours", default=str(ROOT / "target/release/luthier"))
p.add_argument("--python", default=sys.executable)
p.add_argument("--state", type=Path, default=ROOT / "target/performance.json")
p.add_argument("--init", default=str(Path(tempfile.gettempdir()) / "luthier-init"), help="folder for the yardstick's start")
o = p.parse_args()
(run if o.do == "run" else write)(o)
