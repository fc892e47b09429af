"""Goldens of the qwen3 family: norms on q and k, heads wider than d_model / heads."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch
from transformers import Qwen3Config
import tiny

ROPE = {"rope_type": "default", "rope_theta": 1000000.0}
VARIANTS = {
    "default": (Qwen3Config(**tiny.SIZES, head_dim=12, tie_word_embeddings=True, rope_parameters=ROPE),
                {"dtype": torch.bfloat16}),
    "untied": (Qwen3Config(**tiny.SIZES, head_dim=6, rope_parameters=ROPE), {"dtype": torch.bfloat16}),
}
tiny.main(VARIANTS, __file__)
