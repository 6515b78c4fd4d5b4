"""Top-k: uniform over each query's best candidates."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_count, check_scores, ranks


def top_k_weights(scores: np.ndarray, *, top_k: int = 50) -> np.ndarray:
    """Return 1 for each query's `top_k` best candidates, 0 for others.

    Args:
        scores: Scores of each query's candidates, `(n, k)`; -inf where there is no candidate.
        top_k: Candidates to keep.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If `scores` has not two dimensions, or NaN or +inf; or `top_k` is below 1.

    Source:
        The plain hard negatives that others are compared to; "naive top-k" in NV-Retriever
        (arXiv 2407.15831).

    Example:
        >>> scores = np.array([[0.9, 0.8, 0.7]])
        >>> top_k_weights(scores, top_k=2).tolist()
        [[1.0, 1.0, 0.0]]

        After another strategy, the best of what it kept:

        >>> from rrra_hf.labels import margin_pos_weights
        >>> kept = margin_pos_weights(scores, np.array([0.9])) > 0
        >>> top_k_weights(np.where(kept, scores, -np.inf), top_k=1).tolist()
        [[0.0, 1.0, 0.0]]
    """
    scores = check_scores(scores)
    check_count("top_k", top_k)
    return (np.isfinite(scores) & (ranks(scores) < top_k)).astype(np.float64)
