"""What a strategy of choosing negatives returns: chances and weights of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...losses import RRRALoss
from ..trial import Trial

Chances = tuple[np.ndarray, np.ndarray | None]
"""Chances of being drawn, `(n, depth)`, 0 for never; and weights `(n, depth)`, or None if all weigh 1."""


@dataclass(frozen=True)
class Strategy:
    """How negatives are chosen, and the loss that they are used with.

    Args:
        chances: From a trial to the chances and weights of its candidates; None for in-batch negatives only.
        loss: From the encoder and the scale of its cosines to the loss.
        weighted: Whether the loss takes weights.
    """

    chances: Callable[[Trial], Chances] | None
    loss: Callable[[Any, float], Any] = lambda model, scale: RRRALoss(model, scale=scale)
    weighted: bool = True
