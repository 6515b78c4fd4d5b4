"""Batches that several processes share, in the same order after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EqualShares(BatchSampler):
    """Cut each batch into one equal share per process, which accelerate then deals out in turn.

    Several processes thus train on the same batches as a single one, in which the sampler kept duplicates
    apart. If whole batches were dealt out, duplicates could meet in one step. The last batch would also go to
    some of the processes only, and these would wait for the others forever.

    Args:
        batches: The sampler of the batches.
        processes: Number of shares. Rows that are left over are dropped. A batch with fewer rows than
            processes is repeated, so that the number of steps doesn't depend on the number of processes.

    Example:
        >>> list(EqualShares([[5, 3, 1, 0], [2, 4, 6], [7]], processes=2))
        [[5, 3], [1, 0], [2], [4], [7], [7]]
    """

    def __init__(self, batches: Any, processes: int):
        self.batches = batches
        self.processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            size = max(1, len(batch) // self.processes)
            for start in range(0, size * self.processes, size):
                yield [batch[(start + i) % len(batch)] for i in range(size)]

    def __len__(self) -> int:
        return len(self.batches) * self.processes

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order."""
        self.batches.set_epoch(epoch)


class ShuffleByEpoch(TrainerCallback):
    """Set the epoch of the batch sampler, so that a resumed run sees batches in the right order.

    transformers 5 sets the epoch of a sampler that is wrapped once. With several processes it is wrapped
    twice, and a run that resumes from a checkpoint would see the order of the first epoch. Add this callback
    to a `SentenceTransformerTrainer`, and a resumed run equals one that wasn't interrupted.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch of the innermost batch sampler."""
        sampler = kwargs["train_dataloader"].batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(state.epoch or 0))
