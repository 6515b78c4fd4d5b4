"""Stopping a training at the first loss that is not a finite number, before it spoils the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..candidates import CandidatePool

MAX_CHARACTERS = 60


class _MicroBatch(NamedTuple):
    """What one forward pass of the loss leaves behind.

    The flag stays on the device until the step is over: reading it here would keep a GPU waiting.
    """

    loss: nn.Module
    non_finite: Tensor
    queries: Mapping[str, Any]
    labels: Tensor | None


class StopOnNonFiniteLoss(TrainerCallback):
    """Stop the training at the first loss that is NaN or infinite.

    The step of that loss is not taken. The trainer saves a checkpoint of the state before it, so that a
    training that resumes there meets the same batch again; then `FloatingPointError` names the step, the
    checkpoint and the queries of the batch. Gradients that overflow under a loss that is finite are left to
    the gradient scaler, for which they are part of fp16 training.

    In several processes all stop together, and the message names the batch of each process whose loss was
    not finite.

    Args:
        loss: The loss given to the trainer, or the dictionary of losses.

    Requirements:
        1. A trainer that calls the optimizer itself: with DeepSpeed, whose backward pass takes the step,
           the run stops one step late.

    Relations:
        - `logging_nan_inf_filter`, on by default in transformers, keeps such losses out of the log and trains
          on.

    Raises:
        FloatingPointError: From `trainer.train()`.

    Example:
        ::

            from rrra_hf.training import StopOnNonFiniteLoss

            loss = MultipleNegativesRankingLoss(model)
            trainer = SentenceTransformerTrainer(
                model=model, train_dataset=dataset, loss=loss, callbacks=[StopOnNonFiniteLoss(loss)]
            )
    """

    def __init__(self, loss: nn.Module | Mapping[str, nn.Module]):
        self.losses = list(loss.values()) if isinstance(loss, Mapping) else [loss]
        self.micro_batches: list[_MicroBatch] = []
        self.found = False
        self.epoch = 0.0
        self.hooks: list[RemovableHandle] = []
        self.held: list[tuple[Any, Any]] = []

    # ---------------------------------------------------------------- watching

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at what the loss takes and returns from now on."""
        self._forget()
        self.hooks = [loss.register_forward_hook(self._watch) for loss in self.losses]

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
        """Keep optimizer and scheduler from a step whose loss was not finite in any process."""
        flags = [batch.non_finite for batch in self.micro_batches]
        found = torch.stack(flags).any() if flags else torch.zeros((), dtype=torch.bool, device=args.device)
        if args.world_size > 1:
            found = found.to(args.device, torch.int32)
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        self.found = bool(found)
        if not self.found:
            self.micro_batches.clear()
            return
        self.epoch = state.epoch or 0.0
        # Without gradients most optimizers do nothing, but gradient scalers object and schedulers go on.
        for stepping in (kwargs["optimizer"], kwargs["lr_scheduler"]):
            self.held.append((stepping, vars(stepping).get("step")))
            stepping.step = lambda *args, **kwargs: None

    # ---------------------------------------------------------------- stopping

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the trainer save the state before the step."""
        if not self.found:
            return
        self._let_step()
        state.global_step -= 1
        state.epoch = self.epoch
        control.should_save = control.should_training_stop = True
        control.should_log = control.should_evaluate = False

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run once the checkpoint is there."""
        if not self.found:
            return
        tokenizer = kwargs.get("processing_class")
        own = [query_names(*batch, tokenizer) for batch in self._bad_batches()]
        # Also keeps a process from ending the run while the main one still writes the checkpoint.
        batches = gather_object([(args.process_index, names) for names in own])
        self._forget()
        raise FloatingPointError(_message(args, state, batches))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look no longer."""
        self._forget()

    def _bad_batches(self) -> list[tuple[nn.Module, Mapping[str, Any], Tensor | None]]:
        return [(loss, queries, labels) for loss, bad, queries, labels in self.micro_batches if bad]

    def _let_step(self) -> None:
        for stepping, own in self.held:
            # Mostly a method of the class; what the instance has of its own, a scheduler would save.
            if own is None:
                del stepping.step
            else:
                stepping.step = own
        self.held.clear()

    def _forget(self) -> None:
        self._let_step()
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()
        self.micro_batches.clear()
        self.found = False


def query_names(
    loss: nn.Module, features: Mapping[str, Any], labels: Tensor | None, tokenizer: Any
) -> list[str]:
    """Return the ids of a batch's queries, or their texts where the loss knows no ids.

    Args:
        loss: With a `CandidatePool` as its attribute `pool`, or that of a loss within it, the ids of
            integer labels are known.
        features: What the tokenizer made of the queries.
        labels: Integers `(batch, 2 + n)`: rows of query, positive and negatives in the pool; or others.
        tokenizer: Decodes the queries without ids, cut to 60 characters.
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
