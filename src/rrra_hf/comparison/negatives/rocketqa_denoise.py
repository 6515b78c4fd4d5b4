"""RocketQA's denoising: keep only candidates that a cross-encoder is sure are not relevant."""

from __future__ import annotations

import numpy as np

from ...evaluation.checks import check_between, check_count, check_positive, check_scores, check_shape, ranks


def rocketqa_denoise_weights(
    scores: np.ndarray,
    relevance_probability: np.ndarray,
    *,
    threshold: float = 0.1,
    top_k: int = 50,
) -> np.ndarray:
    """Return 1 for candidates among the `top_k` best whose probability is below `threshold`, 0 for others.

    Args:
        scores: The retriever's scores of each query's candidates, `(n, k)`, which say what the best are;
            -inf where there is no candidate.
        relevance_probability: Probability that the candidate is relevant, in [0, 1], from a cross-encoder
            or anything better than the retriever, `(n, k)`; anything where there is no candidate.
        threshold: Probability below which a candidate is a negative.
        top_k: Candidates to choose among.

    Returns:
        Weights 0 or 1, `(n, k)` float64, 0 where there is no candidate.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, a probability of a candidate is not in
            [0, 1], `threshold` is not positive, or `top_k` is below 1.

    Source:
        RocketQA (arXiv 2010.08191), denoised hard negatives: a cross-encoder's score below .1
        among the top 50; the paper draws 4 negatives a query from them.

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
