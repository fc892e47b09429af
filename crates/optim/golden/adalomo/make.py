"""Golden of AdaLomo: algorithm 1 of Lv 2023 (arXiv 2310.10195), written here for one tensor at a time.

Tensors that are no matrices keep their second moment whole; gradients are clipped by their common norm first.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch, trees

S = dict(lr=1e-2, weight_decay=0.1, exponent=-0.8, eps=1e-30, smallest=1e-3, threshold=1.0)


class AdaLomo(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["t"] = state.get("t", 0) + 1
                beta = 1 - state["t"] ** S["exponent"]
                square = p.grad**2 + S["eps"]
                remember = lambda name, new: state.__setitem__(name, beta * state.get(name, torch.zeros_like(new)) + (1 - beta) * new)
                if p.ndim == 2:
                    remember("rows", square.mean(1))
                    remember("columns", square.mean(0))
                    moment = torch.outer(state["rows"], state["columns"]) / state["rows"].mean()
                else:
                    remember("moment", square)
                    moment = state["moment"]
                update = p.grad / moment.sqrt()
                rms = lambda t: t.square().mean().sqrt()
                update = update / max(1.0, (rms(update) / S["threshold"]).item())
                rate = group["lr"] * max(S["smallest"], rms(p).item())
                p.mul_(1 - rate * S["weight_decay"])
                p.sub_(rate * update)


trees.run(__file__, lambda p: AdaLomo(p, dict(lr=S["lr"])), **S)
