"""Published heuristics for detecting false negatives, as scores: higher means more likely to be relevant.

`detection_quality` measures them. Scores that need no formula are compared as well: the similarity `s(q, c)`
itself, that of a guide model (GISTEmbed), and that of a cross-encoder (RocketQA).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.checks import check_positive_scores, check_positives, check_scores


def margin_to_positive(scores: np.ndarray, positive_scores: np.ndarray) -> np.ndarray:
    """Compute `s(q, c) - s(q, p)`: how far a candidate scores above the query's positive.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        positive_scores: Score of the positive, one per query, `(n,)`, see `best_positive_scores`.

    Returns:
        Margins, `(n, k)` float64, -inf at empty places.

    Raises:
        ValueError: If a shape is wrong, or a score is NaN or +inf.

    Source:
        NV-Retriever (arXiv 2407.15831), "TopK-MarginPos", drops candidates above minus the margin. SimANS and
        TriSampler weight by the same difference.

    Example:
        >>> margin_to_positive(np.array([[0.75, 0.25]]), np.array([0.5])).tolist()
        [[0.25, -0.25]]
    """
    scores = check_scores(scores)
    return scores - check_positive_scores(positive_scores, scores)


def perc_pos_margin(scores: np.ndarray, positive_scores: np.ndarray) -> np.ndarray:
    """Compute `(s(q, c) - s(q, p)) / |s(q, p)|`: the margin relative to the positive's score.

    For positive scores this equals `s(q, c) / s(q, p) - 1`. With the absolute value it is correct for
    negative scores too.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.
        positive_scores: Score of the positive, one per query, `(n,)`, not 0.

    Returns:
        Relative margins, `(n, k)` float64, -inf at empty places.

    Raises:
        ValueError: If a shape is wrong, a score is NaN or +inf, or a positive's score is 0.

    Source:
        NV-Retriever (arXiv 2407.15831), "TopK-PercPos", drops candidates above minus 5 %.

    Example:
        >>> perc_pos_margin(np.array([[0.75, 0.25]]), np.array([0.5])).tolist()
        [[0.5, -0.5]]
    """
    margins = margin_to_positive(scores, positive_scores)
    zero = np.flatnonzero(np.asarray(positive_scores) == 0)
    if len(zero):
        raise ValueError(f"positive_scores must not be 0; {len(zero)} are, the first is {zero[0]}.")
    return margins / np.abs(np.asarray(positive_scores, dtype=np.float64))[:, None]


def similarity_to_positive(
    documents: np.ndarray, candidates: np.ndarray, positives: Sequence[np.ndarray]
) -> np.ndarray:
    """Compute `s(p, c)`: the similarity of a candidate to the closest labelled positive of its query.

    Args:
        documents: Embeddings of the corpus, `(m, dim)`, normalised for cosines.
        candidates: Row numbers of the candidates, `(n, k)`; -1 marks an empty place.
        positives: For each query, row numbers of its labelled positives, at least one.

    Returns:
        Similarities, `(n, k)` float64, -inf at empty places.

    Raises:
        ValueError: If the numbers of queries differ, or a query has no positive.

    Source:
        The first of the two objectives in RRRA (arXiv 2508.11670), and `s(p, c)` in TriSampler.

    Example:
        >>> similarity_to_positive(np.eye(3), np.array([[1, 2, -1]]), [np.array([0, 2])]).tolist()
        [[0.0, 1.0, -inf]]
    """
    check_positives(positives, len(candidates))
    similarity = np.full(np.shape(candidates), -np.inf)
    for found, rows, positive in zip(similarity, candidates, positives, strict=True):
        real = rows >= 0
        found[real] = (documents[rows[real]] @ documents[positive].T).max(axis=1)
    return similarity
