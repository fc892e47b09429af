"""Goldens of VeRA: PEFT's, with the shared factors saved. See `golden/peft_case.py` for what is written.

PEFT shares one pair of factors among layers of different widths; the second case has two.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peft
from peft_case import case

vera = lambda **options: peft.VeraConfig(task_type="CAUSAL_LM", **options)
case(__file__, "default", vera(r=6, target_modules=["q_proj", "v_proj"]))
case(__file__, "bias", vera(r=5, d_initial=0.3, target_modules=["k_proj", "up_proj", "down_proj"]), base="bias")
