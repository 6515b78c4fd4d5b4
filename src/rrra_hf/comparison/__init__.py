"""Comparing systems, strategies, detectors and ablations: same pool, same budget, same seeds."""

from . import ablations, detection, gradients, strategies, systems
from .arguments import CompareArguments
from .cells import Cell, CellStore, Result
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
    "Method",
    "Queries",
    "Result",
    "Task",
    "Trial",
    "choose_methods",
    "make_tables",
    "methods_of",
    "prepare",
    "register",
    "run_cells",
]
