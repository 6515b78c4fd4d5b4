"""Comparing systems, strategies, detectors and ablations: same pool, same budget, same seeds."""

from . import ablations, detection, strategies, systems
from .arguments import CompareArguments
from .cells import Cell, CellStore, Result
from .detection import detector
from .heuristics import margin_to_positive, perc_pos_margin, similarity_to_positive
from .hidden_positives import (
    HiddenPositives,
    InjectedPositives,
    hide_positives,
    inject_positives,
    near_duplicate_texts,
)
from .measures import detection_measure, ranking_measure
from .methods import TABLES, Method, choose_methods, methods_of, register
from .ranking import system
from .run import run_cells
from .strategies import strategy
from .tables import make_tables
from .task import Queries, Task, prepare
from .trial import Trial

# Importing these modules registers their methods.
_REGISTERED = (systems, strategies, detection, ablations)

__all__ = [
    "TABLES",
    "Cell",
    "CellStore",
    "CompareArguments",
    "HiddenPositives",
    "InjectedPositives",
    "Method",
    "Queries",
    "Result",
    "Task",
    "Trial",
    "choose_methods",
    "detection_measure",
    "detector",
    "hide_positives",
    "inject_positives",
    "make_tables",
    "margin_to_positive",
    "methods_of",
    "near_duplicate_texts",
    "perc_pos_margin",
    "prepare",
    "ranking_measure",
    "register",
    "run_cells",
    "similarity_to_positive",
    "strategy",
    "system",
]
