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
            document_words=truth.document_words,
        ).probability
        assert fitted is not None
        return fitted

    return trial.once(("cross-fitted", fit), make)


def in_sample(trial: Trial, fit: FitArguments | ResidualFitArguments) -> np.ndarray:
    """Return the probabilities of one adapter that saw all labels, `(n, depth)`; made once.

    Args:
        trial: The trial.
        fit: Settings of the fit. The seed is the trial's.
    """
    truth = ground_truth(trial)
    queries, words = truth.training.embeddings, truth.training.words

    def make() -> np.ndarray:
        adapter = fit_adapter(
            queries,
            truth.documents,
            pool=truth.pool,
            arguments=replace(fit, seed=trial.seed),
            query_words=words,
            document_words=truth.document_words,
        )
        return candidate_probabilities(
            adapter, queries, truth.pool.candidates, truth.documents, words, truth.document_words
        )

    return trial.once(("in-sample", fit), make)


def by_cross_encoder(trial: Trial) -> np.ndarray:
    """Return the probabilities of the cross-encoder, `(n, depth)`; made once."""
    truth = ground_truth(trial)
    queries, documents = trial.task.training.texts, truth.collection.document_texts
    return trial.once(
        "cross-encoder probabilities",
        lambda: expit(cross_encoder_scores(trial, queries, documents, truth.pool.candidates)),
    )
