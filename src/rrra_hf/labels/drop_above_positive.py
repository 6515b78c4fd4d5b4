"""Give candidates no weight that the encoder scores above the query's positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..candidates import CandidatePool
from ..evaluation.checks import check_positive_scores, check_positives, check_scores


def drop_above_positive(pool: CandidatePool, positive_scores: np.ndarray) -> CandidatePool:
    """Return the pool with probability 1 for candidates that score above the query's best positive.

    As negatives of the query, such candidates then weigh 0. A candidate that outscores the positive has the
    largest gradient of all negatives, and is often relevant.

    Args:
        pool: Candidates with their false-negative probabilities, `n` queries.
        positive_scores: Score of each query's best positive, `(n,)`; see `best_positive_scores`.

    Returns:
        A copy of the pool.

    Raises:
        ValueError: If the pool has no probabilities, or the scores have another shape or are not finite.

    Source:
        Masking by a guide, here the encoder that mined the pool: GISTEmbed, arXiv 2402.16829.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b", "c"], positives=[np.array([0])],
        ...     candidates=np.array([[1, 2]]), scores=np.array([[0.75, 0.25]]),
        ...     probability=np.array([[0.5, 0.25]]),
        ... )
        >>> drop_above_positive(pool, np.array([0.5])).probability.tolist()
        [[1.0, 0.25]]
    """
    probability = pool.required_probability
    scores = check_scores(pool.scores)
    above = scores > check_positive_scores(positive_scores, scores)
    return replace(pool, probability=np.where(above, 1.0, probability))


def best_positive_scores(
    queries: np.ndarray, documents: np.ndarray, positives: Sequence[np.ndarray]
) -> np.ndarray:
    """Return each query's greatest score among its labelled positives.

    Args:
        queries: Embeddings of the queries, `(n, dim)`.
        documents: Embeddings of the corpus, `(m, dim)`.
        positives: For each query the rows of its labelled positives, at least one.

    Returns:
        `(n,)` float64.

    Raises:
        ValueError: If the numbers of queries differ, or a query has no positive.

    Example:
        >>> best_positive_scores(np.array([[3.0, 4.0]]), np.eye(2), [np.array([0, 1])]).tolist()
        [4.0]
    """
    check_positives(positives, len(queries))
    scores = [(documents[rows] @ query).max() for query, rows in zip(queries, positives, strict=True)]
    return np.array(scores, dtype=np.float64)
