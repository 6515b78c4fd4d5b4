"""Which of a query's candidates become its negatives, by cosine and rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..evaluation.arrays import ranks
from ..evaluation.checks import check_count, check_margin

Strategy = Literal["top", "random"]


@dataclass(frozen=True)
class Choice:
    """A choice of negatives, as `mine_hard_negatives` describes it.

    Raises:
        ValueError: If a setting isn't legal.

    Example:
        >>> cosines = np.array([[0.9, 0.8, 0.4, 0.3]])
        >>> Choice(num_negatives=2, max_score=0.85).places(cosines, np.array([1.0]), cosines > 0).tolist()
        [[1, 2]]
    """

    num_negatives: int
    range_min: int = 0
    range_max: int | None = None
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampling_strategy: Strategy = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("num_negatives", self.num_negatives)
        if self.range_min < 0:
            raise ValueError(f"range_min must be at least 0, got {self.range_min}.")
        least = self.range_min + self.num_negatives
        if self.depth < least:
            raise ValueError(
                f"range_max must be at least range_min + num_negatives, {least}, got {self.range_max}."
            )
        for margin in (self.absolute_margin, self.relative_margin):
            if margin is not None:
                check_margin(margin)
        if self.sampling_strategy not in ("top", "random"):
            raise ValueError(f"sampling_strategy must be 'top' or 'random', got {self.sampling_strategy!r}.")

    @property
    def depth(self) -> int:
        """Number of candidates that are needed."""
        return self.range_min + self.num_negatives if self.range_max is None else self.range_max

    @property
    def has_margin(self) -> bool:
        """Whether the cosine of the positive counts."""
        return self.absolute_margin is not None or self.relative_margin is not None

    def places(self, cosines: np.ndarray, positive: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Return the places of the chosen candidates of each query, by descending cosine.

        Args:
            cosines: Cosines of the candidates, descending, `(n, k)`.
            positive: Cosine of each query's positive, `(n,)`.
            allowed: Which candidates may be taken, `(n, k)`.

        Returns:
            `(n, num_negatives)`; -1 where there are no more.
        """
        allowed = allowed & self._within(cosines, positive[:, None])
        rank = allowed.cumsum(axis=1, dtype=np.int32) - 1
        allowed &= rank >= self.range_min
        if self.range_max is not None:
            allowed &= rank < self.range_max
        if self.sampling_strategy == "random":
            noise = np.random.default_rng(self.seed).random(cosines.shape, dtype=np.float32)
            allowed &= ranks(np.where(allowed, noise, -np.inf)) < self.num_negatives
        places = np.argsort(~allowed, axis=1, kind="stable")[:, : self.num_negatives]
        places = np.where(np.take_along_axis(allowed, places, axis=1), places, -1)
        missing = self.num_negatives - places.shape[1]
        return np.pad(places, ((0, 0), (0, max(0, missing))), constant_values=-1)

    def _within(self, cosines: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Return which cosines are within all limits that are set."""
        highest = np.full_like(positive, np.inf if self.max_score is None else self.max_score)
        if self.absolute_margin is not None:
            highest = np.minimum(highest, positive - self.absolute_margin)
        if self.relative_margin is not None:
            # A margin below a negative cosine is below it too.
            highest = np.minimum(highest, positive - np.abs(positive) * self.relative_margin)
        lowest = -np.inf if self.min_score is None else self.min_score
        return (cosines >= lowest) & (cosines <= highest)
