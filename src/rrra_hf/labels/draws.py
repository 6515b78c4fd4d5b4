"""Draws of negatives in proportion to weights, the same for every strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..candidates import CandidatePool
from ..evaluation.checks import check_count
from .weights import rrra_strategy


def draw(
    weights: np.ndarray,
    num_negatives: int,
    *,
    rng: np.random.Generator,
    query_rows: np.ndarray | None = None,
    query_ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw places of candidates for each query, in proportion to their weights.

    The places of a query are distinct. If a query has fewer candidates with a weight above 0 than are asked
    for, its places are drawn with replacement.

    Args:
        weights: Weights of at least 0, on any scale, `(n, k)`; a candidate of weight 0 is never drawn.
        num_negatives: Places per query.
        rng: Random number generator.
        query_rows: Rows of the weights to draw for, `(m,)`, repeats allowed; all rows by default.
        query_ids: Ids of the `n` queries, for the error message.

    Returns:
        Places in the row of weights, `(m, num_negatives)` int64. The documents at those places are
        `np.take_along_axis(pool.candidates[query_rows], places, axis=1)`.

    Raises:
        ValueError: If weights are not `(n, k)`, finite and at least 0, `num_negatives` is below 1, a row
            doesn't exist, or a query has no candidate that can be drawn; the message names the query.

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
    """Return the places of the greatest noisy log-chances, with fresh noise per place for short rows."""
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


def draw_negatives(
    pool: CandidatePool,
    num_negatives: int,
    *,
    rng: np.random.Generator,
    query_rows: np.ndarray | None = None,
    gamma: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw negatives for each query uniformly from its candidates, and return their weights.

    The negatives of a query are distinct. If a query has fewer candidates than are asked for, its negatives
    are drawn with replacement.

    Args:
        pool: Candidates with their false-negative probabilities.
        num_negatives: Negatives per query.
        rng: Random number generator.
        query_rows: Rows of the queries to draw for, `(n,)`, repeats allowed; all queries by default.
        gamma: As in `rrra_weights`.

    Returns:
        Rows of the negatives among the pool's documents, `(n, num_negatives)` int32, and their
        weights, `(n, num_negatives)` float32.

    Raises:
        ValueError: If the pool has no probabilities, gamma is not legal, or a query has no candidate; the
            message names the query.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([0])],
        ...     candidates=np.array([[1, -1]]), scores=np.array([[0.5, -np.inf]]),
        ...     probability=np.array([[0.25, np.nan]]),
        ... )
        >>> rows, weights = draw_negatives(pool, 2, rng=np.random.default_rng(0))
        >>> rows.tolist(), weights.tolist()
        ([[1, 1]], [[0.75, 0.75]])
    """
    chances, weights = rrra_strategy(pool, gamma)
    rows = np.arange(len(pool)) if query_rows is None else np.asarray(query_rows, dtype=np.int64)
    places = draw(chances, num_negatives, rng=rng, query_rows=rows, query_ids=pool.query_ids)
    return (
        np.take_along_axis(pool.candidates[rows], places, axis=1),
        np.take_along_axis(weights[rows], places, axis=1),
    )
