"""Golden of the schedules: the factors that transformers' schedulers put on the rate, before each of the steps.

`<kind>.<warm-up>` [steps], where entry i is the factor of step i + 1 of 50. transformers counts from zero: with warm-up the
first step has the factor 0. A schedule that counts from one (so that no step is lost) equals this one shifted by a step
while it warms up, and says so where it differs.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import torch, transformers, trees

STEPS = 50
out = {}
for warmup in (0, 7):
    makers = {"constant": lambda o: transformers.get_constant_schedule_with_warmup(o, warmup),
              "linear": lambda o: transformers.get_linear_schedule_with_warmup(o, warmup, STEPS),
              "cosine": lambda o: transformers.get_cosine_schedule_with_warmup(o, warmup, STEPS)}
    for kind, make in makers.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(optimizer)
        factors = []
        for _ in range(STEPS):
            factors.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        out[f"{kind}.{warmup}"] = torch.tensor(factors, dtype=torch.float64)
trees.save(__file__, out, steps=STEPS, transformers=transformers.__version__)
