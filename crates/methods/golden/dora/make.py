"""Goldens of DoRA: PEFT's `use_dora`. See `golden/peft_case.py` for what is written."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import peft
from peft_case import case

dora = lambda **options: peft.LoraConfig(task_type="CAUSAL_LM", use_dora=True, **options)
case(__file__, "default", dora(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
case(__file__, "bias", dora(r=2, lora_alpha=3, use_rslora=True, target_modules=["k_proj", "v_proj"]), base="bias")
