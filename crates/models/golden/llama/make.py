"""Goldens of the llama family: each rope kind, tied and untied, biases, one and several shards, three dtypes."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch
from transformers import LlamaConfig
import tiny


def llama(theta=10000.0, rope="default", tied=False, **more):
    scaling = {k: more.pop(k) for k in list(more) if k in ROPE_KEYS}
    return LlamaConfig(**tiny.SIZES | more, tie_word_embeddings=tied,
                       rope_parameters={"rope_type": rope, "rope_theta": theta, **scaling})


ROPE_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "attention_factor",
             "beta_fast", "beta_slow")
VARIANTS = {
    "default": (llama(), {}),
    "tied": (llama(tied=True, theta=100000.0), {"dtype": torch.float16}),
    "linear": (llama(rope="linear", factor=4.0), {"dtype": torch.bfloat16}),
    # A context of 64 puts the four frequencies of a head of 8 into all three bands.
    "llama3": (llama(rope="llama3", tied=True, theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                     original_max_position_embeddings=64, max_position_embeddings=512), {"dtype": torch.bfloat16}),
    "yarn": (llama(rope="yarn", factor=4.0, original_max_position_embeddings=128, max_position_embeddings=512),
             {"dtype": torch.bfloat16}),
    "yarn-set": (llama(rope="yarn", factor=8.0, original_max_position_embeddings=64, max_position_embeddings=512,
                       attention_factor=0.9, beta_fast=16.0, beta_slow=2.0), {"dtype": torch.bfloat16}),
    "bias": (llama(attention_bias=True, mlp_bias=True), {"dtype": torch.bfloat16}),
    "sharded": (llama(num_key_value_heads=6), {"dtype": torch.bfloat16, "shard_size": "20KB"}),
    "one-kv-head": (llama(num_key_value_heads=1, head_dim=4), {"dtype": torch.bfloat16}),
}
tiny.main(VARIANTS, __file__)
