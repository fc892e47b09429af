"""Goldens of the mistral family: a window of 5 that is shorter than the samples, and none."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch
from transformers import MistralConfig
import tiny

ROPE = {"rope_type": "default", "rope_theta": 1000000.0}
VARIANTS = {
    "window": (MistralConfig(**tiny.SIZES, sliding_window=5, rope_parameters=ROPE), {"dtype": torch.bfloat16}),
    "no-window": (MistralConfig(**tiny.SIZES, sliding_window=None, rope_parameters=ROPE), {"dtype": torch.bfloat16}),
}
tiny.main(VARIANTS, __file__)
