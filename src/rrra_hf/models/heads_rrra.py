"""The heads of an adapter: small networks that read the features of the candidates of a query."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """A linear layer over standardised features, plus a small network that compares the candidates.

    The last layers start at zero, so that a head that isn't fitted gives 0 for every candidate.

    Args:
        inputs: Number of features.
        units: Number of hidden units.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.linear = nn.Linear(inputs, 1)
        self.hidden = nn.Linear(3 * inputs + 1, units)
        self.output = nn.Linear(units, 1, bias=False)
        for layer in (self.linear, self.output):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Set mean and standard deviation to those of the given features, `(..., inputs)`."""
        rows = features.flatten(0, -2)
        self.mean.copy_(rows.mean(0))
        self.deviation.copy_(rows.std(0, unbiased=False).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Read the features of each query's candidates: `(n, k, inputs)` to `(n, k)`."""
        x = (features - self.mean) / self.deviation
        hidden = torch.relu(self.hidden(in_context(x)))
        return (self.linear(x) + self.output(hidden)).squeeze(-1)


def in_context(x: Tensor) -> Tensor:
    """Return the features of each candidate and how they compare to those of the query's other candidates.

    Args:
        x: Features, `(n, k, inputs)`. The first is the score that the candidates were retrieved by.

    Returns:
        For each candidate its features, their differences from the maximum and from the mean of the other
        candidates, and the share of the candidates with a higher first feature, `(n, k, 3 * inputs + 1)`.

    Example:
        >>> in_context(torch.tensor([[[3.0], [1.0], [2.0]]]))[0, 0].tolist()
        [3.0, 1.0, 1.5, 0.0]
    """
    k = x.shape[-2]
    if k < 2:
        zeros = torch.zeros_like(x)
        return torch.cat([x, zeros, zeros, zeros[..., :1]], dim=-1)
    two = x.topk(2, dim=-2)
    first = torch.arange(k, device=x.device)[:, None] == two.indices[..., :1, :]
    greatest = torch.where(first, two.values[..., 1:, :], two.values[..., :1, :])
    mean = (x.sum(-2, keepdim=True) - x) / (k - 1)
    score = x[..., 0]
    above = (score[..., None, :] > score[..., :, None]).to(x.dtype).mean(-1, keepdim=True)
    return torch.cat([x, x - greatest, x - mean, above], dim=-1)
