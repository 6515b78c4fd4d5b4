"""Strategies of choosing negatives, and losses that take them: same pool, steps, negatives and seeds.

All train on the ground truth of `truth.py`, so that the oracle knows which candidates are relevant. A
strategy is a function of a trial; it returns how likely each candidate of the pool is to be drawn and
what it weighs then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..labels import rrra_weights
from ..losses import RRRALoss
from .cells import Result
from .losses import CCRLoss, CorrectAndWeightLoss, DebiasedContrastiveLoss
from .methods import Method, register
from .negatives import (
    margin_pos_weights,
    oracle_weights,
    passage_sieve_weights,
    rank_window_weights,
    rocketqa_denoise_weights,
    simans_weights,
    top_k_perc_pos_weights,
    top_k_weights,
    trisampler_weights,
)
from .ranking import Rank, ranked_by
from .trial import Trial
from .truth import (
    GroundTruth,
    cross_encoder_probabilities,
    feature_probabilities,
    ground_truth,
    in_sample_probabilities,
    probabilities,
)

TOP_K = 50
SETTINGS = (
    "fit",
    "train",
    "steps",
    "batch_size",
    "num_negatives",
    "learning_rate",
    "injected_rate",
)

Chances = tuple[np.ndarray, np.ndarray | None]
"""Chances `(n, depth)` of being drawn, 0 for never; and weights `(n, depth)`, or None where all weigh 1."""


@dataclass(frozen=True)
class Strategy:
    """How negatives are chosen, and the loss that takes them.

    Args:
        chances: From a trial to what is drawn; None for in-batch negatives alone.
        loss: Makes the loss from the encoder and the scale of its cosines.
        weighted: Whether the loss takes weights.
    """

    chances: Callable[[Trial], Chances] | None
    loss: Callable[[Any, float], Any] = lambda model, scale: RRRALoss(model, scale=scale)
    weighted: bool = True


STRATEGIES: dict[str, Strategy] = {}


def add(name: str, about: str, strategy: Strategy, *settings: str, **options: Any) -> None:
    """Register a strategy under a name.

    Args:
        name: Its name.
        about: What it is, in a line.
        strategy: The strategy.
        *settings: Further fields of `CompareArguments` that it depends on.
        **options: Further fields of `Method`.
    """
    STRATEGIES[name] = strategy

    def fit(trial: Trial) -> Rank:
        # Imported here: these load the trainer, or need what this module defines.
        from .train_encoder import train_encoder
        from .train_maps import train_maps

        return (train_maps if trial.arguments.train == "none" else train_encoder)(trial, strategy)

    run: Callable[[Trial], Result] = ranked_by(fit)
    register(Method("training", name, about, run, settings=SETTINGS + settings, **options))


def drawn(name: str, about: str, *settings: str, **options: Any) -> Callable[..., Callable[[Trial], Chances]]:
    """Register a function of a trial that returns chances and weights, under a name."""

    def decorate(chances: Callable[[Trial], Chances]) -> Callable[[Trial], Chances]:
        add(name, about, Strategy(chances), *settings, **options)
        return chances

    return decorate


def _best(chances: np.ndarray, truth: GroundTruth) -> np.ndarray:
    """Return 1 for the `TOP_K` best of the candidates that have a chance, 0 for the others."""
    return top_k_weights(np.where(chances > 0, truth.pool.scores, -np.inf), top_k=TOP_K)


def _not_above_positive(truth: GroundTruth) -> np.ndarray:
    """Return 1 for candidates that the frozen encoder doesn't score above the positive, 0 for the others."""
    return (truth.pool.scores <= truth.positive_scores[:, None]).astype(np.float64)


add("in-batch", "no mined negatives", Strategy(None))


@drawn("top-k", f"uniform over the {TOP_K} best candidates")
def top_k(trial: Trial) -> Chances:
    """Plain hard negatives."""
    return top_k_weights(ground_truth(trial).pool.scores, top_k=TOP_K), None


@drawn("rank-window", "uniform over the ranks from 10 on")
def rank_window(trial: Trial) -> Chances:
    """Skip the best ten."""
    return rank_window_weights(ground_truth(trial).pool.scores), None


@drawn("perc-pos", f"TopK-PercPos: the {TOP_K} best below 95 % of the positive's score")
def perc_pos(trial: Trial) -> Chances:
    """Keep what is clearly below the positive, relative to its score."""
    truth = ground_truth(trial)
    return _best(top_k_perc_pos_weights(truth.pool.scores, truth.positive_scores), truth), None


@drawn("margin-pos", f"MarginPos: the {TOP_K} best .05 below the positive's score")
def margin_pos(trial: Trial) -> Chances:
    """Keep what is clearly below the positive."""
    truth = ground_truth(trial)
    return _best(margin_pos_weights(truth.pool.scores, truth.positive_scores), truth), None


@drawn("simans", "SimANS: near the positive's score")
def simans(trial: Trial) -> Chances:
    """Prefer what scores about as high as the positive."""
    truth = ground_truth(trial)
    return simans_weights(truth.pool.scores, truth.positive_scores, tau=trial.arguments.fit.tau), None


@drawn("trisampler", "TriSampler: near-triangles of query, positive and candidate")
def trisampler(trial: Trial) -> Chances:
    """Prefer what is nearer to the positive than to the query."""
    truth = ground_truth(trial)
    positives = truth.documents[[rows[0] for rows in truth.training.positives]]
    between = np.einsum("nd,nkd->nk", positives, truth.documents[np.maximum(truth.pool.candidates, 0)])
    return trisampler_weights(truth.pool.scores, truth.positive_scores, between), None


@drawn("passage-sieve", "passage sieve: below the mean of the query's own documents")
def passage_sieve(trial: Trial) -> Chances:
    """Keep what scores below the mean."""
    truth = ground_truth(trial)
    return passage_sieve_weights(truth.pool.scores, truth.positive_scores), None


@drawn(
    "rocketqa",
    f"RocketQA denoising: among the {TOP_K} best, what a cross-encoder calls irrelevant",
    "cross_encoder",
    needs="cross_encoder",
)
def rocketqa(trial: Trial) -> Chances:
    """Keep what a cross-encoder gives a probability below .1."""
    truth = ground_truth(trial)
    probability = cross_encoder_probabilities(trial)
    return rocketqa_denoise_weights(truth.pool.scores, probability, top_k=TOP_K), None


@drawn("rrra", "uniform draws, weighted by (1 - p) ^ gamma in the softmax", "gamma", "folds")
def rrra(trial: Trial) -> Chances:
    """Weigh each candidate by how probably it is a true negative."""
    candidates = ground_truth(trial).pool.candidates
    weights = rrra_weights(probabilities(trial), gamma=trial.arguments.gamma)
    return (candidates >= 0).astype(np.float64), weights


@drawn("rrra-features", "the same weights, from all features", "gamma", "folds")
def rrra_features(trial: Trial) -> Chances:
    """Weigh each candidate by how probably it is a true negative, as a head that reads features says."""
    candidates = ground_truth(trial).pool.candidates
    weights = rrra_weights(feature_probabilities(trial), gamma=trial.arguments.gamma)
    return (candidates >= 0).astype(np.float64), weights


@drawn(
    "rrra-drop-above-positive",
    "the same, and what scores above the positive weighs nothing",
    "gamma",
    "folds",
)
def rrra_drop_above_positive(trial: Trial) -> Chances:
    """Set aside, too, what the frozen encoder prefers to the positive."""
    chances, weights = rrra_features(trial)
    return chances, weights * _not_above_positive(ground_truth(trial))


@drawn("rrra-in-sample", "the same by an adapter that saw the labels: no cross-fitting", "gamma")
def rrra_in_sample(trial: Trial) -> Chances:
    """Weigh each candidate by what an adapter says of it that was fitted on this very query."""
    candidates = ground_truth(trial).pool.candidates
    weights = rrra_weights(in_sample_probabilities(trial), gamma=trial.arguments.gamma)
    return (candidates >= 0).astype(np.float64), weights


@drawn("rrra-sample", "draws in proportion to (1 - p) ^ gamma", "gamma", "folds")
def rrra_sample(trial: Trial) -> Chances:
    """Draw each candidate as likely as it is a true negative."""
    return rrra_weights(probabilities(trial), gamma=trial.arguments.gamma), None


@drawn("gist", "top-k negatives, masked where the frozen encoder scores them above the positive (GISTEmbed)")
def gist(trial: Trial) -> Chances:
    """Mask what a guide, here the frozen encoder, ranks above the positive."""
    chances, _ = top_k(trial)
    return chances, _not_above_positive(ground_truth(trial))


@drawn("oracle", "uniform over the candidates that are no known false negatives: the ceiling")
def oracle(trial: Trial) -> Chances:
    """Drop what the ground truth calls relevant."""
    truth = ground_truth(trial)
    return oracle_weights(truth.pool.scores, truth.false_negative), None


add("ccr", "CCR loss on top-k negatives", Strategy(top_k, lambda model, scale: CCRLoss(model), False))
add(
    "debiased",
    "debiased contrastive loss on top-k negatives",
    Strategy(top_k, lambda model, scale: DebiasedContrastiveLoss(model, scale=scale), False),
)
add(
    "correct-and-weight",
    "Correct-and-Weight loss (a reconstruction) on top-k negatives",
    Strategy(top_k, lambda model, scale: CorrectAndWeightLoss(model, scale=scale), False),
)
