#!/usr/bin/env python3
"""Runs two commands in turn and compares what they report: `interleave.py --pairs 5 --ours 'CMD' --theirs 'CMD'`.

Each prints one JSON object on its last line with `tokens_per_s` (or `ms`, a list) and `peak_rss_mb`. Machines are noisy: what
counts are the ratios within pairs and their median, not single times. Prints one JSON object.
"""
import argparse, json, shlex, statistics, subprocess

p = argparse.ArgumentParser()
p.add_argument("--pairs", type=int, default=5)
p.add_argument("--ours", required=True)
p.add_argument("--theirs", required=True)
a = p.parse_args()


def run(command):
    out = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
    report = json.loads(out.strip().splitlines()[-1])
    return statistics.median(report["ms"]), report["peak_rss_mb"]


pairs = [(run(a.ours), run(a.theirs)) for _ in range(a.pairs)]
speed = [theirs[0] / ours[0] for ours, theirs in pairs]
memory = [ours[1] / theirs[1] for ours, theirs in pairs]
print(json.dumps({
    "ours_ms": [o[0] for o, _ in pairs], "theirs_ms": [t[0] for _, t in pairs],
    "speed_ratio": round(statistics.median(speed), 2), "speed_spread": [round(min(speed), 2), round(max(speed), 2)],
    "ours_rss_mb": statistics.median(o[1] for o, _ in pairs), "theirs_rss_mb": statistics.median(t[1] for _, t in pairs),
    "memory_ratio": round(statistics.median(memory), 2),
}))
