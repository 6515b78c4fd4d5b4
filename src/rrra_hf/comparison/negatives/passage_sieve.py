"""Passage sieve: drop candidates that score above the mean of the query's own documents."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_count, check_positive_scores, check_scores, ranks


def passage_sieve_weights(
    scores: np.ndarray, positive_scores: np.ndarray, *, num_negatives: int = 30
) -> np.ndarray:
    """Return 1 for candidates that score below the mean of the query's positive and negatives, 0 for others.

    The query's negatives are its `num_negatives` best candidates; what ranks after them weighs 0. Every
    query that has a candidate keeps at least one: where none is below the mean, the lowest-ranking
    negative.

    Args:
        scores: Scores of each query's candidates, `(n, k)`; -inf where there is no candidate.
        positive_scores: Score of each query's positive, `(n,)`.
        num_negatives: Negatives a query.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or `num_negatives` is below 1.

    Source:
        Contrastive confidence regularisation (arXiv 2401.00165), the passage sieve. There the
        scores come from a retriever trained with that regulariser; here from any.

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
    # Relative to the positive, so that documents that all score the same have a mean of exactly 0.
    gaps = np.where(negative, scores - positive, 0.0)
    kept = negative & (gaps < gaps.sum(axis=1, keepdims=True) / (count + 1))
    lowest = rank == count - 1
    return np.where(kept.any(axis=1, keepdims=True), kept, lowest).astype(np.float64)
