"""Draw negatives that are not suspected of being relevant."""

from __future__ import annotations

import numpy as np

from ..candidates import CandidatePool

# Chance of a suspect of being drawn, in relation to that of others. It is drawn where there are too few of
# them, so that the query is trained on, and has no weight.
FILLING = 1e-6


def drop_strategy(pool: CandidatePool, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return how likely each candidate is to be drawn as a negative, and its weight in the loss.

    Every candidate is equally likely, except for suspects. They only fill up rows with too few others, and
    have the weight 0. `RRRALoss` with the pool also leaves out suspects among the documents of other rows.

    Args:
        pool: Candidates with their false-negative probabilities, `n` queries, `k` candidates each.
        threshold: As in `CandidatePool.suspects`.

    Returns:
        Chances, `(n, k)` float32, 0 where there is no candidate; and weights, `(n, k)` float32, 0 for
        suspects and 1 for others.

    Raises:
        ValueError: If the pool has no probabilities.

    Source:
        The rule of TopK-PercPos (NV-Retriever, arXiv 2407.15831), with the adapter's scores and probabilities
        in place of cosines.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b", "c"], positives=[np.array([0])],
        ...     candidates=np.array([[1, 2, -1]]), scores=np.array([[0.5, 0.4, -np.inf]]),
        ...     probability=np.array([[0.75, 0.1, np.nan]]),
        ... )
        >>> [values.round(2).tolist() for values in drop_strategy(pool)]
        [[[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]]
    """
    weights = ((pool.candidates >= 0) & ~pool.suspects(threshold)).astype(np.float32)
    chances = np.maximum(weights, np.float32(FILLING) * (pool.candidates >= 0))
    return chances, weights
