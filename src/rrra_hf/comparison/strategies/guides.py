"""Strategies that ask a guide about the candidates: the encoder, a cross-encoder, or the ground truth."""

from __future__ import annotations

import numpy as np

from ..negatives import oracle_weights, rocketqa_denoise_weights
from ..probabilities import by_cross_encoder
from ..trial import Trial
from ..truth import ground_truth
from .chances import Chances
from .heuristics import TOP_K, top_k
from .registry import strategy


@strategy("gist", "top-k, masked if the frozen encoder scores them above the positive (GISTEmbed)")
def gist(trial: Trial) -> Chances:
    """Mask candidates that a guide, here the frozen encoder, scores above the positive."""
    truth, (chances, _) = ground_truth(trial), top_k(trial)
    return chances, (truth.pool.scores <= truth.positive_scores[:, None]).astype(np.float64)


@strategy(
    "rocketqa",
    f"RocketQA denoising: of the {TOP_K} best, those that a cross-encoder scores as irrelevant",
    "cross_encoder",
    needs="cross_encoder",
)
def rocketqa(trial: Trial) -> Chances:
    """Keep candidates with a cross-encoder probability below .1."""
    scores = ground_truth(trial).pool.scores
    return rocketqa_denoise_weights(scores, by_cross_encoder(trial), top_k=TOP_K), None


@strategy(
    "oracle",
    "uniform over the candidates that are not known false negatives: what leaving them out can reach",
)
def oracle(trial: Trial) -> Chances:
    """Drop candidates that are relevant according to the ground truth."""
    truth = ground_truth(trial)
    return oracle_weights(truth.pool.scores, truth.false_negative), None
