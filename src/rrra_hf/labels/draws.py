"""Draws in proportion to weights, the same for every strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.checks import check_count


def draw(
    weights: np.ndarray,
    num_negatives: int,
    *,
    rng: np.random.Generator,
    query_rows: np.ndarray | None = None,
    query_ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw places of candidates for each query, in proportion to their weights.

    A query's places are distinct, unless fewer candidates weigh anything than are asked for: then they are
    drawn with replacement.

    Args:
        weights: Weights of at least 0, of any scale, `(n, k)`; 0 is never drawn.
        num_negatives: Places a query.
        rng: Source of the draws.
        query_rows: Rows of the weights to draw for, `(m,)`, repeats allowed; all if not given.
        query_ids: Names of the rows of the weights, `n`, for the message.

    Returns:
        Places in the row of weights, `(m, num_negatives)` int64. The documents at those places are
        `np.take_along_axis(pool.candidates[query_rows], places, axis=1)`.

    Raises:
        ValueError: If weights are not `(n, k)`, finite and at least 0, `num_negatives` is below 1, a row
            is not there, or a query has no candidate that can be drawn; the message names the query.

    Source:
        The places with the greatest `log(weight) + Gumbel noise` are draws without replacement
        (Efraimidis & Spirakis 2006).

    Example:
        >>> draw(np.array([[0.0, 0.3, 0.0]]), 2, rng=np.random.default_rng(0)).tolist()
        [[1, 1]]
    """
    weights = np.asarray(weights)
    if weights.ndim != 2 or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"weights must be (n, k), finite and at least 0, got shape {weights.shape}.")
    check_count("num_negatives", num_negatives)
    rows = np.arange(len(weights)) if query_rows is None else np.asarray(query_rows, dtype=np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= len(weights)):
        raise ValueError(f"query_rows must be in [0, {len(weights)}), got {rows.min()} to {rows.max()}.")
    chances = weights[rows]
    without = rows[~(chances > 0).any(axis=1)]
    if len(without):
        first = f"row {without[0]}" if query_ids is None else repr(query_ids[without[0]])
        raise ValueError(
            f"Every query needs a candidate that can be drawn: {len(without)} of {len(rows)} have none, "
            f"the first is {first}."
        )
    return _draw_places(chances, num_negatives, rng)


def _draw_places(chances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the greatest noisy log-chances; for rows with too few, the greatest of fresh noise each time."""
    with np.errstate(divide="ignore"):
        log_chances = np.log(chances)
    order = np.argsort(-(log_chances + rng.gumbel(size=chances.shape)), axis=1)[:, :count]
    places = np.zeros((len(chances), count), dtype=np.int64)
    places[:, : order.shape[1]] = order
    few = np.flatnonzero((chances > 0).sum(axis=1) < count)
    for column in range(count if len(few) else 0):
        noise = rng.gumbel(size=(len(few), chances.shape[1]))
        places[few, column] = (log_chances[few] + noise).argmax(axis=1)
    return places
