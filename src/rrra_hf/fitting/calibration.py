"""Calibrating an adapter: its probabilities match the share of relevant documents."""

from __future__ import annotations

import logging

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ..candidates import DocumentFeatures
from ..candidates.reading import read_candidates
from ..candidates.retrieved import RetrievedCandidates
from ..evaluation import expected_calibration_error, reliability_bins
from ..models.adapter_rrra import RetrieverAdapter

logger = logging.getLogger(__name__)

# Bins of a reliability plot.
RELIABILITY_BINS = 10
# Log-odds with a smaller slope are taken to say nothing.
MIN_SLOPE = 1e-4


def calibrate(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures,
    weights: np.ndarray | None = None,
) -> None:
    """Set temperature and bias so that probabilities match the share of labelled development candidates.

    This is Platt scaling. A listwise objective leaves the level of the log-odds free, so a temperature alone
    could not calibrate them. If the log-odds don't rise with relevance, every candidate gets the share of
    labelled candidates as its probability.

    Args:
        adapter: The adapter; its configuration and bias are changed.
        development: What is retrieved for the development queries.
        documents: Document embeddings as indexed, `(m, dim)`.
        features: Features of the documents.
        weights: How much each candidate counts, `(n, depth)`; all the same if not given.

    Source:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    queries, rows, take = development.queries, development.rows, documents.__getitem__
    reading = read_candidates(adapter, queries, rows, take, features, development.words)
    logits, labels = reading.relevance.numpy().ravel(), development.relevant.ravel()
    slope, intercept = _platt(logits, labels, np.ones(labels.shape) if weights is None else weights.ravel())
    adapter.config.temperature = 1.0 / slope
    adapter.reader.shift_log_odds(intercept / slope)
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
    logger.warning("The adapter's log-odds don't rise with relevance on the development queries.")
    share = ((labels * weights).sum() + 0.5) / (weights.sum() + 1)
    return MIN_SLOPE, float(np.log(share / (1 - share)))
