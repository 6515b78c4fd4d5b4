"""Measures of ranking quality and calibration: arrays in, numbers out."""

from .arrays import ndcg_per_query, reorder
from .calibration import expected_calibration_error
from .ranking import DEFAULT_MEASURES, RankingQuality, parse_measure, ranking_quality

__all__ = [
    "DEFAULT_MEASURES",
    "RankingQuality",
    "expected_calibration_error",
    "ndcg_per_query",
    "parse_measure",
    "ranking_quality",
    "reorder",
]
