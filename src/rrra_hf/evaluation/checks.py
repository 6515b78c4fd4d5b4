"""Validation of array arguments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Cosines computed in half precision can exceed 1 slightly.
COSINE_TOLERANCE = 1e-2


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Return candidate scores as float64 after validating them.

    Args:
        scores: Scores of the candidates, `(n, k)`; -inf marks an empty place.

    Raises:
        ValueError: If the array isn't two-dimensional, or a score is NaN or +inf.

    Example:
        >>> check_scores(np.array([[0.5, np.nan]]))
        Traceback (most recent call last):
        ValueError: scores must be finite, or -inf where there is no candidate; 1 of 2 are not.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (n, k), one row per query, got {scores.shape}.")
    illegal = int((np.isnan(scores) | (scores == np.inf)).sum())
    if illegal:
        raise ValueError(
            f"scores must be finite, or -inf where there is no candidate; {illegal} of {scores.size} are not."
        )
    return scores


def check_positive_scores(positive_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the scores of the positives as a float64 column, `(n, 1)`, after validating them.

    Args:
        positive_scores: Score of the positive, one per query, `(n,)`.
        scores: Scores of the candidates, `(n, k)`.

    Raises:
        ValueError: If there isn't exactly one finite score per query.

    Example:
        >>> check_positive_scores(np.array([0.9]), np.zeros((2, 3)))
        Traceback (most recent call last):
        ValueError: positive_scores must have shape (2,), one score per query, got (1,).
    """
    positive_scores = np.asarray(positive_scores, dtype=np.float64)
    if positive_scores.shape != scores.shape[:1]:
        raise ValueError(
            f"positive_scores must have shape ({len(scores)},), one score per query, "
            f"got {positive_scores.shape}."
        )
    if not np.isfinite(positive_scores).all():
        illegal = np.flatnonzero(~np.isfinite(positive_scores))
        raise ValueError(
            f"positive_scores must be finite; {len(illegal)} are not, the first is {illegal[0]}."
        )
    return positive_scores[:, None]


def check_shape(name: str, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return `values` as an array after checking that it has the shape of `scores`.

    Args:
        name: Name of the argument, for the error message.
        values: Values per candidate, `(n, k)`.
        scores: Scores of the candidates, `(n, k)`.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> check_shape("false_negative", np.zeros((2, 4), dtype=bool), np.zeros((2, 3)))
        Traceback (most recent call last):
        ValueError: false_negative must have shape (2, 3), the shape of scores, got (2, 4).
    """
    values = np.asarray(values)
    if values.shape != scores.shape:
        raise ValueError(f"{name} must have shape {scores.shape}, the shape of scores, got {values.shape}.")
    return values


def check_between(name: str, values: np.ndarray, lowest: float, highest: float) -> None:
    """Raise if a value is NaN or outside `[lowest, highest]`.

    Args:
        name: Name of the argument, for the error message.
        values: The values to check.
        lowest: Lowest legal value.
        highest: Highest legal value.

    Raises:
        ValueError: If a value is outside the range.

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
    """Raise if a count is less than 1.

    Args:
        name: Name of the argument, for the error message.
        count: The value to check.

    Raises:
        ValueError: If it is less than 1.

    Example:
        >>> check_count("top_k", 0)
        Traceback (most recent call last):
        ValueError: top_k must be at least 1, got 0.
    """
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}.")


def check_positive(name: str, value: float) -> None:
    """Raise if a value isn't finite and greater than 0.

    Args:
        name: Name of the argument, for the error message.
        value: The value to check.

    Raises:
        ValueError: If it isn't finite and greater than 0.

    Example:
        >>> check_positive("tau", 0.0)
        Traceback (most recent call last):
        ValueError: tau must be positive, got 0.0.
    """
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, got {value}.")


def check_margin(margin: float) -> None:
    """Raise if a margin isn't finite and at least 0.

    Args:
        margin: The value to check.

    Raises:
        ValueError: If it isn't finite and at least 0.

    Example:
        >>> check_margin(-0.05)
        Traceback (most recent call last):
        ValueError: margin must be a number of at least 0, got -0.05.
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin must be a number of at least 0, got {margin}.")


def check_positives(positives: Sequence[np.ndarray], num_queries: int) -> None:
    """Raise if a query has no positive.

    Args:
        positives: Row numbers of the positives, per query.
        num_queries: Number of queries.

    Raises:
        ValueError: If the number of queries differs, or a query has no positive.
    """
    if len(positives) != num_queries:
        raise ValueError(f"positives must have one entry per query ({num_queries}), got {len(positives)}.")
    empty = [i for i, rows in enumerate(positives) if len(rows) == 0]
    if empty:
        raise ValueError(
            f"positives must have at least one document per query; {len(empty)} queries have none, "
            f"the first is {empty[0]}."
        )
