"""Writes rope.txt: frequencies and tables of transformers' rotary embeddings, for the test of `rope`.

One case is five lines: name, inverse frequencies, attention factor, cosines and sines at POSITION (first half of a head).
Run with the transformers named in the file's first line: python rope.py > rope.txt
"""
import torch
import transformers
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITION = 1000
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)
CASES = {
    "default": dict(rope_type="default", rope_theta=10000.0),
    "theta": dict(rope_type="default", rope_theta=500000.0),
    "linear": dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
    "llama3": dict(
        rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=1024,
    ),
    "yarn": YARN,
    "yarn-mscale": YARN | dict(mscale=1.0, mscale_all_dim=0.5, beta_fast=16.0, beta_slow=2.0, truncate=False),
    "yarn-attention": YARN | dict(attention_factor=1.25),
}

print(f"# transformers {transformers.__version__}, torch {torch.__version__}, position {POSITION}")
for name, parameters in CASES.items():
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=4096, rope_parameters=dict(parameters)
    )
    rope = LlamaRotaryEmbedding(config)
    cos, sin = rope(torch.zeros(1), torch.tensor([[POSITION]]))
    half = cos.shape[-1] // 2
    print(name)
    print(*(f"{v:.9g}" for v in rope.inv_freq.tolist()))
    print(f"{rope.attention_scaling:.17g}")
    print(*(f"{v:.9g}" for v in cos[0, 0, :half].tolist()))
    print(*(f"{v:.9g}" for v in sin[0, 0, :half].tolist()))
