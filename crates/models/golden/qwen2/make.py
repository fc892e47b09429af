"""Goldens of the qwen2 family: biases on q, k and v; a window on the upper layers only."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch
from transformers import Qwen2Config
import tiny

ROPE = {"rope_type": "default", "rope_theta": 1000000.0}
VARIANTS = {
    "default": (Qwen2Config(**tiny.SIZES, tie_word_embeddings=True, rope_parameters=ROPE), {"dtype": torch.bfloat16}),
    "window": (Qwen2Config(**tiny.SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1,
                           rope_parameters=ROPE), {"dtype": torch.bfloat16}),
}
tiny.main(VARIANTS, __file__)
