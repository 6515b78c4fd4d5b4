"""Decisions about suspects: who makes them, which pair is next, what the probabilities learn from them."""

from .decisions import Decision, Decisions
from .judging import Judging, cost_of_judging, judge_uncertain
from .next_pair import worth
from .page import write_page
from .recalibration import Recalibration, recalibrate

__all__ = [
    "Decision",
    "Decisions",
    "Judging",
    "Recalibration",
    "cost_of_judging",
    "judge_uncertain",
    "recalibrate",
    "worth",
    "write_page",
]
