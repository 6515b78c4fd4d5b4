"""The folder of a training run: its settings, its results, and the leftovers of an interrupted run."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..embeddings.folder_lock import only_writer
from ..models.files_rrra import leftovers, read_json, remove, write_json
from .processes import Processes

logger = logging.getLogger(__name__)

ARGUMENTS_NAME = "arguments.json"
RESULTS_NAME = "results.json"
# Differences that an error names.
SHOWN = 10
# In these folders and those below, a killed process may have left temporary files.
WORKPLACES = ("stage1", "stage2", "stage3", "comparison", "final", "embeddings")


@contextmanager
def only_run(path: str | os.PathLike[str], processes: Processes) -> Iterator[None]:
    """Let this run, with all its processes, be the only one that writes a folder while the block runs.

    Args:
        path: Folder of the run.
        processes: The processes of the run; the main one holds the lock.

    Raises:
        BlockingIOError: If another run writes the folder; in processes other than the main one, a
            `RuntimeError` that says so.

    Example:
        >>> import tempfile
        >>> with only_run(tempfile.mkdtemp(), Processes()):
        ...     pass
    """
    with ExitStack() as held:
        processes.on_main(lambda: held.enter_context(only_writer(Path(path))))
        yield


class RunFolder:
    """A folder that belongs to a training run with certain settings.

    Args:
        path: The folder; made if it doesn't exist.
        settings: Everything that decides the results, as a JSON object.
        processes: The processes of the run; the main one reads and writes.
        resume: Whether there must be a run already.

    Raises:
        ValueError: If the folder belongs to a run with other settings, or holds other files.
        FileNotFoundError: If there must be a run and there is none.
        NotADirectoryError: If there is a file of that name.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = RunFolder(folder, {"seed": 0})
        >>> RunFolder(folder, {"seed": 1})
        Traceback (most recent call last):
        ValueError: ... was started with other settings: seed was 0, now 1. ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        processes: Processes | None = None,
        *,
        resume: bool = False,
    ):
        self.path = Path(path)
        self.processes = processes or Processes()
        self.processes.on_main(lambda: self._open(settings, resume))

    def _open(self, settings: dict[str, Any], resume: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"output_dir must be a folder, {self.path} is a file.")
        settings = json.loads(json.dumps(settings))
        if (self.path / ARGUMENTS_NAME).exists():
            self._check_settings(settings)
        elif resume:
            raise FileNotFoundError(f"{self.path} has no training run to resume: it has no {ARGUMENTS_NAME}.")
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise ValueError(
                f"{self.path} isn't empty and has no {ARGUMENTS_NAME} of a training run; choose another "
                "output_dir."
            )
        else:
            write_json(self.path / ARGUMENTS_NAME, settings)
        self._remove_temporary()

    def _check_settings(self, settings: dict[str, Any]) -> None:
        differing = differences(read_json(self.path / ARGUMENTS_NAME), settings)
        if differing:
            raise ValueError(
                f"{self.path} was started with other settings: {'; '.join(differing[:SHOWN])}. Use the same "
                "settings to continue it, or another output_dir to start a new run."
            )

    def _remove_temporary(self) -> None:
        places = [self.path / place for place in WORKPLACES]
        below = [folder for place in places for folder in place.rglob("*") if folder.is_dir()]
        for folder in [self.path, *places, *below]:
            # One may lie in another, which is gone by now.
            for leftover in leftovers(folder / "*") if folder.is_dir() else ():
                remove(leftover)

    def run_stage(self, name: str, work: Callable[[], dict[str, Any]], together: bool = False) -> None:
        """Run a stage and write its results, unless they exist already.

        Args:
            name: Name of the stage and of its folder.
            work: Does the work and returns the results. After an interruption it may find its earlier work
                in the folder.
            together: Whether all processes work; otherwise only the main one, while the others wait.
        """
        results_path = self.path / name / RESULTS_NAME
        on_main = self.processes.on_main
        if on_main(results_path.exists):
            logger.info("%s of %s is complete already", name, self.path)
            return
        logger.info("%s of %s begins", name, self.path)
        began = time.perf_counter()
        results = work() if together else on_main(work)
        # For an interrupted stage, this is the time since it was resumed.
        results = {**results, "seconds": round(time.perf_counter() - began, 3)}
        on_main(lambda: write_json(results_path, results))

    def results(self, stage: str) -> dict[str, Any]:
        """Return the results of a stage that is complete."""
        results: dict[str, Any] = read_json(self.path / stage / RESULTS_NAME)
        return results

    def summarize(self, stages: Sequence[str]) -> None:
        """Write the results of all stages to one file."""
        write_json(self.path / RESULTS_NAME, {name: self.results(name) for name in stages})


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return which settings differ, each as `name was ..., now ...`.

    Args:
        before: A JSON object.
        now: Another.

    Example:
        >>> differences({"fit": {"seed": 0, "tau": 1}}, {"fit": {"seed": 1, "tau": 1}})
        ['fit.seed was 0, now 1']
    """
    before, now = _flat(before), _flat(now)
    return [
        f"{name} was {before.get(name)!s:.80}, now {now.get(name)!s:.80}"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
