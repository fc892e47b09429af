"""Golden of GaLore with AdamW: algorithms 1 and 2 of Zhao 2024 (arXiv 2403.03507), written here for one tensor at a time.

The matrix is projected, the others have plain Adam. A new basis every four steps; moments stay. Singular vectors by
torch's SVD, the largest element of each made positive. Epsilon is added as PyTorch's AdamW does.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch, trees

S = dict(lr=1e-2, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8, rank=2, every=4, scale=0.25)


class GaLore(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state, g = self.state[p], p.grad
                t = state["t"] = state.get("t", 0) + 1
                if p.ndim == 2:
                    assert p.shape[0] >= p.shape[1]  # projected from the right
                    if (t - 1) % S["every"] == 0:
                        v = torch.linalg.svd(g).Vh[: S["rank"]].T
                        largest = v.gather(0, v.abs().argmax(0, keepdim=True))
                        state["basis"] = v * largest.sign()
                    g = g @ state["basis"]
                state["m"] = S["beta1"] * state.get("m", 0) + (1 - S["beta1"]) * g
                state["v"] = S["beta2"] * state.get("v", 0) + (1 - S["beta2"]) * g**2
                u = (state["m"] / (1 - S["beta1"] ** t)) / ((state["v"] / (1 - S["beta2"] ** t)).sqrt() + S["eps"])
                if p.ndim == 2:
                    u = S["scale"] * u @ state["basis"].T
                p.sub_(group["lr"] * (u + S["weight_decay"] * p))


trees.run(__file__, lambda p: GaLore(p, dict(lr=S["lr"])), **S)
