"""Writes metrics.json: metrics by scikit-learn, scipy and seqeval on small drawn cases. Run: python metrics.py"""

import json
import pathlib
import warnings

import numpy as np
import scipy
import scipy.stats
import seqeval.metrics
import sklearn
import sklearn.metrics as sk

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
RNG = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def calibration(gold, logits, bins=15):
    """Guo 2017, equation 3: sum over bins of share times |accuracy - confidence|, bins (lower, upper] of equal width."""
    p = softmax(logits)
    confidence, right = p.max(1), p.argmax(1) == gold
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        held = (confidence > low) & (confidence <= high)
        if held.any():
            total += held.mean() * abs(right[held].mean() - confidence[held].mean())
    return total


def classes(labels, rows, logits=None, gold=None):
    gold = RNG.integers(0, labels, rows) if gold is None else np.array(gold)
    logits = RNG.normal(size=(rows, labels)) * 2 + 1.5 * np.eye(labels)[gold] if logits is None else np.array(logits)
    logits = np.round(logits, 4)
    predicted = logits.argmax(1)
    each = sk.precision_recall_fscore_support(gold, predicted, labels=range(labels), zero_division=0)
    out = {
        "gold": gold.tolist(),
        "logits": logits.tolist(),
        "accuracy": sk.accuracy_score(gold, predicted),
        "macro": sk.f1_score(gold, predicted, labels=range(labels), average="macro", zero_division=0),
        "micro": sk.f1_score(gold, predicted, labels=range(labels), average="micro", zero_division=0),
        "matthews": sk.matthews_corrcoef(gold, predicted),
        "each": np.array(each).T.tolist(),
        "confusion": sk.confusion_matrix(gold, predicted, labels=range(labels)).tolist(),
        "calibration": calibration(gold, logits),
    }
    if labels == 2:
        out["binary"] = sk.f1_score(gold, predicted, zero_division=0)
    return out


def many(labels, rows):
    gold = RNG.random((rows, labels)) < 0.4
    predicted = gold ^ (RNG.random((rows, labels)) < 0.25)
    each = sk.precision_recall_fscore_support(gold, predicted, zero_division=0)
    return {
        "gold": gold.astype(int).tolist(),
        "predicted": predicted.astype(int).tolist(),
        "micro": sk.f1_score(gold, predicted, average="micro", zero_division=0),
        "macro": sk.f1_score(gold, predicted, average="macro", zero_division=0),
        "exact": sk.accuracy_score(gold, predicted),
        "each": np.array(each).T.tolist(),
    }


def numbers(rows, ties):
    gold = np.round(RNG.normal(size=rows), 0 if ties else 6)
    predicted = np.round(gold * 0.6 + RNG.normal(size=rows) * 0.7, 1 if ties else 6)
    return {
        "gold": gold.tolist(),
        "predicted": predicted.tolist(),
        "pearson": scipy.stats.pearsonr(gold, predicted)[0],
        "spearman": scipy.stats.spearmanr(gold, predicted)[0],
        "squared": sk.mean_squared_error(gold, predicted),
    }


def tags(names, gold, predicted):
    return {
        "gold": gold,
        "predicted": predicted,
        "f1": seqeval.metrics.f1_score(gold, predicted, zero_division=0),
        "precision": seqeval.metrics.precision_score(gold, predicted, zero_division=0),
        "recall": seqeval.metrics.recall_score(gold, predicted, zero_division=0),
        "accuracy": seqeval.metrics.accuracy_score(gold, predicted),
        "each": {
            k: [v["precision"], v["recall"], v["f1-score"], v["support"]]
            for k, v in seqeval.metrics.classification_report(gold, predicted, output_dict=True, zero_division=0).items()
            if "avg" not in k
        },
    }


NAMES = ["O", "B-a", "I-a", "B-b", "I-b"]
WIDE = NAMES + ["E-a", "S-b", "I-a-x", "B-a-x"]


def drawn(names, rows):
    gold = [[names[i] for i in RNG.integers(0, len(names), RNG.integers(1, 12))] for _ in range(rows)]
    kept = lambda t: t if RNG.random() < 0.7 else names[RNG.integers(0, len(names))]
    return tags(names, gold, [[kept(t) for t in row] for row in gold])


out = {
    "made_with": {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__, "numpy": np.__version__,
                  "seqeval": "1.2.2"},
    "classes": [
        classes(2, 40), classes(3, 50), classes(5, 30),
        # Always one answer: Matthews is 0, a class without predictions has precision 0.
        classes(2, 4, [[1.0, 0.0]] * 4, [0, 1, 1, 0]),
        # A class that never stands in the data.
        classes(3, 4, [[1, 0, 0], [0, 1, 0], [0, 2, 0], [3, 0, 0.5]], [0, 1, 0, 1]),
        classes(2, 3, [[2.0, 0.0], [0, 1.0], [0, 3.0]], [0, 1, 1]),
    ],
    "many": [many(4, 25), many(2, 6)],
    "numbers": [numbers(30, False), numbers(30, True)],
    "tags": [
        drawn(NAMES, 20), drawn(WIDE, 20),
        tags(NAMES, [["O", "O"]], [["O", "O"]]),
        tags(NAMES, [["I-a", "I-a", "O", "I-b"]], [["B-a", "I-a", "O", "B-b"]]),
        tags(NAMES, [["B-a", "I-b", "I-b"], ["I-a"]], [["B-a", "I-a", "I-b"], ["B-a"]]),
    ],
    "mcnemar": [
        {"only_a": a, "only_b": b, "p": scipy.stats.binomtest(min(a, b), a + b, 0.5).pvalue if a + b else 1.0}
        for a, b in [(0, 0), (1, 0), (3, 3), (10, 2), (40, 61), (300, 220), (5, 1500)]
    ],
}
(HERE / "metrics.json").write_text(json.dumps(out, default=float) + "\n")
