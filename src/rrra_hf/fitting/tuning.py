"""Reading a fitted head: calibrating its probabilities and choosing its weight in the ranking."""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ..candidates import DocumentFeatures
from ..candidates.labelled import RetrievedCandidates
from ..candidates.reading import read_candidates
from ..evaluation import expected_calibration_error, ndcg_per_query, reliability_bins, reorder
from ..models.adapter_rrra import RetrieverAdapter
from .strength import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
CORRECTION_LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Bins of a reliability plot.
RELIABILITY_BINS = 10
# Logits that tell less than this are taken to tell nothing.
MIN_SLOPE = 1e-4


def lambdas(adapter: RetrieverAdapter) -> tuple[float, ...]:
    """Return the weights to choose from; a correction is on the scale of the retriever's score already."""
    return LAMBDAS if adapter.features is None else CORRECTION_LAMBDAS


def quality_by_lambda(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures | None = None,
) -> np.ndarray:
    """Return nDCG@10 of each development query under each lambda, `(len(lambdas(adapter)), n)`."""
    reading = read_candidates(
        adapter, development.queries, development.rows, documents, features, development.words
    )
    cosines = torch.from_numpy(development.cosines)
    rankings = [
        reorder(development.relevant, adapter.combine(cosines, reading.corrections, lambda_).numpy())
        for lambda_ in lambdas(adapter)
    ]
    return np.stack([ndcg_per_query(ranking, development.num_relevant) for ranking in rankings])


def choose_lambda(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures | None = None,
) -> None:
    """Set the weight of the adapter in the reranking score, by the one-standard-error rule, 0 allowed."""
    qualities, strengths = quality_by_lambda(adapter, development, documents, features), lambdas(adapter)
    row = smallest_within_one_standard_error(strengths, qualities)
    adapter.config.lambda_ = strengths[row]
    adapter.config.fit["development"] = {
        "queries": qualities.shape[1],
        "nDCG@10": {"encoder": float(qualities[0].mean()), "adapter": float(qualities[row].mean())},
        "lambda": strengths[row],
        **adapter.config.fit.get("development", {}),
    }
    logger.info(
        "lambda %.2f: development nDCG@10 %.4f (%.4f without)",
        strengths[row],
        qualities[row].mean(),
        qualities[0].mean(),
    )


def calibrate(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures | None = None,
    weights: np.ndarray | None = None,
) -> None:
    """Set temperature and bias so that probabilities match the share of labelled development candidates.

    With weights, `(n, k)`, each candidate counts that much.

    Platt scaling: a listwise objective leaves the level of the logits free, so a temperature alone
    could not calibrate them. Where the logits do not rise with relevance, every candidate gets the
    share of labelled ones as its probability.
    """
    reading = read_candidates(
        adapter, development.queries, development.rows, documents, features, development.words
    )
    logits, labels = reading.logits.numpy().ravel(), development.relevant.ravel()
    slope, intercept = _platt(logits, labels, np.ones(labels.shape) if weights is None else weights.ravel())
    adapter.config.temperature = 1.0 / slope
    adapter.shift_log_odds(intercept / slope)
    probabilities = expit(slope * logits + intercept)
    error = expected_calibration_error(probabilities, labels)
    adapter.config.fit["development"] = {
        "expected_calibration_error": error,
        "reliability": reliability_bins(probabilities, labels, RELIABILITY_BINS, equal_width=True).to_dict(),
    }
    logger.info("Temperature %.2f, expected calibration error %.4f", 1.0 / slope, error)


def _platt(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of the labels on the logits."""
    if labels.any() and not labels.all():
        regression = LogisticRegression(C=np.inf).fit(logits.reshape(-1, 1), labels, weights)
        slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
        if slope > MIN_SLOPE:
            return slope, intercept
    logger.warning("The adapter's logits do not rise with relevance on the development queries.")
    share = ((labels * weights).sum() + 0.5) / (weights.sum() + 1)
    return MIN_SLOPE, float(np.log(share / (1 - share)))
