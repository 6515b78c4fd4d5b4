"""Weights of hard negatives: checked, and as logarithms that are added to logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.adapter_rrra import RetrieverAdapter


def check_weights(labels: Tensor, shape: tuple[int, int]) -> None:
    """Raise a ValueError unless labels are weights of each query's own negatives, in their order.

    Args:
        labels: The weights.
        shape: The shape that they must have, `(batch, num_negatives)`.

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
            f"The adapter reads embeddings of dimension {dim}, got {queries.shape[-1]}: weights='adapter' "
            "and adapter_weight don't work with truncated embeddings, as in MatryoshkaLoss."
        )
    dtype = next(adapter.parameters()).dtype
    with torch.autocast(queries.device.type, enabled=False):
        return adapter(queries.to(dtype), documents.to(dtype))
