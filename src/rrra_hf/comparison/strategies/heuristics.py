"""Strategies that choose negatives by the retriever's scores."""

from __future__ import annotations

import numpy as np

from ..methods import Method, register
from ..negatives import (
    margin_pos_weights,
    passage_sieve_weights,
    rank_window_weights,
    simans_weights,
    top_k_perc_pos_weights,
    top_k_weights,
    trisampler_weights,
)
from ..ranking import Rank, ranked_by, searcher
from ..trial import Trial
from ..truth import GroundTruth, ground_truth
from .chances import Chances, Strategy
from .registry import add, strategy

TOP_K = 50


def untrained(trial: Trial) -> Rank:
    """Return the search with the encoder as it is."""
    return searcher(trial.task.documents, trial.arguments.fit.depth)


register(Method("strategies", "untrained", "the encoder before training", ranked_by(untrained), seeded=False))
add("in-batch", "no mined negatives", Strategy(None))


@strategy("top-k", f"uniform over the {TOP_K} best candidates")
def top_k(trial: Trial) -> Chances:
    """Take the best candidates."""
    return top_k_weights(ground_truth(trial).pool.scores, top_k=TOP_K), None


@strategy("rank-window", "uniform over the ranks from 10 on")
def rank_window(trial: Trial) -> Chances:
    """Skip the best ten candidates."""
    return rank_window_weights(ground_truth(trial).pool.scores), None


@strategy("perc-pos", f"TopK-PercPos: the {TOP_K} best below 95 % of the positive's score")
def perc_pos(trial: Trial) -> Chances:
    """Keep candidates well below the positive, relative to its score."""
    truth = ground_truth(trial)
    return _best(top_k_perc_pos_weights(truth.pool.scores, truth.positive_scores), truth), None


@strategy("margin-pos", f"TopK-MarginPos: the {TOP_K} best at least .05 below the positive's score")
def margin_pos(trial: Trial) -> Chances:
    """Keep candidates well below the positive."""
    truth = ground_truth(trial)
    return _best(margin_pos_weights(truth.pool.scores, truth.positive_scores), truth), None


@strategy("simans", "SimANS: scores close to the positive's")
def simans(trial: Trial) -> Chances:
    """Prefer candidates that score about as high as the positive."""
    truth = ground_truth(trial)
    return simans_weights(truth.pool.scores, truth.positive_scores, tau=trial.arguments.fit.tau), None


@strategy("trisampler", "TriSampler: near-triangles of query, positive and candidate")
def trisampler(trial: Trial) -> Chances:
    """Prefer candidates that are closer to the positive than to the query."""
    truth = ground_truth(trial)
    positives = truth.documents[[rows[0] for rows in truth.training.positives]]
    between = np.einsum("nd,nkd->nk", positives, truth.documents[np.maximum(truth.pool.candidates, 0)])
    return trisampler_weights(truth.pool.scores, truth.positive_scores, between), None


@strategy("passage-sieve", "passage sieve: below the mean of the query's documents")
def passage_sieve(trial: Trial) -> Chances:
    """Keep candidates below the mean."""
    truth = ground_truth(trial)
    return passage_sieve_weights(truth.pool.scores, truth.positive_scores), None


def _best(kept: np.ndarray, truth: GroundTruth) -> np.ndarray:
    """Return 1 for the best of the kept candidates, 0 for the others."""
    return top_k_weights(np.where(kept > 0, truth.pool.scores, -np.inf), top_k=TOP_K)
