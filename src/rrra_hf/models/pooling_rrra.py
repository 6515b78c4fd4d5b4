"""Pooling: from the vectors of a text's tokens to one embedding."""

from __future__ import annotations

import torch
from torch import Tensor

POOLING_MODES = ("mean", "cls", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")


def pooling_modes(pooling: object) -> tuple[str, ...]:
    """Return the modes of a pooling, which is one of `POOLING_MODES` or a list of several.

    Raises:
        ValueError: If it isn't.

    Example:
        >>> pooling_modes("mean"), pooling_modes(["cls", "mean"])
        (('mean',), ('cls', 'mean'))
    """
    modes = tuple(pooling) if isinstance(pooling, list | tuple) else (pooling,)
    if not modes or any(mode not in POOLING_MODES for mode in modes):
        raise ValueError(
            f"pooling must be one of {', '.join(POOLING_MODES)}, or a list of them, got {pooling!r:.80}."
        )
    return modes


def pool_tokens(hidden: Tensor, attention_mask: Tensor, pooling: str | list[str]) -> Tensor:
    """Pool token vectors into one vector per text, with padding on either side.

    Args:
        hidden: Token vectors, `(batch, length, dim)`.
        attention_mask: 1 for tokens, 0 for padding, `(batch, length)`.
        pooling: `"mean"`, `"cls"` (the first token), `"lasttoken"`, `"max"`, `"mean_sqrt_len_tokens"` (the
            sum divided by the square root of the number of tokens), `"weightedmean"` (the n-th token counts
            n times), or a list of several, whose vectors are concatenated.

    Returns:
        Embeddings, `(batch, dim)` or `(batch, dim * number of modes)`.

    Example:
        >>> pool_tokens(torch.tensor([[[9.0], [2.0], [4.0]]]), torch.tensor([[0, 1, 1]]), ["mean", "max"])
        tensor([[3., 4.]])
    """
    return torch.cat([_pool(hidden, attention_mask, mode) for mode in pooling_modes(pooling)], dim=-1)


def _pool(hidden: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    if mode == "max":
        padding = attention_mask.unsqueeze(-1) == 0
        return hidden.masked_fill(padding, float("-inf")).amax(1)
    if mode in ("cls", "lasttoken"):
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        # Numbers that rise pick the last token, numbers that fall the first.
        order = positions + 1 if mode == "lasttoken" else hidden.shape[1] - positions
        index = (attention_mask.to(order.dtype) * order).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), index]
    wide = torch.promote_types(hidden.dtype, torch.float32)
    weights = attention_mask
    if mode == "weightedmean":
        weights = attention_mask.cumsum(1) * attention_mask
    weights = weights.unsqueeze(-1).to(wide if mode == "weightedmean" else hidden.dtype)
    total, count = (hidden * weights).sum(1, dtype=wide), weights.sum(1, dtype=wide).clamp(min=1e-9)
    return (total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)).to(hidden.dtype)
