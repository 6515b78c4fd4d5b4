"""Probabilities that the candidates of a trial's ground truth are relevant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit

from ..candidates.reading import candidate_probabilities
from ..fitting import FitArguments, ResidualFitArguments, cross_fit, fit_adapter
from .cross_encoder import cross_encoder_scores
from .trial import Trial
from .truth import ground_truth


def cross_fitted(trial: Trial, fit: FitArguments | ResidualFitArguments) -> np.ndarray:
    """Return the probabilities of adapters that never saw the labels of the query, `(n, depth)`; made once.

    Args:
        trial: The trial.
        fit: Settings of the fits. The seed is the trial's.
    """
    truth = ground_truth(trial)

    def make() -> np.ndarray:
        fitted = cross_fit(
            truth.pool,
            truth.training.embeddings,
            truth.documents,
            arguments=replace(fit, seed=trial.seed),
            folds=trial.arguments.folds,
            query_words=truth.training.words,
            document_words=truth.words,
        ).probability
        assert fitted is not None
        return fitted

    return trial.once(("cross-fitted", fit), make)


def in_sample(trial: Trial) -> np.ndarray:
    """Return the probabilities of one residual adapter that saw all labels, `(n, depth)`."""
    truth = ground_truth(trial)
    queries, documents = truth.training.embeddings, truth.documents
    arguments = replace(trial.arguments.residual_fit, seed=trial.seed)
    adapter = fit_adapter(queries, documents, pool=truth.pool, arguments=arguments)
    return candidate_probabilities(adapter, queries, truth.pool.candidates, documents)


def by_cross_encoder(trial: Trial) -> np.ndarray:
    """Return the probabilities of the cross-encoder, `(n, depth)`; made once."""
    truth = ground_truth(trial)
    queries, documents = trial.task.training.texts, truth.collection.document_texts
    return trial.once(
        "cross-encoder probabilities",
        lambda: expit(cross_encoder_scores(trial, queries, documents, truth.pool.candidates)),
    )
