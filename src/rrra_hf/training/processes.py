"""The processes of one launch: what only the main one does, while the others wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from sentence_transformers.util import get_device_name

T = TypeVar("T")

# The main process mines, fits and encodes for hours; torch takes a wait of 10 or 30 minutes for a hang.
PATIENCE = timedelta(days=7)


class Processes:
    """All processes of a launch, as one of them sees them.

    Args:
        count: How many there are.
        index: Which one this is; 0 is the main process.
        group: What they wait in, needed if there are several.

    Example:
        >>> Processes().on_main(lambda: 6 * 7)
        42
    """

    def __init__(self, count: int = 1, index: int = 0, group: Any = None):
        self.count = count
        self.index = index
        self.group = group

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.index == 0

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process work while the others wait, and return its result in all of them.

        Args:
            work: Called in the main process alone; what it returns is pickled and sent to the others.

        Raises:
            RuntimeError: In the other processes, if the work failed; in the main one the error itself.
        """
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except Exception as error:
                self._broadcast([None, f"{type(error).__name__}: {error}"])
                raise
        result, failure = self._broadcast(outcome)
        if failure is not None:
            raise RuntimeError(f"The main process failed: {failure}")
        return result

    def _broadcast(self, outcome: list[Any]) -> list[Any]:
        torch.distributed.broadcast_object_list(outcome, src=0, group=self.group, device=torch.device("cpu"))
        return outcome


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that `accelerate launch` or `torchrun` started; a single one if none did."""
    cpu = get_device_name() == "cpu" or bool(parse_flag_from_env("ACCELERATE_USE_CPU"))
    state = PartialState(cpu=cpu)
    if state.num_processes == 1:
        yield Processes()
        return
    # A group of its own, whatever made the default one: that keeps the short timeout of training steps.
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Processes(state.num_processes, state.process_index, group)
    finally:
        torch.distributed.destroy_process_group(group)
