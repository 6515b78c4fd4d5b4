"""Resampling: candidates that are probably relevant count little as negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .draws import draw

if TYPE_CHECKING:
    from ..candidates import CandidatePool

MODES = ("uniform", "sample")


def rrra_weights(
    probability: np.ndarray,
    *,
    gamma: float = 1.0,
    hardness: float = 0.0,
    scores: np.ndarray | None = None,
    tau: float = 0.05,
) -> np.ndarray:
    """Return the resampling weight of each candidate: `exp(hardness * cos / tau) * (1 - p) ** gamma`.

    With `hardness`, the first factor is divided by its greatest value in the row, so that weights
    stay in [0, 1]; the proportions within a row are those of the formula.

    Args:
        probability: `p`, `(n, k)`, in [0, 1]; NaN where there is no candidate.
        gamma: How much a probable false negative loses; 0 for nothing.
        hardness: How much a high-ranking candidate gains; 0 for nothing.
        scores: Cosines of the candidates, `(n, k)`; needed for `hardness`.
        tau: Temperature of the cosines.

    Returns:
        Weights in [0, 1], `(n, k)` float32, 0 where there is no candidate.

    Raises:
        ValueError: If a probability is outside [0, 1], a setting is not legal, or scores lack.

    Source:
        RRRA, arXiv 2508.11670: `s_RS = s_HN * (1 - s_FN) ** gamma`, here with `s_HN = exp(cos / tau)`.

    Example:
        >>> rrra_weights(np.array([[0.0, 0.5, np.nan]]), gamma=2.0).tolist()
        [[1.0, 0.25, 0.0]]
    """
    p = np.asarray(probability, dtype=np.float64)
    check_settings(gamma, hardness, tau)
    outside = (p < 0) | (p > 1)
    if p.ndim != 2 or outside.any():
        raise ValueError(
            "probability must be (n, k) in [0, 1], or NaN where there is no candidate; "
            f"got shape {p.shape} with {int(outside.sum())} values outside."
        )
    weights = np.where(np.isnan(p), 0.0, (1.0 - p) ** gamma)
    if hardness:
        weights = weights * _hardness_factor(scores, ~np.isnan(p), hardness / tau)
    return weights.astype(np.float32)


def rrra_strategy(
    pool: CandidatePool,
    *,
    mode: str = "uniform",
    gamma: float = 1.0,
    hardness: float = 0.0,
    tau: float = 0.05,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return how likely each candidate is to be drawn as a negative, and what it weighs then.

    Args:
        pool: Candidates with their false-negative probabilities, `n` queries, `k` candidates each.
        mode: `"uniform"`: every candidate is as likely, and comes with its resampling weight;
            `"sample"`: candidates are drawn in proportion to the weight, and all weigh 1.
        gamma: As in `rrra_weights`.
        hardness: As in `rrra_weights`.
        tau: As in `rrra_weights`.

    Returns:
        Chances of any scale, `(n, k)`, 0 where there is no candidate; and weights, `(n, k)` float32, or
        None where all weigh 1.

    Raises:
        ValueError: If the pool has no probabilities, or a setting is not legal.

    Example:
        >>> from rrra_hf.candidates import CandidatePool
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([0])],
        ...     candidates=np.array([[1, -1]]), scores=np.array([[0.5, -np.inf]]),
        ...     probability=np.array([[0.25, np.nan]]),
        ... )
        >>> [values.tolist() for values in rrra_strategy(pool)]
        [[[1.0, 0.0]], [[0.75, 0.0]]]
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if pool.probability is None:
        raise ValueError("pool has no probability; cross_fit gives it one.")
    weights = rrra_weights(pool.probability, gamma=gamma, hardness=hardness, scores=pool.scores, tau=tau)
    if mode == "sample":
        return weights, None
    return (pool.candidates >= 0).astype(np.float32), weights


def draw_negatives(
    pool: CandidatePool,
    num_negatives: int,
    *,
    rng: np.random.Generator,
    query_rows: np.ndarray | None = None,
    mode: str = "uniform",
    gamma: float = 1.0,
    hardness: float = 0.0,
    tau: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw negatives for each query from its candidates, and say what each of them weighs.

    A query's negatives are distinct, unless it has fewer candidates than are asked for: then they are
    drawn with replacement.

    Args:
        pool: Candidates with their false-negative probabilities.
        num_negatives: Negatives a query.
        rng: Source of the draws.
        query_rows: Rows of the queries to draw for, `(n,)`, repeats allowed; all queries if not given.
        mode: As in `rrra_strategy`.
        gamma: As in `rrra_weights`.
        hardness: As in `rrra_weights`.
        tau: As in `rrra_weights`.

    Returns:
        Rows of the negatives among the pool's documents, `(n, num_negatives)` int32, and their
        weights, `(n, num_negatives)` float32.

    Raises:
        ValueError: If the pool has no probabilities, a setting is not legal, or a query has no
            candidate, with `mode="sample"` none whose weight is above zero; the message names the query.

    Example:
        >>> from rrra_hf.candidates import CandidatePool
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b"], positives=[np.array([0])],
        ...     candidates=np.array([[1, -1]]), scores=np.array([[0.5, -np.inf]]),
        ...     probability=np.array([[0.25, np.nan]]),
        ... )
        >>> rows, weights = draw_negatives(pool, 2, rng=np.random.default_rng(0))
        >>> rows.tolist(), weights.tolist()
        ([[1, 1]], [[0.75, 0.75]])
    """
    chances, weights = rrra_strategy(pool, mode=mode, gamma=gamma, hardness=hardness, tau=tau)
    rows = np.arange(len(pool)) if query_rows is None else np.asarray(query_rows, dtype=np.int64)
    places = draw(chances, num_negatives, rng=rng, query_rows=rows, query_ids=pool.query_ids)
    negatives = np.take_along_axis(pool.candidates[rows], places, axis=1)
    if weights is None:
        return negatives, np.ones(negatives.shape, dtype=np.float32)
    return negatives, np.take_along_axis(weights[rows], places, axis=1)


def check_settings(gamma: float, hardness: float, tau: float) -> None:
    """Refuse settings of the weights that are not legal.

    Args:
        gamma: As in `rrra_weights`.
        hardness: As in `rrra_weights`.
        tau: As in `rrra_weights`.

    Raises:
        ValueError: If one is not.
    """
    for name, value in (("gamma", gamma), ("hardness", hardness)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number of at least 0, got {value}.")
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}.")


def _hardness_factor(scores: np.ndarray | None, present: np.ndarray, slope: float) -> np.ndarray:
    """Return `exp(slope * cos)` over its greatest value in the row, `(n, k)`."""
    if scores is None or np.shape(scores) != present.shape:
        given = "none" if scores is None else f"shape {np.shape(scores)}"
        raise ValueError(f"hardness needs scores of shape {present.shape}, got {given}.")
    cosines = np.where(present, np.asarray(scores, dtype=np.float64), -np.inf)
    if not np.isfinite(cosines[present]).all():
        raise ValueError("scores must be finite wherever there is a candidate.")
    greatest = cosines.max(axis=1, keepdims=True, initial=-np.inf)
    return np.exp(slope * (cosines - np.where(np.isfinite(greatest), greatest, 0.0)))
