"""Pooling: from the vectors of a text's tokens to one embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_tokens(hidden: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """Pool token vectors into one vector per text, with padding on either side.

    Args:
        hidden: Token vectors, `(batch, length, dim)`.
        attention_mask: 1 for tokens, 0 for padding, `(batch, length)`.
        mode: `"mean"`, `"cls"` (the first token) or `"lasttoken"`.

    Returns:
        Embeddings, `(batch, dim)`.

    Example:
        >>> pool_tokens(torch.tensor([[[9.0], [2.0], [4.0]]]), torch.tensor([[0, 1, 1]]), "mean")
        tensor([[3.]])
    """
    if mode == "mean":
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        total = (hidden * weights).sum(1, dtype=wide)
        return (total / weights.sum(1, dtype=wide).clamp(min=1e-9)).to(hidden.dtype)
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    # Numbers that rise pick the last token, numbers that fall the first.
    order = positions + 1 if mode == "lasttoken" else hidden.shape[1] - positions
    index = (attention_mask.to(order.dtype) * order).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]
