"""Measures of ranking, false-negative detection, calibration and significance: arrays in, numbers out."""

from .arrays import ndcg_per_query, reorder
from .calibration import ReliabilityBins, expected_calibration_error, reliability_bins
from .false_negatives import (
    CalibrationQuality,
    DetectionQuality,
    average_precision_resamples,
    calibration_quality,
    detection_quality,
)
from .heuristics import best_positive_scores, margin_to_positive, perc_pos_margin, similarity_to_positive
from .hidden_positives import (
    HiddenPositives,
    InjectedPositives,
    hide_positives,
    inject_positives,
    membership,
    near_duplicate_embeddings,
    near_duplicate_texts,
)
from .ranking import DEFAULT_MEASURES, RankingQuality, named_rankings, parse_measure, ranking_quality
from .seen import QueryGroup, seen_queries, split_by_seen
from .significance import PairedComparison, compare_paired, holm, randomisation_test

__all__ = [
    "DEFAULT_MEASURES",
    "CalibrationQuality",
    "DetectionQuality",
    "HiddenPositives",
    "InjectedPositives",
    "PairedComparison",
    "QueryGroup",
    "RankingQuality",
    "ReliabilityBins",
    "average_precision_resamples",
    "best_positive_scores",
    "calibration_quality",
    "compare_paired",
    "detection_quality",
    "expected_calibration_error",
    "hide_positives",
    "holm",
    "inject_positives",
    "margin_to_positive",
    "membership",
    "named_rankings",
    "ndcg_per_query",
    "near_duplicate_embeddings",
    "near_duplicate_texts",
    "parse_measure",
    "perc_pos_margin",
    "randomisation_test",
    "ranking_quality",
    "reliability_bins",
    "reorder",
    "seen_queries",
    "similarity_to_positive",
    "split_by_seen",
]
