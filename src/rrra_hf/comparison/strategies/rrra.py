"""Strategies that use the false-negative probability of an adapter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...labels import drop_above_positive, rrra_strategy, rrra_weights
from ..probabilities import cross_fitted
from ..trial import Trial
from ..truth import ground_truth
from .chances import Chances
from .registry import strategy

FEATURES = ("features_fit", "gamma", "folds", "judge")
RESIDUAL = ("residual_fit", "gamma", "folds")


@strategy("rrra", "uniform draws, weighted by (1 - p) ** gamma in the softmax", *FEATURES)
def rrra(trial: Trial) -> Chances:
    """Weight each candidate by its cross-fitted probability of being irrelevant."""
    return _weighted(trial, cross_fitted(trial, trial.arguments.features_fit))


@strategy("rrra-drop-above-positive", "the same, and candidates above the positive weigh 0", *FEATURES)
def rrra_drop_above_positive(trial: Trial) -> Chances:
    """Also drop candidates that the frozen encoder scores above the positive."""
    truth, probability = ground_truth(trial), cross_fitted(trial, trial.arguments.features_fit)
    pool = drop_above_positive(replace(truth.pool, probability=probability), truth.positive_scores)
    return rrra_strategy(pool, trial.arguments.gamma)


@strategy("rrra-sample", "draws in proportion to (1 - p) ** gamma, as in the paper", *FEATURES)
def rrra_sample(trial: Trial) -> Chances:
    """Draw each candidate in proportion to its weight, instead of weighting it in the softmax."""
    probability = cross_fitted(trial, trial.arguments.features_fit)
    return rrra_weights(probability, trial.arguments.gamma), None


@strategy("rrra-residual", "weights from residual adapters, cross-fitted", *RESIDUAL)
def rrra_residual(trial: Trial) -> Chances:
    """Weight each candidate by residual adapters, the paper's kind."""
    return _weighted(trial, cross_fitted(trial, trial.arguments.residual_fit))


def _weighted(trial: Trial, probability: np.ndarray) -> Chances:
    pool = replace(ground_truth(trial).pool, probability=probability)
    return rrra_strategy(pool, trial.arguments.gamma)
