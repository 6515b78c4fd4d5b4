"""Running a comparison cell by cell; what is finished is not run again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from .arguments import CompareArguments
from .cells import Cell, CellStore, Result
from .methods import Method
from .task import Task
from .trial import Trial

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A cell with what is needed to run it.

    Args:
        cell: The cell.
        task: Its collection.
        method: Its method.
        settings: Everything that decides its result.
    """

    cell: Cell
    task: Task
    method: Method
    settings: dict[str, Any]


def run_cells(
    tasks: Sequence[Task],
    methods: Sequence[Method],
    arguments: CompareArguments,
    store: CellStore,
    *,
    show_progress_bar: bool | None = None,
) -> dict[Cell, Result]:
    """Run every method on every collection with every seed, unless that was done before.

    Args:
        tasks: Collections of different names.
        methods: Methods, of any tables.
        arguments: Settings.
        store: Where finished cells are, and go; each is written when it is done, so that a run that
            was killed continues.
        show_progress_bar: None shows one on a terminal only.

    Returns:
        The results of all cells, in the order of tasks, methods and seeds.

    Raises:
        ValueError: If two collections have one name, or a cell was made with other settings; before
            anything is run.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"collections must have different names, got {', '.join(names)}.")
    jobs = [
        Job(
            Cell(method.table, task.name, method.name, seed),
            task,
            method,
            method.settings_of(task, arguments),
        )
        for task in tasks
        for method in methods
        for seed in (arguments.all_seeds if method.seeded else arguments.all_seeds[:1])
    ]
    results = {job.cell: store.load(job.cell, job.settings) for job in jobs}
    missing = [job for job in jobs if results[job.cell] is None]
    logger.info("%d of %d cells are finished.", len(jobs) - len(missing), len(jobs))
    # Seed by seed, so that what the methods share is held for one seed at a time.
    missing.sort(key=lambda job: (names.index(job.task.name), job.cell.seed))
    with tqdm(
        total=len(jobs), initial=len(jobs) - len(missing), unit="cell", disable=_disable(show_progress_bar)
    ) as bar:
        for _, same in groupby(missing, key=lambda job: (job.task.name, job.cell.seed)):
            trial = None
            for job in same:
                trial = trial or Trial(job.task, job.cell.seed, arguments)
                bar.set_description(f"{job.task.name}, {job.method.name}, seed {job.cell.seed}")
                result = job.method.run(trial)
                store.save(job.cell, job.settings, result)
                results[job.cell] = result
                logger.info("%s: %.1f s", job.cell.name, result.seconds)
                bar.update()
    return {cell: result for cell, result in results.items() if result is not None}


def _disable(show_progress_bar: bool | None) -> bool | None:
    return None if show_progress_bar is None else not show_progress_bar
