"""Golden of SGD with momentum: torch.optim.SGD, whose buffer is not scaled by the rate; decay is coupled (added to the gradient)."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch, trees

S = dict(lr=5e-2, momentum=0.9, weight_decay=0.0)
trees.run(__file__, lambda p: torch.optim.SGD(p, lr=S["lr"], momentum=S["momentum"], weight_decay=S["weight_decay"],
                                              foreach=False), **S)
