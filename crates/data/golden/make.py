"""Makes the goldens of the data crate: two small trained tokenizers with reference ids, and templates with what
transformers renders from them. Run: python make.py  (tokenizers, transformers, jinja2 as named in each file's `made_with`)
"""

import json
import pathlib

import jinja2
import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
MADE_WITH = {m.__name__: m.__version__ for m in (tokenizers, transformers, jinja2)}

CORPUS = [
    "The luthier carves the top plate from spruce and the back from maple.",
    "A string at rest says nothing; a string in motion says what the wood allows.",
    "She planes the plate to three millimetres, taps it, listens, and planes again.",
    "In 1715 a violin took 200 hours; in 2024 it still takes 180 to 220 hours.",
    "def tune(strings):\n    for s in strings:\n        s.pitch += 0.5\n    return strings\n",
    "What is 48 + 24? 48 + 24 = 72. What is 72 / 2? 72 / 2 = 36.",
    "It's what they've said: we'll see, I'd wait, you're right, don't.",
    "琴匠用云杉木做面板,用枫木做背板。弦不动,就没有声音。",
    "Der Geigenbauer hobelt die Decke, klopft, hört und hobelt wieder.",
    "Скрипичный мастер строгает деку и слушает.",
] * 3

TEXTS = [
    "",
    " ",
    "a",
    "The luthier carves the top plate.",
    "  two spaces,   three, and a tab\tand\n\na blank line  \n",
    "It's 2024, they'VE planed 1234567 plates; I'll see.",
    "琴匠用云杉木做面板。",
    "naïve café, Geigenbauer hört; Скрипичный мастер",
    "emoji 🎻🎶 and a family 👨‍👩‍👧",
    "cafe\u0301 with a combining accent",
    "x = [1, 2, 3]\nfor i in x:\n    print(i + 0.5)\r\n",
    "...!!! ($%&) <tag/> a_b-c",
    "camelCaseWords and ALLCAPS",
    "spaces before digits:  2/5,    17",
    "\u00a0no-break\u2003em\u200bzero",
]


def gpt2_bytes(pre):
    """A byte-level BPE with 580 tokens."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=580,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    t.train_from_iterator(CORPUS, trainer)
    return t


SMOLLM = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
)


def split_bytes(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def pre_variants():
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2 import tokenization_qwen2 as qwen2
    import inspect

    llama3 = inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default
    return {
        "smollm": (SMOLLM, None, False),
        "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), None, False),
        "llama-bpe": (split_bytes(llama3), None, True),
        "qwen2": (split_bytes(qwen2.PRETOKENIZE_REGEX), normalizers.NFC(), False),
    }


def make_bytes():
    t = gpt2_bytes(SMOLLM)
    tree = json.loads(t.to_str())
    ids = {}
    for name, (pre, normalizer, ignores_merges) in pre_variants().items():
        tree_ = json.loads(t.to_str())
        tree_["model"]["ignore_merges"] = ignores_merges
        v = Tokenizer.from_str(json.dumps(tree_))
        v.pre_tokenizer = pre
        if normalizer is not None:
            v.normalizer = normalizer
        ids[name] = [v.encode(x, add_special_tokens=False).ids for x in TEXTS]
    chat = "<|im_start|>user\nHi<|im_end|>\n"
    (HERE / "bytes.tokenizer.json").write_text(json.dumps(tree, ensure_ascii=False))
    golden = {
        "made_with": MADE_WITH,
        "texts": TEXTS,
        "ids": ids,
        "chat": chat,
        "chat_ids": t.encode(chat, add_special_tokens=False).ids,
    }
    (HERE / "bytes.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")))


def make_pieces():
    """A SentencePiece-like BPE: spaces as U+2581, bytes for unknown characters, scores by rank."""
    space = "\u2581"
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    t.pre_tokenizer = pre_tokenizers.Split(Regex(space + "?[^" + space + "]+|" + space + "+"), behavior="isolated")
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    # The Chinese and Cyrillic lines are left out: their characters must fall back to bytes.
    trainer = trainers.BpeTrainer(vocab_size=620, special_tokens=special, show_progress=False)
    t.train_from_iterator([x for x in CORPUS if x.isascii()], trainer)
    vocab = t.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    merged = json.loads(t.to_str())["model"]["merges"]
    rank = {"".join(pair): i for i, pair in reversed(list(enumerate(merged)))}
    scores = [0.0 if x in special else float(-1 - rank[x]) if x in rank else -1e6 for x in tokens]
    types = [2 if x == "<unk>" else 3 if x in ("<s>", "</s>") else 6 if x in special else 1 for x in tokens]

    # The reference: transformers' own conversion from a scored vocabulary.
    from transformers.convert_slow_tokenizer import generate_merges

    vocab_scores = {x: s for x, s, k in zip(tokens, scores, types) if k == 1}
    merges = generate_merges(vocab, vocab_scores)
    merges = [m for m in merges if m[0] + m[1] in vocab_scores]
    r = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    r.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    r.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    r.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    r.add_special_tokens(["<unk>", "<s>", "</s>"])
    (HERE / "pieces.tokenizer.json").write_text(json.dumps(json.loads(r.to_str()), ensure_ascii=False))
    golden = {
        "made_with": MADE_WITH,
        "texts": TEXTS,
        "ids": [r.encode(x, add_special_tokens=False).ids for x in TEXTS],
        "decoded": [r.decode(r.encode(x, add_special_tokens=False).ids) for x in TEXTS],
        "tokens": tokens,
        "scores": scores,
        "types": types,
    }
    (HERE / "pieces.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")))


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is <1> & 'two'?"},
    {"role": "assistant", "content": " Three. "},
    {"role": "user", "content": "琴?"},
    {"role": "assistant", "content": "Violin"},
]
TOOLS = [{"type": "function", "function": {"name": "tune", "parameters": {"hz": [440, 1.5, None, True], "a": {}, "b": []}}}]

TEMPLATES = {
    "chatml with a default system turn": """{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nHelp.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "instructions in brackets, system folded in": """{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for m in turns %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' ~ (system ~ '\\n\\n' if system is defined and loop.first else '') ~ m.content.strip() ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' + m['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "tools, namespace, reverse, macros": """{%- macro call(c) -%}
<call>{{ c | tojson }}</call>
{%- endmacro %}
{% set ns = namespace(last=-1, n=0) %}
{% for m in messages[::-1] %}
    {% if m.role == 'user' and ns.last < 0 %}
        {% set ns.last = messages | length - 1 - loop.index0 %}
    {% endif %}
{% endfor %}
{% if tools %}
# Tools
{% for t in tools %}
{{ t | tojson }}
{{ t.function | tojson(indent=4) }}
{{ call(t) }}
{% endfor %}
{% endif %}
{% for m in messages %}
    {% set text = m.content if m.content is string else '' %}
{{ m.role | upper }}{{ '*' if loop.index0 == ns.last }}: {{ text.split(' ')[-1] }} {{ text.startswith('W') }} {{ text.lstrip() | length }}
    {% if m.role in ['user', 'tool'] and not loop.last %}{% continue %}{% endif %}
    {%- for k, v in m.items() if k != 'role' %} {{ k }}={{ v | replace('e', 'E') }}{% endfor %}

{% endfor %}
{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ true }} {{ none }} {{ missing }} {{ 1.0 }}
{% if add_generation_prompt %}
GO
{% endif %}""",
    "generation tags": """{% for m in messages %}
{% if m.role == 'assistant' %}
A: {% generation %}
{{ m.content }}{{ eos_token }}
{% endgeneration %}
{% else %}
{{ m.role }}: {{ m.content }}
{% endif %}
{% endfor %}""",
}


def make_templates():
    cases = []
    for name, template in TEMPLATES.items():
        compiled = chat_template_utils._compile_jinja_template(template)
        for turns, tools, prompts in [(TURNS, None, False), (TURNS[1:], TOOLS, False), (TURNS[:2], TOOLS, True)]:
            context = dict(messages=turns, tools=tools, add_generation_prompt=prompts, bos_token="<s>", eos_token="</s>")
            case = {"name": name, "template": template, "context": context}
            if "generation %}" in template:
                text, spans = chat_template_utils._render_with_assistant_indices(
                    compiled, turns, tools, None, prompts, bos_token="<s>", eos_token="</s>"
                )
                case["spans"] = [text[a:b] for a, b in spans]
            else:
                text = compiled.render(**context)
            case["text"] = text
            cases.append(case)
    (HERE / "templates.golden.json").write_text(
        json.dumps({"made_with": MADE_WITH, "cases": cases}, ensure_ascii=False, separators=(",", ":"))
    )


def make_glass():
    """The tokenizer of the embedded model."""
    t = transformers.PreTrainedTokenizerFast.from_pretrained(HERE.parents[2] / "assets" / "glass-en")
    golden = {"made_with": MADE_WITH, "texts": TEXTS, "ids": [t(x, add_special_tokens=False).input_ids for x in TEXTS]}
    (HERE / "glass.golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")))


make_glass()
make_bytes()
make_pieces()
make_templates()
