"""Strategies whose loss reads what the adapter says of each candidate, or the truth in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax

from ...candidates import CandidatePool
from ...labels import drop_strategy
from ..probabilities import judged_pool
from ..trial import Trial
from ..truth import ground_truth
from .chances import Chances, Strategy
from .heuristics import TOP_K, top_k
from .registry import add

JUDGED = ("features_fit", "folds", "judge")


def below_labelled(trial: Trial) -> Chances:
    """Draw among the candidates that are no suspects."""
    return drop_strategy(judged_pool(trial))


def adapters_best(trial: Trial) -> Chances:
    """Draw among the best candidates of the encoder and of the adapter."""
    scores = judged_pool(trial).ranking_scores
    assert scores is not None
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    chosen = (places < TOP_K) & np.isfinite(scores)
    return np.maximum(top_k(trial)[0], chosen), None


def true_pool(trial: Trial) -> CandidatePool:
    """Return the candidates with probabilities that are the truth."""
    truth = ground_truth(trial)
    probability = np.where(truth.pool.candidates >= 0, truth.false_negative, np.nan)
    return replace(truth.pool, probability=probability.astype(np.float32))


def mixed_pool(trial: Trial) -> CandidatePool:
    """Return the candidates with scores whose softmax is the mean of two targets, `soft` and `distill`."""
    pool = judged_pool(trial)
    assert pool.ranking_scores is not None
    present = pool.candidates >= 0
    with np.errstate(divide="ignore"):
        shared = np.log(np.where(present, pool.required_probability, 0.0))
    # The labelled document has the share 1 in one, and that of the best document in the other.
    best = pool.ranking_scores.max(axis=1, initial=0.0, keepdims=True)
    both = [
        log_softmax(np.column_stack([first, scores]), axis=1)
        for first, scores in ((np.zeros_like(best), shared), (best, pool.ranking_scores))
    ]
    mixed = np.logaddexp(*both)
    return replace(pool, ranking_scores=(mixed[:, 1:] - mixed[:, :1]).astype(np.float32))


def add_judged(
    name: str,
    about: str,
    targets: str,
    chances: Callable[[Trial], Chances] = top_k,
    judged: Callable[[Trial], CandidatePool] = judged_pool,
) -> None:
    """Register a strategy whose loss reads a pool that the adapter judged."""
    add(name, about, Strategy(chances, targets=targets, judged=judged), *JUDGED)


add_judged(
    "drop",
    "candidates that are neither probably relevant nor ranked above the positive by the adapter",
    "drop",
    below_labelled,
)
add_judged("soft", "top-k; positive and candidates share the target in proportion to 1 and p", "soft")
add_judged("relabel", "top-k; those that are probably relevant are positives", "relabel")
add_judged(
    "distill",
    "the best of encoder and adapter; the adapter's ranking scores teach",
    "distill",
    adapters_best,
)
add_judged(
    "soft-distill",
    "the same; the target is the mean of those of soft and distill",
    "distill",
    adapters_best,
    mixed_pool,
)
add(
    "oracle-relabel",
    "top-k; known false negatives are positives: what relabelling can reach",
    Strategy(top_k, targets="relabel", judged=true_pool),
)
