"""Strategies of choosing negatives, and losses for them: same pool, steps, number of negatives and seeds.

To add a strategy, write a function from a trial to the chances of its candidates of being drawn and to their
weights, and register it with `strategy`. All strategies train on the ground truth of `truth.py`, so that the
oracle knows which candidates are relevant. Importing this package registers all strategies, in the order of
the tables.
"""

from . import heuristics, rrra, judged, guides, losses  # noqa: I001  (the order of the tables)
from .registry import STRATEGIES, strategy
from .chances import Chances, Strategy

__all__ = [
    "STRATEGIES",
    "Chances",
    "Strategy",
    "guides",
    "heuristics",
    "judged",
    "losses",
    "rrra",
    "strategy",
]
