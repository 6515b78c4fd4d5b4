"""The processes of one launch, of which the main one does some work while the others wait."""

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

# The main process may mine, fit and encode for hours. torch's own timeouts are 10 or 30 minutes.
PATIENCE = timedelta(days=7)


class Processes:
    """The processes of a launch, as seen by one of them.

    Args:
        count: Number of processes.
        index: Number of this process; 0 is the main process.
        group: torch's process group in which they wait; needed if there are several.

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
        """Run a function in the main process while the others wait, and return its result in all of them.

        Args:
            work: The function; its result is pickled and sent to the other processes.

        Raises:
            RuntimeError: In the other processes, if the function failed; the main process raises the error
                itself.
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
    """Yield the processes that `accelerate launch` or `torchrun` started, or a single one."""
    cpu = get_device_name() == "cpu" or bool(parse_flag_from_env("ACCELERATE_USE_CPU"))
    state = PartialState(cpu=cpu)
    if state.num_processes == 1:
        yield Processes()
        return
    # This group has its own timeout. The default group keeps that of training steps.
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Processes(state.num_processes, state.process_index, group)
    finally:
        torch.distributed.destroy_process_group(group)
