"""RocketQA denoising: keep candidates that a cross-encoder scores as irrelevant."""

from __future__ import annotations

import numpy as np

from ...evaluation.arrays import ranks
from ...evaluation.checks import check_between, check_count, check_positive, check_scores, check_shape


def rocketqa_denoise_weights(
    scores: np.ndarray,
    relevance_probability: np.ndarray,
    *,
    threshold: float = 0.1,
    top_k: int = 50,
) -> np.ndarray:
    """Keep those of the `top_k` best candidates whose probability of relevance is below `threshold`.

    Args:
        scores: Scores of the candidates by the retriever, `(n, k)`; -inf marks an empty place.
        relevance_probability: Probability that the candidate is relevant, in [0, 1], `(n, k)`, from a
            cross-encoder or another model better than the retriever. Empty places may hold anything.
        threshold: Candidates with a probability below this are negatives.
        top_k: Number of best candidates to choose from.

    Returns:
        Weights, 0 or 1, `(n, k)` float64. Empty places get 0.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, a probability isn't in [0, 1], `threshold`
            isn't positive, or `top_k` is below 1.

    Source:
        RocketQA (arXiv 2010.08191), denoised hard negatives: among the top 50, those with a cross-encoder
        score below .1. The paper draws 4 negatives per query from them.

    Example:
        >>> probability = np.array([[0.95, 0.02, 0.30, np.nan]])
        >>> rocketqa_denoise_weights(np.array([[0.9, 0.8, 0.7, -np.inf]]), probability).tolist()
        [[0.0, 1.0, 0.0, 0.0]]
    """
    scores = check_scores(scores)
    probability = check_shape("relevance_probability", relevance_probability, scores)
    present = np.isfinite(scores)
    check_between("relevance_probability", probability[present], 0, 1)
    check_positive("threshold", threshold)
    check_count("top_k", top_k)
    return (present & (ranks(scores) < top_k) & (probability < threshold)).astype(np.float64)
