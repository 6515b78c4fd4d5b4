"""Measures of rankings and of false-negative detection, by name.

To add a measure, write a function and register it with `ranking_measure` or `detection_measure`. Tables and
reports then have a column for it. Cells that were run without it are refused and have to be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..evaluation import (
    CalibrationQuality,
    DetectionQuality,
    calibration_quality,
    detection_quality,
    ranking_quality,
)

NDCG = "nDCG@10"
EXPONENTIAL_NDCG = "exponential nDCG@10"
AVERAGE_PRECISION = "average precision"
RESAMPLES = 200
BINS = 15

Qrels = Mapping[str, Mapping[str, int]]


# -------------------------------------------------------------------- rankings


class Rankings(NamedTuple):
    """Ranked documents of some queries, with their relevance labels.

    Args:
        query_ids: The queries, `n`.
        results: For each query id its hits, best first, as `ranking_quality` takes them.
        qrels: For each query id its relevant documents and their grades.
    """

    query_ids: list[str]
    results: Mapping[str, list[dict[str, str]]]
    qrels: Qrels

    def measured(self, name: str, qrels: Qrels | None = None) -> np.ndarray:
        """Return a measure of `ranking_quality` for each query, `(n,)`.

        Args:
            name: Its name.
            qrels: Other labels; `self.qrels` if not given.
        """
        quality = ranking_quality(self.results, self.qrels if qrels is None else qrels, [name])
        by_query = dict(zip(quality.query_ids, quality.per_query[name], strict=True))
        return np.array([by_query[query] for query in self.query_ids])


RankingMeasure = Callable[[Rankings], np.ndarray]
"""From rankings to one figure per query, `(n,)`; higher is better."""

RANKING_MEASURES: dict[str, RankingMeasure] = {}


def ranking_measure(name: str) -> Callable[[RankingMeasure], RankingMeasure]:
    """Register a measure of rankings under a name."""

    def add(measure: RankingMeasure) -> RankingMeasure:
        RANKING_MEASURES[name] = measure
        return measure

    return add


def _by_name(name: str) -> RankingMeasure:
    return lambda rankings: rankings.measured(name)


for _name in (NDCG, "R@1", "R@10", "R@100"):
    ranking_measure(_name)(_by_name(_name))


@ranking_measure(EXPONENTIAL_NDCG)
def _exponential_ndcg(rankings: Rankings) -> np.ndarray:
    """A gain of 2^grade - 1. The gain of nDCG@10 is the grade itself, as in trec_eval."""
    exponential = {
        query: {document: 2 ** max(grade, 0) - 1 for document, grade in grades.items()}
        for query, grades in rankings.qrels.items()
    }
    return rankings.measured("nDCG@10", exponential)


# -------------------------------------------------------------------- detection


@dataclass(frozen=True, eq=False)
class Detection:
    """Scores of candidates, with the ground truth.

    Args:
        scores: Scores of the candidates, `(n, k)`. Higher means more likely to be relevant.
        false_negative: Which candidates are known false negatives, `(n, k)` bool.
        present: Which places hold a candidate, `(n, k)` bool.
        is_probability: Whether the scores are probabilities.
    """

    scores: np.ndarray
    false_negative: np.ndarray
    present: np.ndarray
    is_probability: bool

    @cached_property
    def quality(self) -> DetectionQuality:
        """How well the scores separate false negatives from other candidates."""
        return detection_quality(self.scores, self.false_negative, self.present, resamples=RESAMPLES)

    @cached_property
    def calibration(self) -> CalibrationQuality | None:
        """How well probabilities match the observed share; None for other scores."""
        if not self.is_probability:
            return None
        return calibration_quality(self.scores, self.false_negative, self.present, bins=BINS)


DetectionMeasure = Callable[[Detection], float | None]
"""From a detection to one figure; None if it isn't defined for these scores."""

DETECTION_MEASURES: dict[str, DetectionMeasure] = {}


def detection_measure(name: str) -> Callable[[DetectionMeasure], DetectionMeasure]:
    """Register a measure of detection under a name."""

    def add(measure: DetectionMeasure) -> DetectionMeasure:
        DETECTION_MEASURES[name] = measure
        return measure

    return add


detection_measure(AVERAGE_PRECISION)(lambda detection: detection.quality.average_precision)
detection_measure("AUROC")(lambda detection: detection.quality.auroc)
detection_measure("precision at 1 %")(lambda detection: detection.quality.precision_at_1_percent)
detection_measure("precision at 5 %")(lambda detection: detection.quality.precision_at_5_percent)


@detection_measure("ECE")
def _expected_calibration_error(detection: Detection) -> float | None:
    return None if detection.calibration is None else detection.calibration.expected_calibration_error
