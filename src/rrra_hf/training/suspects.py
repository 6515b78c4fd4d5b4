"""How probable it is that the negatives of a batch are relevant, for the log."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..candidates import CandidatePool
from ..labels.estimates import ADD


def suspect_figures(pool: CandidatePool, labels: Tensor) -> dict[str, Tensor]:
    """Return the mean false-negative probability of a batch's negatives, and the share above one half.

    Args:
        pool: The pool, with probabilities.
        labels: Its rows of query, positive and negatives, `(batch, 2 + n)`. A document that is no candidate
            of its query has the probability 0.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b", "c"], positives=[np.array([0])],
        ...     candidates=np.array([[2, 1]]), scores=np.array([[0.5, 0.25]]),
        ...     probability=np.array([[0.75, 0.25]]),
        ... )
        >>> suspect_figures(pool, torch.tensor([[0, 0, 1, 2]]))
        {'false_negative_probability': tensor(0.5000), 'suspects': tensor(0.5000)}
    """
    rows = labels.cpu().numpy()
    queries, negatives = rows[:, 0], rows[:, 2:]
    is_it = pool.candidates[queries][:, None] == negatives[..., None]
    probability = np.where(is_it, pool.required_probability[queries][:, None], 0).sum(axis=-1)
    figures = {"false_negative_probability": probability, "suspects": probability > ADD}
    return {name: torch.tensor(values.mean(dtype=np.float32)) for name, values in figures.items()}
