"""What the probability of relevance says about labels: weights and draws of negatives, and mended labels."""

from .decisions import Decision, Decisions
from .draws import draw, draw_negatives
from .drop_above_positive import best_positive_scores, drop_above_positive
from .hard_negatives import mine_hard_negatives
from .judges import CrossEncoderJudge, OpenAIJudge, open_judge
from .judging import Judging, cost_of_judging, judge_uncertain
from .next_pair import worth
from .page import write_page
from .recalibrate import Recalibration, recalibrate
from .relabel import relabel
from .weights import rrra_strategy, rrra_weights

__all__ = [
    "CrossEncoderJudge",
    "Decision",
    "Decisions",
    "Judging",
    "OpenAIJudge",
    "Recalibration",
    "best_positive_scores",
    "cost_of_judging",
    "draw",
    "draw_negatives",
    "drop_above_positive",
    "judge_uncertain",
    "mine_hard_negatives",
    "open_judge",
    "recalibrate",
    "relabel",
    "rrra_strategy",
    "rrra_weights",
    "worth",
    "write_page",
]
