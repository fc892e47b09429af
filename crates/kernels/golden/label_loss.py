"""Writes label_loss.txt: PyTorch's losses over few outputs, for the test of `label_loss`.

One case is three lines: name with what the sum is divided by, the mean loss, the gradient of the mean to the logits.
Run with the torch named in the file's first line: python label_loss.py > label_loss.txt
"""
import torch
import torch.nn.functional as F

# The test knows these numbers too.
LOGITS = torch.tensor([0.3 * ((7 * i) % 11) - 1.2 for i in range(12)], dtype=torch.float64).reshape(4, 3)
CLASSES = torch.tensor([2, 0, 1, 2])
WEIGHTS = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)
LABELS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.float64)
VALUES = torch.tensor([0.5, -1.0, 2.0, 3.5], dtype=torch.float64)

print(f"# torch {torch.__version__}")


def case(name, divisor, logits, loss):
    z = logits.clone().requires_grad_()
    mean = loss(z)
    mean.backward()
    print(name, float(divisor))
    print(mean.item())
    print(*z.grad.flatten().tolist())


case("plain", 4, LOGITS, lambda z: F.cross_entropy(z, CLASSES))
case("smooth", 4, LOGITS, lambda z: F.cross_entropy(z, CLASSES, label_smoothing=0.1))
case("weight", WEIGHTS[CLASSES].sum(), LOGITS, lambda z: F.cross_entropy(z, CLASSES, weight=WEIGHTS))
case("both", WEIGHTS[CLASSES].sum(), LOGITS, lambda z: F.cross_entropy(z, CLASSES, weight=WEIGHTS, label_smoothing=0.2))
case("binary", 12, LOGITS, lambda z: F.binary_cross_entropy_with_logits(z, LABELS))
case("squared", 4, LOGITS[:, :1], lambda z: F.mse_loss(z.squeeze(1), VALUES))
