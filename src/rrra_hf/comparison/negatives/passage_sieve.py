"""Passage sieve: drop candidates that score above the mean of the query's documents."""

from __future__ import annotations

import numpy as np

from ...evaluation.arrays import ranks
from ...evaluation.checks import check_count, check_positive_scores, check_scores


def passage_sieve_weights(
    scores: np.ndarray, positive_scores: np.ndarray, *, num_negatives: int = 30
) -> np.ndarray:
    """Keep candidates that score below the mean of the query's positive and negatives.

    The query's negatives are its `num_negatives` best candidates. Lower ranks get weight 0. If no negative is
    below the mean, the lowest-ranking one is kept, so every query with a candidate keeps at least one.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        positive_scores: Score of the positive, one per query, `(n,)`.
        num_negatives: Number of negatives per query.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `num_negatives` is below 1.

    Source:
        Contrastive confidence regularisation (arXiv 2401.00165), the passage sieve. In the paper, the scores
        come from a retriever trained with that regulariser. Here they may come from any retriever.

    Example:
        >>> passage_sieve_weights(np.array([[0.7, 0.5, 0.1]]), np.array([0.9])).tolist()
        [[0.0, 1.0, 1.0]]
        >>> passage_sieve_weights(np.array([[0.7, 0.7]]), np.array([0.1])).tolist()
        [[0.0, 1.0]]
    """
    scores = check_scores(scores)
    positive = check_positive_scores(positive_scores, scores)
    check_count("num_negatives", num_negatives)
    rank = ranks(scores)
    negative = np.isfinite(scores) & (rank < num_negatives)
    count = negative.sum(axis=1, keepdims=True)
    # Relative to the positive, so that documents with equal scores have a mean of exactly 0.
    gaps = np.where(negative, scores - positive, 0.0)
    kept = negative & (gaps < gaps.sum(axis=1, keepdims=True) / (count + 1))
    lowest = rank == count - 1
    return np.where(kept.any(axis=1, keepdims=True), kept, lowest).astype(np.float64)
