"""The candidates that a step of a residual fit draws for its queries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..candidates.labelled import KnownPositives, LabelledQueries


class Candidates(NamedTuple):
    """The documents that a step's queries are trained against.

    Args:
        own: Rows of each query's own documents, its positive first, `(n, 1 + mined)`.
        shared: Rows of the documents all queries of the step share, `(m,)`.
        labels: 1 for the positive at hand, 0 for the others, `(n, 1 + mined + m)`.
        mask: False for other documents known to be relevant to the query, or left out for it, same shape.
    """

    own: np.ndarray
    shared: np.ndarray
    labels: Tensor
    mask: Tensor


class CandidateSampler:
    """Draws a step's candidates: a positive and mined documents per query, and all positives of the step."""

    def __init__(
        self,
        queries: LabelledQueries,
        mined: np.ndarray,
        num_documents: int,
        num_mined: int,
        rng: np.random.Generator,
    ):
        self._positives = queries.positives
        self._mined = mined
        self._num_documents = num_documents
        self._num_mined = num_mined
        self._rng = rng
        self._known = KnownPositives(queries.no_negatives, num_documents)

    def draw(self, batch: np.ndarray) -> Candidates:
        """Draw the candidates for the queries at the given rows."""
        positive = np.array([self._rng.choice(self._positives[row]) for row in batch])
        own = np.concatenate([positive[:, None], self._draw_mined(batch)], axis=1)
        shared = np.unique(positive)
        everything = np.concatenate([own, np.broadcast_to(shared, (len(batch), len(shared)))], axis=1)
        labels = torch.zeros(everything.shape, dtype=torch.long)
        labels[:, 0] = 1
        mask = ~self._known.contains(batch[:, None], everything)
        mask[:, 0] = True
        return Candidates(own, shared, labels, torch.from_numpy(mask))

    def _draw_mined(self, batch: np.ndarray) -> np.ndarray:
        """Draw mined documents with replacement; a query that has none gets random documents."""
        mined = self._mined[batch]
        counts = (mined >= 0).sum(axis=1, keepdims=True)
        size = (len(batch), self._num_mined)
        picks = (self._rng.random(size) * np.maximum(counts, 1)).astype(np.int64)
        random = self._rng.integers(0, self._num_documents, size=size)
        return np.where(counts > 0, np.take_along_axis(mined, picks, axis=1), random)
