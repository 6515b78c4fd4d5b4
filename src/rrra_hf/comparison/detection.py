"""Detectors of false negatives: scores of candidates, measured against the ground truth.

To add a detector, write a function from a trial to a score of each candidate, and register it with
`detector`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from ..candidates.reading import with_probability
from ..embeddings import CollectionEmbeddings, encode
from ..models.adapter_rrra import RetrieverAdapter
from .cells import Result
from .heuristics import margin_to_positive, perc_pos_margin, similarity_to_positive
from .measures import DETECTION_MEASURES, Detection
from .methods import Method, register
from .probabilities import by_cross_encoder, cross_fitted, in_sample
from .trial import Trial
from .truth import GroundTruth, ground_truth

Detector = Callable[[Trial], np.ndarray]
"""From a trial to a score of each candidate, `(n, depth)`. Higher means more likely to be relevant."""


def detector(
    name: str, about: str, *settings: str, probability: bool = False, **options: Any
) -> Callable[[Detector], Detector]:
    """Register a detector under a name.

    Args:
        name: Its name.
        about: Description in one line.
        *settings: Settings of `CompareArguments` that it depends on, besides those of the ground truth.
        probability: Whether its scores are probabilities. Their calibration is measured too.
        **options: Other fields of `Method`.
    """

    def add(score: Detector) -> Detector:
        def run(trial: Trial) -> Result:
            scores, seconds = trial.timed(lambda: score(trial))
            return _measured(ground_truth(trial), scores, seconds, probability)

        register(Method("detection", name, about, run, ("fit", "injected_rate", *settings), **options))
        return score

    return add


@detector("pretrained", "the adapter that comes trained, given one labelled document", probability=True)
def pretrained(trial: Trial) -> np.ndarray:
    """Return the probability of the adapter that comes with the package."""
    truth = ground_truth(trial)
    embeddings = CollectionEmbeddings(truth.training.embeddings, truth.documents, {})
    adapter = RetrieverAdapter.pretrained()
    pool = with_probability(truth.pool, adapter, embeddings, truth.training.words, truth.words)
    return np.asarray(pool.probability)


@detector(
    "features",
    "the same, calibrated on labels of other queries",
    "features_fit",
    "folds",
    "judge",
    probability=True,
)
def features(trial: Trial) -> np.ndarray:
    """Return the probability of adapters that never saw the labels of the query."""
    return cross_fitted(trial, trial.arguments.features_fit)


@detector("residual", "residual adapters, cross-fitted", "residual_fit", "folds", probability=True)
def residual(trial: Trial) -> np.ndarray:
    """Return the probability of residual adapters that never saw the labels of the query."""
    return cross_fitted(trial, trial.arguments.residual_fit)


@detector(
    "residual-in-sample",
    "a residual adapter, fitted on the same labels: no cross-fitting",
    "residual_fit",
    probability=True,
)
def residual_in_sample(trial: Trial) -> np.ndarray:
    """Return the probability of a residual adapter that saw the labels of the query."""
    return in_sample(trial)


@detector("similarity", "s(q, c)")
def similarity(trial: Trial) -> np.ndarray:
    """Return the retriever's own score."""
    return ground_truth(trial).pool.scores


@detector("margin-to-positive", "s(q, c) - s(q, p)")
def margin(trial: Trial) -> np.ndarray:
    """Return how far a candidate scores above the positive."""
    truth = ground_truth(trial)
    return margin_to_positive(truth.pool.scores, truth.positive_scores)


@detector("perc-pos", "(s(q, c) - s(q, p)) / |s(q, p)|")
def perc_pos(trial: Trial) -> np.ndarray:
    """Return the same relative to the positive's score."""
    truth = ground_truth(trial)
    return perc_pos_margin(truth.pool.scores, truth.positive_scores)


@detector("similarity-to-positive", "s(p, c)")
def to_positive(trial: Trial) -> np.ndarray:
    """Return the similarity to the labelled positive."""
    truth = ground_truth(trial)
    positives = [np.asarray(rows) for rows in truth.training.positives]
    return similarity_to_positive(truth.documents, truth.pool.candidates, positives)


@detector("guide", "cosine of a second encoder", "guide", needs="guide")
def guide(trial: Trial) -> np.ndarray:
    """Return the score of a second encoder."""
    from sentence_transformers import SentenceTransformer

    truth, task = ground_truth(trial), trial.task
    model = trial.once("guide", lambda: SentenceTransformer(trial.arguments.guide))
    queries = encode(model, task.training.texts, task="query", cache_dir=task.cache_dir)
    documents = encode(model, truth.collection.document_texts, task="document", cache_dir=task.cache_dir)
    candidates = np.maximum(truth.pool.candidates, 0)
    return np.stack([documents[rows] @ q for q, rows in zip(queries, candidates, strict=True)])


@detector(
    "cross-encoder",
    "relevance according to a cross-encoder",
    "cross_encoder",
    probability=True,
    needs="cross_encoder",
)
def cross_encoder(trial: Trial) -> np.ndarray:
    """Return the probability of a cross-encoder."""
    return by_cross_encoder(trial)


def _measured(truth: GroundTruth, scores: np.ndarray, seconds: float, probability: bool) -> Result:
    present = truth.pool.candidates >= 0
    detection = Detection(scores, truth.false_negative, present, probability)
    measured = {name: measure(detection) for name, measure in DETECTION_MEASURES.items()}
    figures: dict[str, Any] = {
        "protocol": truth.protocol,
        **{name: figure for name, figure in measured.items() if figure is not None},
        "interval": list(detection.quality.average_precision_interval),
        "base rate": detection.quality.base_rate,
        "pairs": detection.quality.num_pairs,
    }
    if detection.calibration is not None:
        bins = detection.calibration.bins
        figures["reliability"] = {
            "probability": bins.mean_probability.tolist(),
            "share": bins.share.tolist(),
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
