"""Stopping a training at the first loss that is not a finite number, before it reaches the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..candidates import CandidatePool

MAX_CHARACTERS = 60


class _MicroBatch(NamedTuple):
    """What one forward pass of the loss leaves behind.

    The flag stays on the device until the step is over: reading it earlier would make a GPU wait.
    """

    loss: nn.Module
    non_finite: Tensor
    queries: Mapping[str, Any]
    labels: Tensor | None


class StopOnNonFiniteLoss(TrainerCallback):
    """Stop the training at the first loss that is NaN or infinite.

    The step of that loss is not taken. The trainer saves a checkpoint of the state before it, from which the
    training can be resumed and meets the same batch again. Then `FloatingPointError` names the step, the
    checkpoint and the queries of the batch. If gradients overflow although the loss is finite, nothing
    happens: that is a normal part of fp16 training, which the gradient scaler handles.

    With several processes, all of them stop together, and the message names the batch of each process whose
    loss was not finite.

    Args:
        trainer: The trainer, whose losses are watched and which saves the checkpoint. Add the callback to
            the trainer once that is made.

    Requirements:
        1. A trainer that calls the optimizer itself. With DeepSpeed, whose backward pass takes the step, the
           run stops one step late.

    Relations:
        - `logging_nan_inf_filter`, on by default in transformers, keeps such losses out of the log and
          continues the training.

    Raises:
        FloatingPointError: From `trainer.train()`.

    Example:
        ::

            from rrra_hf.training import StopOnNonFiniteLoss

            trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=loss)
            trainer.add_callback(StopOnNonFiniteLoss(trainer))
            trainer.train()
    """

    def __init__(self, trainer: SentenceTransformerTrainer):
        self.trainer = trainer
        self.micro_batches: list[_MicroBatch] = []
        self.hooks: list[RemovableHandle] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch the inputs and outputs of the losses."""
        self._forget()
        loss = self.trainer.loss
        losses = loss.values() if isinstance(loss, Mapping) else [loss]
        self.hooks = [loss.register_forward_hook(self._watch) for loss in losses]

    def _watch(self, loss: nn.Module, inputs: tuple[Any, ...], output: Tensor | dict[str, Tensor]) -> None:
        # Evaluation takes no gradients.
        if not torch.is_grad_enabled():
            return
        features, labels = inputs
        parts = list(output.values()) if isinstance(output, dict) else [output]
        finite = torch.stack([torch.isfinite(part.detach()).all() for part in parts]).all()
        self.micro_batches.append(_MicroBatch(loss, ~finite, features[0], labels))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save a checkpoint and stop, if the loss was not finite in any process."""
        flags = [batch.non_finite for batch in self.micro_batches]
        found = torch.stack(flags).any() if flags else torch.zeros((), dtype=torch.bool, device=args.device)
        if args.world_size > 1:
            found = found.to(args.device, torch.int32)
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        if found:
            self._stop(args, state, kwargs.get("processing_class"))
        self.micro_batches.clear()

    def _stop(self, args: TrainingArguments, state: TrainerState, tokenizer: Any) -> None:
        # The trainer has no public method that saves all that is needed to resume.
        self.trainer._save_checkpoint(self.trainer.model, trial=None)
        own = [query_names(*batch, tokenizer) for batch in self._bad_batches()]
        # This also keeps a process from ending the run while the main one still writes the checkpoint.
        batches = gather_object([(args.process_index, names) for names in own])
        self._forget()
        raise FloatingPointError(_message(args, state, batches))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop watching."""
        self._forget()

    def _bad_batches(self) -> list[tuple[nn.Module, Mapping[str, Any], Tensor | None]]:
        return [(loss, queries, labels) for loss, bad, queries, labels in self.micro_batches if bad]

    def _forget(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()
        self.micro_batches.clear()


def query_names(
    loss: nn.Module, features: Mapping[str, Any], labels: Tensor | None, tokenizer: Any
) -> list[str]:
    """Return the ids of a batch's queries, or their texts if the loss knows no ids.

    Args:
        loss: If the loss, or one within it, has a `CandidatePool` as its attribute `pool`, integer labels are
            rows of that pool.
        features: The tokenized queries.
        labels: Integers `(batch, 2 + n)`, rows of query, positive and negatives in the pool; or other labels.
        tokenizer: Decodes the queries without ids; their texts are cut to 60 characters.
    """
    pools = (getattr(module, "pool", None) for module in loss.modules())
    pool = next((pool for pool in pools if isinstance(pool, CandidatePool)), None)
    if pool is not None and labels is not None and labels.dim() == 2 and not labels.is_floating_point():
        return [pool.query_ids[row] for row in labels[:, 0].tolist()]
    if not hasattr(tokenizer, "batch_decode") or "input_ids" not in features:
        return ["unknown"]
    texts = tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True)
    return [text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 3] + "..." for text in texts]


def _message(args: TrainingArguments, state: TrainerState, batches: list[tuple[int, list[str]]]) -> str:
    checkpoint = Path(str(args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
    parts = [
        f"{f'process {index}: ' if args.world_size > 1 else ''}{', '.join(map(repr, names))}"
        for index, names in batches
    ]
    return (
        f"The loss of step {state.global_step + 1} is not finite. The state before it is saved in "
        f"{checkpoint}. Queries of the batch: {'; '.join(parts)}."
    )
