"""What the probability of relevance says about labels."""

from .above_positive import best_positive_scores, drop_above_positive
from .draws import draw
from .weights import draw_negatives, rrra_strategy, rrra_weights

__all__ = [
    "best_positive_scores",
    "draw",
    "draw_negatives",
    "drop_above_positive",
    "rrra_strategy",
    "rrra_weights",
]
