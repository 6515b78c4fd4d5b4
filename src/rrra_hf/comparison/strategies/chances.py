"""What a strategy of choosing negatives returns: chances and weights of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...candidates import CandidatePool
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
        targets: What the probabilities of a pool do in the loss, as in `RRRALoss`; None for the loss above.
        judged: From a trial to the pool that the loss reads, if it has `targets`.
    """

    chances: Callable[[Trial], Chances] | None
    loss: Callable[[Any, float], Any] = lambda model, scale: RRRALoss(model, scale=scale)
    weighted: bool = True
    targets: str | None = None
    judged: Callable[[Trial], CandidatePool] | None = None

    @property
    def labels(self) -> str | None:
        """What the loss takes as labels, as in `Resampler`."""
        if self.judged is not None:
            return "rows"
        return "weights" if self.weighted else None

    def make_loss(self, model: Any, trial: Trial) -> Any:
        """Return the loss for a model."""
        scale = 1 / trial.arguments.fit.tau
        if self.judged is None or self.targets is None:
            return self.loss(model, scale)
        return RRRALoss(model, scale=scale, pool=self.judged(trial), targets=self.targets)
