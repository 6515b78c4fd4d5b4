"""The heads of an adapter: small networks that read the features of candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Features further than so many standard deviations from their mean count as so far: collections and encoders
# that didn't teach a head may lie anywhere.
FURTHEST = 5.0


class StandardizedLinear(nn.Module):
    """A linear layer over standardised features, which starts at zero. Heads add a network to it.

    Args:
        inputs: Number of features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.linear = nn.Linear(inputs, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def standardized(self, features: Tensor) -> Tensor:
        """Return the features in standard deviations from their mean, `(..., inputs)`."""
        return (features - self.mean) / self.deviation


class Head(StandardizedLinear):
    """A linear layer over features, plus a network of two hidden layers.

    The last layers start at zero, so that a head that isn't fitted gives 0 for every candidate.

    Args:
        inputs: Number of features.
        units: Number of units of each hidden layer.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs)
        self.first = nn.Linear(inputs, units)
        self.second = nn.Linear(units, units)
        self.output = nn.Linear(units, 1, bias=False)
        nn.init.zeros_(self.output.weight)

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Set mean and standard deviation to those of the given features, `(..., inputs)`."""
        rows = features.flatten(0, -2)
        self.mean.copy_(rows.mean(0))
        self.deviation.copy_(rows.std(0, unbiased=False).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Read the features of candidates: `(..., inputs)` to `(...)`."""
        x = self.standardized(features).clamp(-FURTHEST, FURTHEST)
        hidden = F.gelu(self.second(F.gelu(self.first(x))))
        return (self.linear(x) + self.output(hidden)).squeeze(-1)
