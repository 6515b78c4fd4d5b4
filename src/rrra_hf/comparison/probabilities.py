"""Probabilities that the candidates of a trial's ground truth are relevant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit

from ..candidates import CandidatePool
from ..candidates.reading import judge_candidates
from ..fitting import FitArguments, ResidualFitArguments, cross_fit, fit_adapter
from ..models.adapter_rrra import RetrieverAdapter
from .cross_encoder import cross_encoder_scores
from .trial import Trial
from .truth import ground_truth


def judged_pool(trial: Trial, fit: FitArguments | ResidualFitArguments | None = None) -> CandidatePool:
    """Return the candidates as adapters that never saw the labels of the query judge them; made once.

    Args:
        trial: The trial. Its `judge` takes the place of the adapter that comes trained.
        fit: Settings of the fits; by default those of the trial for features. The seed is the trial's.
    """
    truth, judge = ground_truth(trial), trial.arguments.judge
    fit = trial.arguments.features_fit if fit is None else fit

    def make() -> CandidatePool:
        adapter = None
        if judge is not None and isinstance(fit, FitArguments):
            adapter = RetrieverAdapter.from_pretrained(judge)
        return cross_fit(
            truth.pool,
            truth.training.embeddings,
            truth.documents,
            arguments=replace(fit, seed=trial.seed),
            folds=trial.arguments.folds,
            query_words=truth.training.words,
            document_words=truth.words,
            adapter=adapter,
        )

    return trial.once(("judged", fit), make)


def cross_fitted(trial: Trial, fit: FitArguments | ResidualFitArguments) -> np.ndarray:
    """Return the probabilities of `judged_pool`, `(n, depth)`."""
    return judged_pool(trial, fit).required_probability


def in_sample(trial: Trial) -> np.ndarray:
    """Return the probabilities of one residual adapter that saw all labels, `(n, depth)`."""
    truth = ground_truth(trial)
    queries, documents = truth.training.embeddings, truth.documents
    arguments = replace(trial.arguments.residual_fit, seed=trial.seed)
    adapter = fit_adapter(queries, documents, pool=truth.pool, arguments=arguments)
    return judge_candidates(adapter, queries, truth.pool.candidates, documents).probability


def by_cross_encoder(trial: Trial) -> np.ndarray:
    """Return the probabilities of the cross-encoder, `(n, depth)`; made once."""
    truth = ground_truth(trial)
    queries, documents = trial.task.training.texts, truth.collection.document_texts
    return trial.once(
        "cross-encoder probabilities",
        lambda: expit(cross_encoder_scores(trial, queries, documents, truth.pool.candidates)),
    )
