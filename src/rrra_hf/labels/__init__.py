"""What the probability of relevance says about labels: weights and draws of negatives, and mended labels."""

from .audit import Audit, audit
from .draws import draw, draw_negatives
from .drop_above_positive import best_positive_scores, drop_above_positive
from .effect import Effect, effect_on_evaluation
from .hard_negatives import mine_hard_negatives
from .judges import CrossEncoderJudge, OpenAIJudge, open_judge
from .mended import Mended, mend
from .missing import Missing, missing_labels
from .relabel import relabel
from .review import (
    Decision,
    Decisions,
    Judging,
    Recalibration,
    cost_of_judging,
    judge_uncertain,
    recalibrate,
    worth,
    write_page,
)
from .suspects import drop_strategy
from .weights import rrra_strategy, rrra_weights

__all__ = [
    "Audit",
    "CrossEncoderJudge",
    "Decision",
    "Decisions",
    "Effect",
    "Judging",
    "Mended",
    "Missing",
    "OpenAIJudge",
    "Recalibration",
    "audit",
    "best_positive_scores",
    "cost_of_judging",
    "draw",
    "draw_negatives",
    "drop_above_positive",
    "drop_strategy",
    "effect_on_evaluation",
    "judge_uncertain",
    "mend",
    "mine_hard_negatives",
    "missing_labels",
    "open_judge",
    "recalibrate",
    "relabel",
    "rrra_strategy",
    "rrra_weights",
    "worth",
    "write_page",
]
