"""Comparing systems, strategies, detectors and ablations: same pool, same budget, same seeds."""

from . import ablations, detection, gradients, strategies, systems
from .arguments import CompareArguments
from .cells import Cell, CellStore, Result
from .heuristics import margin_to_positive, perc_pos_margin, similarity_to_positive
from .hidden_positives import (
    HiddenPositives,
    InjectedPositives,
    hide_positives,
    inject_positives,
    near_duplicate_embeddings,
    near_duplicate_texts,
)
from .methods import TABLES, Method, choose_methods, methods_of, register
from .run import run_cells
from .tables import make_tables
from .task import Queries, Task, prepare
from .trial import Trial

# Each of these registers its methods when it is imported.
_REGISTERED = (systems, strategies, detection, gradients, ablations)

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
    "hide_positives",
    "inject_positives",
    "make_tables",
    "margin_to_positive",
    "methods_of",
    "near_duplicate_embeddings",
    "near_duplicate_texts",
    "perc_pos_margin",
    "prepare",
    "register",
    "run_cells",
    "similarity_to_positive",
]
