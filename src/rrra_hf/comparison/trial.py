"""One collection with one seed: what all methods share there, made once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

from ..candidates.labelled import hold_out
from .arguments import CompareArguments
from .task import Queries, Task

T = TypeVar("T")


class Trial:
    """A collection and a seed, with what several methods need of them.

    The training queries here are those without the development queries: the split `dev`, or else a
    part of the training queries held out by the seed. No method sees a test query before it is ranked.

    Args:
        task: The collection.
        seed: Seed of everything random.
        arguments: Settings.

    Example:
        A system that another one builds on is fitted once, and its time counts for both::

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
        """Queries to stop early and choose settings by."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[Queries, Queries]:
        task = self.task
        if task.development is not None:
            return task.training, task.development
        fraction = self.arguments.fit.development_fraction
        held_out, kept = hold_out(len(task.training.ids), fraction, self.seed)
        return task.training.select(kept), task.training.select(held_out)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` makes, or made for another method before."""
        if key in self._made:
            value, seconds = self._made[key]
            self._saved += seconds
            return value
        value, seconds = self.timed(make)
        self._made[key] = value, seconds
        return value

    def timed(self, make: Callable[[], T]) -> tuple[T, float]:
        """Return what `make` makes and the seconds it takes, or would have without what was made before."""
        start, saved = time.perf_counter(), self._saved
        value = make()
        return value, time.perf_counter() - start + self._saved - saved
