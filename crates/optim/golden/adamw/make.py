"""Golden of AdamW: torch.optim.AdamW, decoupled decay, bias-corrected (Loshchilov 2019, algorithm 2)."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch, trees

S = dict(lr=1e-2, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8)
trees.run(__file__, lambda p: torch.optim.AdamW(p, lr=S["lr"], betas=(S["beta1"], S["beta2"]), eps=S["eps"],
                                                weight_decay=S["weight_decay"], foreach=False), **S)
