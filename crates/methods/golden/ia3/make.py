"""Goldens of (IA)3: PEFT's. See `golden/peft_case.py` for what is written."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peft
from peft_case import case

ia3 = lambda **options: peft.IA3Config(task_type="CAUSAL_LM", **options)
case(__file__, "default", ia3(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]))
case(__file__, "bias", ia3(target_modules=["k_proj", "v_proj", "o_proj"], feedforward_modules=["o_proj"]), base="bias")
