"""Calibrating an adapter: its probabilities match the share of relevant documents."""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ..candidates import DocumentFeatures
from ..candidates.hybrid import take_from
from ..candidates.reading import read_candidates
from ..candidates.retrieved import RetrievedCandidates
from ..evaluation import expected_calibration_error, reliability_bins
from ..models.adapter_rrra import RetrieverAdapter
from ..models.reader_rrra import FeatureReader
from ..models.residual_rrra import ResidualReader
from .gathered import GatheredFeatures

logger = logging.getLogger(__name__)

# Bins of a reliability plot.
RELIABILITY_BINS = 10
# Log-odds with a smaller slope are taken to say nothing.
MIN_SLOPE = 1e-4
# Labelled candidates that a trained head is adjusted to at least. Probabilities from fewer are rough.
MIN_POSITIVES = 20


def calibrate(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures,
) -> None:
    """Set a residual adapter's temperature and bias to the share of labelled development candidates.

    This is Platt scaling. A listwise objective leaves the level of the log-odds free, so a temperature alone
    could not calibrate them. If the log-odds don't rise with relevance, every candidate gets the share of
    labelled candidates as its probability.

    Args:
        adapter: The adapter; its configuration and bias are changed.
        development: What is retrieved for the development queries.
        documents: Document embeddings as indexed, `(m, dim)`.
        features: Features of the documents.

    Source:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    queries, rows, take = development.queries, development.rows, take_from(documents)
    reading = read_candidates(adapter, queries, rows, take, features, development.words)
    logits, labels = reading.relevance.numpy()[rows >= 0], development.relevant[rows >= 0]
    slope, intercept = _platt(logits, labels)
    adapter.config.temperature = 1.0 / slope
    assert isinstance(adapter.reader, ResidualReader)
    adapter.reader.shift_log_odds(intercept / slope)
    probabilities = expit(slope * logits + intercept)
    error = expected_calibration_error(probabilities, labels)
    labelled = int(labels.sum())
    if labelled < MIN_POSITIVES:
        logger.warning(
            "The probabilities are rough: they are calibrated on %d labelled candidates of %d queries.",
            labelled,
            len(rows),
        )
    adapter.config.fit["development"] = {
        "rough": labelled < MIN_POSITIVES,
        "expected_calibration_error": error,
        "reliability": reliability_bins(probabilities, labels, RELIABILITY_BINS, equal_width=True).to_dict(),
    }
    logger.info("Temperature %.2f, expected calibration error %.4f", 1.0 / slope, error)


def _platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of the labels on the logits."""
    if labels.any() and not labels.all():
        regression = LogisticRegression(C=np.inf).fit(logits.reshape(-1, 1), labels)
        slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
        if slope > MIN_SLOPE:
            return slope, intercept
    logger.warning("The adapter's log-odds don't rise with relevance on the development queries.")
    share = (labels.sum() + 0.5) / (len(labels) + 1)
    return MIN_SLOPE, float(np.log(share / (1 - share)))


def calibrate_relevance(adapter: RetrieverAdapter, gathered: GatheredFeatures) -> None:
    """Adjust the log-odds of a relevance head that comes trained to the labels of a collection.

    The labels tell how many candidates are relevant, and how fast the odds of relevance rise with the
    head's log-odds; both also if one relevant document is known, for queries with several labels.
    With fewer than `MIN_POSITIVES` labelled candidates, nothing is changed.

    Args:
        adapter: The adapter; its configuration and relevance head are changed.
        gathered: What unseen queries retrieve.

    Source:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    reader = adapter.reader
    assert isinstance(reader, FeatureReader)
    read, known, labels = [], [], []
    rows = np.arange(len(gathered.known))
    # Candidates without a label count as irrelevant, as known negatives do. Judged ones alone would say too
    # little of how many are relevant, as nobody judges at random: in simulations on nine collections, the
    # expected calibration error is 0.060 with them alone and 0.029 with all.
    for given_one in (False, True):
        judged = gathered.present.clone()
        if given_one:
            judged &= torch.from_numpy(gathered.known >= 0)[:, None]
            judged[rows, np.maximum(gathered.known, 0)] = False
        with torch.no_grad():
            log_odds = reader.relevance_head(gathered.of(reader.relevance, given_one)[judged])
        read.append(log_odds.numpy())
        labels.append(gathered.relevant[judged].numpy())
        known.append(np.full(len(log_odds), float(given_one)))
    logits, with_one, relevant = map(np.concatenate, (read, known, labels))
    if relevant.sum() < MIN_POSITIVES:
        logger.info("Too few labelled candidates to calibrate on: the probabilities stay as they came.")
        return
    inputs = np.column_stack([logits, with_one])
    regression = LogisticRegression(C=np.inf).fit(inputs, relevant)
    slope, step = map(float, regression.coef_[0])
    if slope <= MIN_SLOPE:
        logger.warning("The adapter's log-odds don't rise with relevance; they are kept as they are.")
        return
    adapter.config.temperature = 1.0 / slope
    with torch.no_grad():
        head = reader.relevance_head
        place = reader.relevance.index("has_labelled")
        head.linear.bias.add_((float(regression.intercept_[0]) + step * float(head.mean[place])) / slope)
        head.linear.weight[0, place] += step / slope * head.deviation[place]
    probabilities = regression.predict_proba(inputs)[:, 1]
    adapter.config.fit["calibration"] = {
        "expected_calibration_error": expected_calibration_error(probabilities, relevant),
        "reliability": reliability_bins(
            probabilities, relevant, RELIABILITY_BINS, equal_width=True
        ).to_dict(),
    }
