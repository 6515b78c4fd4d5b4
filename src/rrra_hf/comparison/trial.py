"""One collection with one seed, and what several methods share on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

from ..candidates.labelled import hold_out
from .arguments import CompareArguments
from .task import Queries, Task

T = TypeVar("T")

# Share of the training queries that is held out if there is no split dev.
HELD_OUT = 0.15


class Trial:
    """A collection and a seed, with what several methods share on it.

    Development queries are those of the split `dev`, or else a part of the training queries, held out by the
    seed. Training queries are the others. No method sees a test query before ranking it.

    Args:
        task: The collection.
        seed: Random seed.
        arguments: Settings.

    Example:
        A part that several systems build on is fitted once, and its time counts for each::

            maps = trial.once("query map", lambda: choose_maps(...))
    """

    def __init__(self, task: Task, seed: int, arguments: CompareArguments):
        self.task = task
        self.seed = seed
        self.arguments = arguments
        self._made: dict[Hashable, tuple[Any, float]] = {}
        self._saved = 0.0

    @cached_property
    def training(self) -> Queries:
        """Queries to fit on."""
        return self._parts[0]

    @cached_property
    def development(self) -> Queries:
        """Queries for early stopping and for choosing settings."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[Queries, Queries]:
        task = self.task
        if task.development is not None:
            return task.training, task.development
        held_out, kept = hold_out(len(task.training.ids), HELD_OUT, self.seed)
        return task.training.select(kept), task.training.select(held_out)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of `make`, computed only once per key."""
        if key in self._made:
            value, seconds = self._made[key]
            self._saved += seconds
            return value
        value, seconds = self.timed(make)
        self._made[key] = value, seconds
        return value

    def timed(self, make: Callable[[], T]) -> tuple[T, float]:
        """Return the result of `make`, and the seconds it takes without any result of `once` at hand."""
        start, saved = time.perf_counter(), self._saved
        value = make()
        return value, time.perf_counter() - start + self._saved - saved
