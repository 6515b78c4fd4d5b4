"""Top-k: keep the best candidates of each query."""

from __future__ import annotations

import numpy as np

from ...evaluation.arrays import ranks
from ...evaluation.checks import check_count, check_scores


def top_k_weights(scores: np.ndarray, *, top_k: int = 50) -> np.ndarray:
    """Keep the `top_k` best candidates of each query.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        top_k: Number of candidates to keep per query.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If `scores` isn't two-dimensional or holds NaN or +inf, or `top_k` is below 1.

    Source:
        The usual hard negatives; "naive top-k" in NV-Retriever (arXiv 2407.15831).

    Example:
        >>> scores = np.array([[0.9, 0.8, 0.7]])
        >>> top_k_weights(scores, top_k=2).tolist()
        [[1.0, 1.0, 0.0]]

        To take the top k of what another heuristic keeps:

        >>> from rrra_hf.comparison.negatives import margin_pos_weights
        >>> kept = margin_pos_weights(scores, np.array([0.9])) > 0
        >>> top_k_weights(np.where(kept, scores, -np.inf), top_k=1).tolist()
        [[0.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    check_count("top_k", top_k)
    return (np.isfinite(scores) & (ranks(scores) < top_k)).astype(np.float64)
