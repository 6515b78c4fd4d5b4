"""Weights of hard negatives: checked, and as log-weights on the logits."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_weights(labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the weights in single precision.

    Args:
        labels: Weights of each query's own negatives, in their order.
        shape: What they must have, `(batch, num_negatives)`.

    Raises:
        ValueError: If they have another shape, or one is negative or not finite.
    """
    if labels.shape != shape:
        raise ValueError(
            f"labels must hold the weights of the negatives, (batch, num_negatives) = {shape}, "
            f"got shape {tuple(labels.shape)}."
        )
    bad = ~(torch.isfinite(labels) & (labels >= 0))
    if bad.any():
        raise ValueError(
            f"The weights of the negatives must be finite and at least 0, got {labels[bad][0].item()} "
            f"(and {int(bad.sum()) - 1} more such)."
        )
    return labels.float()


def weighted_logits(logits: Tensor, weights: Tensor, own: Tensor) -> Tensor:
    """Return the logits with the log-weights of each query's own negatives added.

    Args:
        logits: `(rows, (1 + n) * length)`, documents column by column with the positives first.
        weights: `(rows, n)`.
        own: Where the rows' own documents are in a column, `(rows,)`.
    """
    n = weights.shape[1]
    length = logits.shape[1] // (1 + n)
    # log(0) is kept out of the graph: its gradient would be NaN were the weights learnt.
    log_weights = torch.where(weights > 0, weights, 1.0).log()
    log_weights = torch.where(weights > 0, log_weights, -torch.inf)
    places = own[:, None] + torch.arange(1, n + 1, device=own.device) * length
    return logits + torch.zeros_like(logits).scatter(1, places, log_weights.to(logits))
