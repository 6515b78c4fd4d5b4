"""What the strategies ask of their inputs, and the ranks that some of them count by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Cosines computed in half precision may be a little above 1.
COSINE_TOLERANCE = 1e-2


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Return the candidates' scores as float64.

    Args:
        scores: Scores of each query's candidates, `(n, k)`; -inf where there is no candidate.

    Raises:
        ValueError: If there are not two dimensions, or a score is NaN or +inf.

    Example:
        >>> check_scores(np.array([[0.5, np.nan]]))
        Traceback (most recent call last):
        ValueError: scores must be finite, or -inf where there is no candidate; 1 of 2 are not.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (n, k), one row a query, got {scores.shape}.")
    illegal = int((np.isnan(scores) | (scores == np.inf)).sum())
    if illegal:
        raise ValueError(
            f"scores must be finite, or -inf where there is no candidate; {illegal} of {scores.size} are not."
        )
    return scores


def check_positive_scores(positive_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the positives' scores as a float64 column, `(n, 1)`.

    Args:
        positive_scores: Score of each query's positive, `(n,)`.
        scores: Scores of the candidates, `(n, k)`.

    Raises:
        ValueError: If there is not one finite score a query.

    Example:
        >>> check_positive_scores(np.array([0.9]), np.zeros((2, 3)))
        Traceback (most recent call last):
        ValueError: positive_scores must have shape (2,), one score a query, got (1,).
    """
    positive_scores = np.asarray(positive_scores, dtype=np.float64)
    if positive_scores.shape != scores.shape[:1]:
        raise ValueError(
            f"positive_scores must have shape ({len(scores)},), one score a query, "
            f"got {positive_scores.shape}."
        )
    if not np.isfinite(positive_scores).all():
        illegal = np.flatnonzero(~np.isfinite(positive_scores))
        raise ValueError(
            f"positive_scores must be finite; {len(illegal)} are not, the first is {illegal[0]}."
        )
    return positive_scores[:, None]


def check_shape(name: str, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return `values` as an array with one entry a candidate.

    Args:
        name: Name of the argument, for the message.
        values: Any entries, `(n, k)`.
        scores: Scores of the candidates, `(n, k)`.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> check_shape("false_negative", np.zeros((2, 4), dtype=bool), np.zeros((2, 3)))
        Traceback (most recent call last):
        ValueError: false_negative must have shape (2, 3), as scores has, got (2, 4).
    """
    values = np.asarray(values)
    if values.shape != scores.shape:
        raise ValueError(f"{name} must have shape {scores.shape}, as scores has, got {values.shape}.")
    return values


def check_between(name: str, values: np.ndarray, lowest: float, highest: float) -> None:
    """Refuse values outside `[lowest, highest]`, and NaN.

    Args:
        name: Name of the argument, for the message.
        values: Any numbers.
        lowest: Least legal value.
        highest: Greatest legal value.

    Raises:
        ValueError: If a value is outside.

    Example:
        >>> check_between("probability", np.array([0.5, 1.5]), 0, 1)
        Traceback (most recent call last):
        ValueError: probability must be in [0, 1]; 1 of 2 are outside, the first is 1.5.
    """
    outside = ~((values >= lowest) & (values <= highest))
    if outside.any():
        raise ValueError(
            f"{name} must be in [{lowest}, {highest}]; {int(outside.sum())} of {values.size} are outside, "
            f"the first is {values[outside][0]}."
        )


def check_count(name: str, count: int) -> None:
    """Refuse a count below one.

    Args:
        name: Name of the argument, for the message.
        count: The number given.

    Raises:
        ValueError: If it is below one.

    Example:
        >>> check_count("top_k", 0)
        Traceback (most recent call last):
        ValueError: top_k must be at least 1, got 0.
    """
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}.")


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above zero.

    Args:
        name: Name of the argument, for the message.
        value: The number given.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_positive("tau", 0.0)
        Traceback (most recent call last):
        ValueError: tau must be positive, got 0.0.
    """
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, got {value}.")


def check_margin(margin: float) -> None:
    """Refuse a margin that is not a finite number of at least zero.

    Args:
        margin: The number given.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_margin(-0.05)
        Traceback (most recent call last):
        ValueError: margin must be a number of at least 0, got -0.05.
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin must be a number of at least 0, got {margin}.")


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return each candidate's rank in its row, 0 for the best; among equals, the first given ranks first.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf, for no candidate, ranks last.

    Returns:
        Ranks, `(n, k)` int64.

    Example:
        >>> ranks(np.array([[0.1, 0.9, -np.inf, 0.9]])).tolist()
        [[2, 0, 3, 1]]
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def check_positives(positives: Sequence[np.ndarray], num_queries: int) -> None:
    """Refuse positives that are not at least one for each query."""
    if len(positives) != num_queries:
        raise ValueError(f"positives must have one entry a query ({num_queries}), got {len(positives)}.")
    empty = [i for i, rows in enumerate(positives) if len(rows) == 0]
    if empty:
        raise ValueError(
            f"positives must name at least one document a query; {len(empty)} queries have none, "
            f"the first is {empty[0]}."
        )
