"""Running a comparison cell by cell. Finished cells are not run again."""

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
    """A cell to run.

    Args:
        cell: The cell.
        task: Its collection.
        method: Its method.
        settings: Everything that its result depends on.
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
    """Run every method on every collection with every seed, except for finished cells.

    Args:
        tasks: Collections with different names.
        methods: Methods of any tables.
        arguments: Settings.
        store: Store of finished cells. Each cell is written when it is done, so an interrupted run continues
            where it stopped.
        show_progress_bar: Whether to show a progress bar; None shows one on a terminal only.

    Returns:
        The results of all cells, in the order of tasks, methods and seeds.

    Raises:
        ValueError: If two collections have the same name, or a finished cell was made with other settings.
            Nothing is run then.
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
    # Seed by seed, because what the methods share is kept in memory for one seed at a time.
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
