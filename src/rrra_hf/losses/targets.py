"""What the probability of relevance does in the loss: which document is a negative, and which a target."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TARGETS = ("weights", "drop", "soft", "relabel", "distill")


class RowTargets(NamedTuple):
    """The part that each row's own documents have in its loss.

    Args:
        log_weights: Added to the logits of the hard negatives, `(rows, n)`.
        shares: Shares of the target, of the positive and the hard negatives, `(rows, 1 + n)`, before they are
            scaled to a sum of 1.
    """

    log_weights: Tensor
    shares: Tensor


def weighted(log_weights: Tensor) -> RowTargets:
    """Return targets that are the positives alone, and negatives that have weights.

    Args:
        log_weights: Logarithms of the weights, `(rows, n)`.
    """
    return RowTargets(log_weights, _beside_positive(torch.zeros_like(log_weights)))


def targets_of_probability(
    targets: str,
    log_irrelevant: Tensor,
    gamma: float = 1.0,
    threshold: float = 0.5,
    suspects: Tensor | None = None,
) -> RowTargets:
    """Return the targets that follow from the probabilities of the hard negatives.

    Args:
        targets: `"weights"`, `"drop"`, `"soft"` or `"relabel"`, as in `RRRALoss`.
        log_irrelevant: Logarithms of `1 - p`, `(rows, n)`.
        gamma: Exponent of the weights.
        threshold: Negatives with a greater probability are suspects, which are dropped or relabelled.
        suspects: Further suspects, which are dropped, `(rows, n)` bool.

    Example:
        >>> half = torch.tensor([[0.5]]).log()
        >>> targets_of_probability("soft", half).shares.tolist()
        [[1.0, 0.5]]
        >>> targets_of_probability("drop", half, threshold=0.4).log_weights.tolist()
        [[-inf]]
    """
    zeros = torch.zeros_like(log_irrelevant)
    if targets == "weights":
        # 0 * -inf would be NaN.
        return weighted(gamma * log_irrelevant if gamma else zeros)
    probability = -log_irrelevant.expm1()
    probable = probability > threshold
    dropped = probable if suspects is None else probable | suspects
    if targets == "drop":
        return weighted(zeros.masked_fill(dropped, -torch.inf))
    if targets == "soft":
        return RowTargets(zeros, _beside_positive(probability))
    log_weights = zeros.masked_fill(dropped & ~probable, -torch.inf)
    return RowTargets(log_weights, _beside_positive(probability.where(probable, 0.0)))


def targets_of_teacher(scores: Tensor, temperature: float = 1.0) -> RowTargets:
    """Return the softmax of a teacher's scores as targets. The labelled document is not below the others.

    Args:
        scores: Scores of the positive and the hard negatives, `(rows, 1 + n)`; -inf for those that are no
            targets.
        temperature: The scores are divided by it.

    Example:
        >>> targets_of_teacher(torch.tensor([[0.0, 2.0, -torch.inf]])).shares.tolist()
        [[0.5, 0.5, 0.0]]
    """
    positive = scores.max(dim=1, keepdim=True).values
    # A row without a finite score has its positive alone.
    positive = positive.masked_fill(positive == -torch.inf, 0.0)
    shares = torch.cat([positive, scores[:, 1:]], dim=1).div(temperature).softmax(dim=1)
    return RowTargets(torch.zeros_like(shares[:, 1:]), shares)


def _beside_positive(shares: Tensor) -> Tensor:
    """Return the shares of hard negatives beside that of the positive, which is 1."""
    return torch.cat([shares.new_ones(len(shares), 1), shares], dim=1)
