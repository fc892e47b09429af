"""Writes encoders.json: folders without tokenizer.json, and what transformers reads with them: single texts, pairs, cuts
(longest first), words with the index of the word that each token belongs to. Run: python encoders.py
"""

import json
import pathlib
import tempfile

import tokenizers
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizerFast, RobertaTokenizerFast

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "",
    "The luthier carves the top plate.",
    "Unaffable! naïve CAFÉ, hört 琴匠",
    "a  b\tc\n3.14",
    "the [MASK] sings here",
]
PAIRS = [
    ["The luthier carves the top plate.", "The plate is carved."],
    ["plate", "The luthier carves the top plate and the back plate, and then the top plate."],
    ["", "plate"],
]
WORDS = [["The", "luthier", "unaffable", ",", "carves"], ["plate"], ["naïve", "CAFÉ", "琴匠"]]
VOCAB = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the lu ##thi ##er carve ##s top plate is ##d and back then un ##aff ##able ! na ##ive "
    "cafe , hort 琴 匠 a b c 3 . 14 sings here The CA ##F ##É hör ##t nai ##ve"
).split()


def cases(tokenizer):
    found = []
    for texts, limit in [([t], 64) for t in TEXTS] + [(p, 64) for p in PAIRS] + [(p, 12) for p in PAIRS] + [([TEXTS[1]], 5)]:
        out = tokenizer(*texts, truncation="longest_first", max_length=limit, return_token_type_ids=True)
        types = out["token_type_ids"] if any(out["token_type_ids"]) else []
        found.append({"texts": texts, "limit": limit, "ids": out["input_ids"], "types": types})
    for words in WORDS:
        out = tokenizer(words, is_split_into_words=True, truncation=True, max_length=64)
        found.append({"words": words, "limit": 64, "ids": out["input_ids"], "of": out.word_ids()})
    return found


CORPUS = [t for t in TEXTS + [p for pair in PAIRS for p in pair]] * 3
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS, vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(folder))
    vocab, merges = (folder / "vocab.json").read_text(), (folder / "merges.txt").read_text()
    bert = {
        name: {
            "files": {"vocab.txt": "\n".join(VOCAB) + "\n", "tokenizer_config.json": json.dumps(config)},
            "cases": cases(BertTokenizerFast(vocab=str(folder / "vocab.txt"), **config)),
        }
        for name, config in {
            "uncased": {},
            "cased": {"do_lower_case": False, "strip_accents": False},
        }.items()
    }
    made = RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    spaced = RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), add_prefix_space=True
    )
    texts = [c for c in cases(spaced) if "words" in c]
    plain = RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    WORDS = []
    roberta = {
        "files": {"vocab.json": vocab, "merges.txt": merges},
        # transformers refuses words without the space that it would put before each; here they get it.
        "cases": cases(plain) + texts,
    }

out = {
    "made_with": {m.__name__: m.__version__ for m in (tokenizers, transformers)},
    "folders": {**bert, "roberta": roberta},
}
(HERE / "encoders.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
