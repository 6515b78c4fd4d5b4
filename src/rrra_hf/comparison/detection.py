"""How well false negatives are found, by the adapter and by what is in use, against ground truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ..embeddings import encode
from ..evaluation import calibration_quality, detection_quality
from .cells import Result
from .heuristics import margin_to_positive, perc_pos_margin, similarity_to_positive
from .methods import Method, register
from .trial import Trial
from .truth import (
    GroundTruth,
    cross_encoder_probabilities,
    feature_probabilities,
    ground_truth,
    in_sample_probabilities,
    probabilities,
)

RESAMPLES = 200
BINS = 15

Detector = Callable[[Trial], np.ndarray]
"""From a trial to a score of each candidate of its ground truth, `(n, depth)`; the greater, the likelier."""


def detector(
    name: str, about: str, *settings: str, probability: bool = False, **options: Any
) -> Callable[[Detector], Detector]:
    """Register a detector under a name.

    Args:
        name: Its name.
        about: What it is, in a line.
        *settings: Further fields of `CompareArguments` that it depends on.
        probability: Whether its scores are probabilities, so that their calibration counts.
        **options: Further fields of `Method`.
    """

    def add(score: Detector) -> Detector:
        def run(trial: Trial) -> Result:
            scores, seconds = trial.timed(lambda: score(trial))
            return _measured(ground_truth(trial), scores, seconds, probability)

        register(Method("detection", name, about, run, ("fit", "injected_rate", *settings), **options))
        return score

    return add


@detector("adapter", "false-negative probability, cross-fitted", "folds", probability=True)
def adapter(trial: Trial) -> np.ndarray:
    """Ask adapters that never saw the query's labels."""
    return probabilities(trial)


@detector("features", "false-negative probability from all features, cross-fitted", "folds", probability=True)
def features(trial: Trial) -> np.ndarray:
    """Ask heads that read features and never saw the query's labels."""
    return feature_probabilities(trial)


@detector("adapter-in-sample", "the same by an adapter that saw the labels", probability=True)
def adapter_in_sample(trial: Trial) -> np.ndarray:
    """Ask an adapter that was fitted on the query's labels."""
    return in_sample_probabilities(trial)


@detector("similarity", "s(q, c)")
def similarity(trial: Trial) -> np.ndarray:
    """Take the retriever's own score."""
    return ground_truth(trial).pool.scores


@detector("margin-to-positive", "s(q, c) - s(q, p)")
def margin(trial: Trial) -> np.ndarray:
    """Take how far a candidate is above the positive."""
    truth = ground_truth(trial)
    return margin_to_positive(truth.pool.scores, truth.positive_scores)


@detector("perc-pos", "(s(q, c) - s(q, p)) / |s(q, p)|")
def perc_pos(trial: Trial) -> np.ndarray:
    """Take the same relative to the positive's score."""
    truth = ground_truth(trial)
    return perc_pos_margin(truth.pool.scores, truth.positive_scores)


@detector("similarity-to-positive", "s(p, c)")
def to_positive(trial: Trial) -> np.ndarray:
    """Take the similarity to the labelled positive."""
    truth = ground_truth(trial)
    positives = [np.asarray(rows) for rows in truth.training.positives]
    return similarity_to_positive(truth.documents, truth.pool.candidates, positives)


@detector("guide", "cosine by another encoder", "guide", needs="guide")
def guide(trial: Trial) -> np.ndarray:
    """Take another encoder's score."""
    from sentence_transformers import SentenceTransformer

    truth, task = ground_truth(trial), trial.task
    model = trial.once("guide", lambda: SentenceTransformer(trial.arguments.guide))
    queries = encode(model, task.training.texts, task="query", cache_dir=task.cache_dir)
    documents = encode(model, truth.collection.document_texts, task="document", cache_dir=task.cache_dir)
    candidates = np.maximum(truth.pool.candidates, 0)
    return np.stack([documents[rows] @ q for q, rows in zip(queries, candidates, strict=True)])


@detector(
    "cross-encoder",
    "relevance by a cross-encoder",
    "cross_encoder",
    probability=True,
    needs="cross_encoder",
)
def cross_encoder(trial: Trial) -> np.ndarray:
    """Take the probability that a cross-encoder gives."""
    return cross_encoder_probabilities(trial)


def _measured(truth: GroundTruth, scores: np.ndarray, seconds: float, probability: bool) -> Result:
    present = truth.pool.candidates >= 0
    quality = detection_quality(scores, truth.false_negative, present, resamples=RESAMPLES)
    figures: dict[str, Any] = {
        "protocol": truth.protocol,
        "average precision": quality.average_precision,
        "interval": list(quality.average_precision_interval),
        "AUROC": quality.auroc,
        "precision at 1 %": quality.precision_at_1_percent,
        "precision at 5 %": quality.precision_at_5_percent,
        "base rate": quality.base_rate,
        "pairs": quality.num_pairs,
    }
    if probability:
        calibration = calibration_quality(scores, truth.false_negative, present, bins=BINS)
        figures["ECE"] = calibration.expected_calibration_error
        figures["reliability"] = {
            "probability": calibration.bins.mean_probability.tolist(),
            "share": calibration.bins.share.tolist(),
        }
    query, place = np.nonzero(present)
    rows = pa.table(
        {
            "query_id": pa.array(truth.pool.query_ids).take(pa.array(query)),
            "document_id": pa.array(truth.pool.document_ids).take(pa.array(truth.pool.candidates[present])),
            "false_negative": truth.false_negative[query, place],
            "score": scores[query, place].astype(np.float32),
        }
    )
    return Result(figures, rows, seconds)
