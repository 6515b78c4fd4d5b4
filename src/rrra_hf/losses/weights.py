"""What a dataset or an adapter says of hard negatives: checked, and as logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.adapter_rrra import RetrieverAdapter


def check_labels(labels: Tensor, targets: str, negatives: tuple[int, int]) -> None:
    """Raise a ValueError unless labels are what the targets need of each query's own documents.

    Args:
        labels: Weights or probabilities of the negatives, or scores of positive and negatives.
        targets: As in `RRRALoss`.
        negatives: Shape of the negatives, `(batch, n)`.

    Raises:
        ValueError: If they have another shape, or a value isn't legal.
    """
    batch, count = negatives
    finite = torch.isfinite(labels)
    if targets == "distill":
        what, shape, legal, rule = "scores of positive and negatives", (batch, 1 + count), finite, "finite"
    elif targets == "weights":
        what, shape, legal, rule = "weights of the negatives", negatives, labels >= 0, "finite and at least 0"
    else:
        what, shape, legal, rule = (
            "probabilities of the negatives",
            negatives,
            (labels >= 0) & (labels <= 1),
            "in [0, 1]",
        )
    if labels.shape != shape:
        raise ValueError(f"labels must hold the {what}, {shape}, got shape {tuple(labels.shape)}.")
    bad = ~(finite & legal)
    if bad.any():
        raise ValueError(
            f"The {what} must be {rule}, got {labels[bad][0].item()} (and {int(bad.sum()) - 1} more such)."
        )


def log_weights(weights: Tensor) -> Tensor:
    """Return the logarithms of the weights, -inf for 0, with finite gradients everywhere."""
    # log(0) would have a gradient of NaN, should the weights be learnt.
    logs = torch.where(weights > 0, weights.float(), 1.0).log()
    return torch.where(weights > 0, logs, -torch.inf)


def adapter_log_odds(adapter: RetrieverAdapter, queries: Tensor, documents: Tensor) -> Tensor:
    """Return the adapter's log-odds of relevance of pairs, computed in the adapter's own precision.

    Args:
        adapter: An adapter that reads pairs.
        queries: `(..., dim)`.
        documents: `(..., dim)`, broadcast against the queries.

    Returns:
        `(...)`.

    Raises:
        ValueError: If the embeddings don't have the adapter's dimension.
    """
    dim = adapter.config.embedding_dim
    if queries.shape[-1] != dim:
        raise ValueError(
            f"The adapter reads embeddings of dimension {dim}, got {queries.shape[-1]}: source='adapter' "
            "and adapter_weight don't work with truncated embeddings, as in MatryoshkaLoss."
        )
    dtype = next(adapter.parameters()).dtype
    with torch.autocast(queries.device.type, enabled=False):
        return adapter(queries.to(dtype), documents.to(dtype))
