"""Measures of ranking, false-negative detection, calibration and significance: arrays in, numbers out."""

from .arrays import membership, ndcg_per_query, reorder
from .calibration import ReliabilityBins, expected_calibration_error, reliability_bins
from .detection import CalibrationQuality, DetectionQuality, calibration_quality, detection_quality
from .ranking import DEFAULT_MEASURES, RankingQuality, named_rankings, parse_measure, ranking_quality
from .seen import QueryGroup, seen_queries, split_by_seen
from .significance import PairedComparison, compare_paired, holm, randomisation_test

__all__ = [
    "DEFAULT_MEASURES",
    "CalibrationQuality",
    "DetectionQuality",
    "PairedComparison",
    "QueryGroup",
    "RankingQuality",
    "ReliabilityBins",
    "calibration_quality",
    "compare_paired",
    "detection_quality",
    "expected_calibration_error",
    "holm",
    "membership",
    "named_rankings",
    "ndcg_per_query",
    "parse_measure",
    "randomisation_test",
    "ranking_quality",
    "reliability_bins",
    "reorder",
    "seen_queries",
    "split_by_seen",
]
