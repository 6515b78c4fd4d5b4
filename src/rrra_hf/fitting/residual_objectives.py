"""Objectives of the residual network: pure functions of logits, labels and embeddings.

Shapes: `n` queries with `k` candidates each. `mask` is true for the candidates that count. The query's other
known positives are masked by their id.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def listwise_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax cross-entropy of each query's positive against all its candidates.

    Args:
        logits: `(n, k)`.
        labels: 1 for the positive (one per query), 0 for the others, `(n, k)`.
        mask: `(n, k)`, true for the positive.

    Example:
        >>> one = torch.tensor([[True, True]])
        >>> round(listwise_loss(torch.zeros(1, 2), torch.tensor([[1, 0]]), one).item(), 4)
        0.6931
    """
    log_probabilities = logits.masked_fill(~mask, -torch.inf).log_softmax(dim=-1)
    return -log_probabilities[labels.bool()].mean()


def pointwise_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the binary cross-entropy, with the same total weight for positives and for the others.

    Args:
        logits: `(n, k)`.
        labels: 1 for positives, 0 for the others, `(n, k)`.
        mask: `(n, k)`.
    """
    positive, negative = labels.bool() & mask, ~labels.bool() & mask
    return (F.softplus(-logits[positive]).mean() + F.softplus(logits[negative]).mean()) / 2


def four_class_loss(class_logits: Tensor, labels: Tensor, retrieved: Tensor, mask: Tensor) -> Tensor:
    """Return the cross-entropy over the retriever's outcomes, with the same weight for each class.

    Labelled documents are true positives if the retriever found them and false negatives if it didn't; the
    others are false positives and true negatives. The equal weights are the paper's class ratio.

    Args:
        class_logits: Logits of TP, FN, FP, TN, `(n, k, 4)`.
        labels: 1 for labelled documents, `(n, k)`.
        retrieved: Whether the retriever ranks the document among its candidates, `(n, k)`.
        mask: `(n, k)`.

    Source:
        RRRA, arXiv 2508.11670, classification objective.
    """
    outcome = torch.where(labels.bool(), torch.where(retrieved, 0, 1), torch.where(retrieved, 2, 3))
    losses = F.cross_entropy(class_logits[mask], outcome[mask], reduction="none")
    weights = 1.0 / torch.bincount(outcome[mask], minlength=4)[outcome[mask]]
    return (losses * weights).sum() / weights.sum()


def segment_loss(adapted: Tensor, q: Tensor, c: Tensor) -> Tensor:
    """Return the mean squared distance of `a` from the segment between `c` and `q`.

    `min over alpha in [0, 1] of ||a - (alpha q + (1 - alpha) c)||^2`; the minimum is at the projection on
    the line, clamped to the segment.

    Args:
        adapted: Adapted document embeddings `a`, `(..., dim)`.
        q: Normalised query embeddings, broadcastable to the shape of `a`.
        c: Normalised document embeddings, broadcastable to the shape of `a`.

    Source:
        RRRA, arXiv 2508.11670, linear normalisation constraint.

    Example:
        >>> q, c = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> segment_loss(torch.tensor([0.5, 0.5]), q, c).item()
        0.0
    """
    direction = q - c
    alpha = ((adapted - c) * direction).sum(-1) / direction.square().sum(-1).clamp_min(1e-12)
    nearest = c + alpha.clamp(0.0, 1.0).unsqueeze(-1) * direction
    return (adapted - nearest).square().sum(-1).mean()
