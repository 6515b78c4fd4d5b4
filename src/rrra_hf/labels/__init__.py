"""What the probability of relevance says about labels: weights and draws of negatives."""

from .draws import draw, draw_negatives
from .drop_above_positive import best_positive_scores, drop_above_positive
from .weights import rrra_strategy, rrra_weights

__all__ = [
    "best_positive_scores",
    "draw",
    "draw_negatives",
    "drop_above_positive",
    "rrra_strategy",
    "rrra_weights",
]
