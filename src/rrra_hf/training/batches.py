"""Sharing each batch equally between processes, in the same order after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import BatchSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EqualShares(BatchSampler):
    """Batches cut into one equal share for each process, which accelerate then deals out in turn.

    So several processes train on the very batches of a single one, in which the sampler kept duplicates
    apart. Dealing out whole batches would put duplicates side by side, and would give the last batch to some
    of the processes only, which then wait for the others in vain.

    Args:
        batches: The sampler of the batches.
        processes: Number of shares. What makes no equal shares is left out; a batch with less than one row
            a process is repeated, so that the number of steps doesn't depend on the number of processes.

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
        """Let the sampler draw the order of another epoch."""
        self.batches.set_epoch(epoch)


class ShuffleByEpoch(TrainerCallback):
    """Tell the batch sampler its epoch, also where a trainer of several processes forgets to.

    Continuing from a checkpoint, transformers 5 sets the epoch of a sampler at most one wrapper deep; in
    several processes it is two deep, and the epoch would be drawn in the order of the first one. In a plain
    `SentenceTransformerTrainer` this callback makes a resumed run equal one that wasn't interrupted.
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
