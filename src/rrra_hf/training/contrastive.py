"""Contrastive training of an encoder with a `SentenceTransformerTrainer`, resumed from its checkpoints."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sentence_transformers.util import get_device_name
from torch import nn
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from ..models.modeling_rrra import RRRAModel
from .batches import EqualShares, ShuffleByEpoch
from .evaluator import METRIC, NAME
from .non_finite import StopOnNonFiniteLoss
from .processes import Processes
from .reporting import write_tensorboard_to
from .resampler import Resampler
from .suspects import suspect_figures
from .train_arguments import TrainArguments
from .undisturbed import undisturbed

logger = logging.getLogger(__name__)

# What the history of a training keeps.
LOGGED = ("step", "loss", "learning_rate", "grad_norm", "false_negative_probability", "suspects")
EVALUATED = f"eval_{NAME}_"
# The main process writes trainer_state.json last.
CHECKPOINT_FILES = ("model.safetensors*", "optimizer.pt", "scheduler.pt", "modules.json")


def train_contrastive(
    model: RRRAModel,
    encoder: SentenceTransformer,
    loss: nn.Module,
    dataset: Dataset,
    checkpoints: Path,
    arguments: TrainArguments,
    *,
    stage: int,
    epochs: int,
    max_steps: int | None,
    callbacks: Sequence[TrainerCallback] = (),
    evaluator: InformationRetrievalEvaluator | None = None,
    resampler: Resampler | None = None,
    processes: Processes | None = None,
) -> list[dict[str, float]]:
    """Train the encoder in place, starting from the newest complete checkpoint if there is one.

    The processes share each batch equally, see `EqualShares`.

    Args:
        model: The model. Its adapter isn't trained.
        encoder: The `SentenceTransformer` around the model.
        loss: Loss of the encoder.
        dataset: Columns `query`, `positive`, any negatives, and labels.
        checkpoints: Folder of the checkpoints. TensorBoard's files are in the folder `logs` beside it.
        arguments: Settings.
        stage: 1 or 3, for the progress bar.
        epochs: Number of passes over the dataset.
        max_steps: Number of steps; overrides `epochs`.
        callbacks: Further callbacks of the trainer.
        evaluator: Evaluates the encoder every `arguments.eval_steps`.
        resampler: What draws the negatives, with rows of the pool as labels. How probable it is that they are
            relevant is logged.
        processes: The processes that train together; all of them call this function.

    Returns:
        The history of the whole training: `step`, `loss`, `learning_rate` and `grad_norm` of each step, with
        a resampler also the mean `false_negative_probability` of its negatives and the share of `suspects`
        among them; and `step` and measures of each evaluation.

    Raises:
        FloatingPointError: If a loss is not finite, see `StopOnNonFiniteLoss`.
    """
    processes = processes or Processes()
    model.adapter.requires_grad_(False)
    if arguments.gradient_checkpointing:
        # Not through the trainer, whose option has another name in each release of transformers.
        name = "activation_checkpointing_enable"
        enable = getattr(model, name, model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    on_cpu = get_device_name() == "cpu"
    if arguments.bf16 and on_cpu and torch.backends.cpu.get_cpu_capability() == "AVX2":
        logger.warning(
            "This CPU computes in bfloat16 many times slower than in float32. Train without bf16 on it."
        )
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=arguments.batch_size // processes.count,
        learning_rate=arguments.peak_learning_rate,
        warmup_steps=0.1,
        bf16=arguments.bf16,
        fp16=arguments.fp16,
        # Explicit, because bf16 is refused on a machine without an accelerator otherwise.
        use_cpu=on_cpu,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        prompts=_prompts(model, dataset),
        save_strategy="steps",
        save_steps=arguments.save_steps,
        save_total_limit=arguments.save_total_limit,
        eval_strategy="no" if evaluator is None else "steps",
        eval_steps=arguments.eval_steps,
        # For callbacks that stop early.
        metric_for_best_model=None if evaluator is None else METRIC,
        # Every step, so that the history of a resumed run equals that of an uninterrupted one.
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        # sentence-transformers warns and sets it with several processes. With equal shares it drops nothing.
        dataloader_drop_last=processes.count > 1,
        report_to=arguments.report_to,
        seed=arguments.seed,
    )
    trainer = _Trainer(
        model=encoder,
        args=settings,
        train_dataset=dataset,
        loss=loss,
        evaluator=evaluator,
        callbacks=[
            ShuffleByEpoch(),
            *([] if resampler is None else [resampler]),
            *callbacks,
            _ProgressBar(f"Stage {stage}", hidden=not processes.is_main),
        ],
    )
    trainer.resampler = resampler
    trainer.add_callback(StopOnNonFiniteLoss(trainer))
    write_tensorboard_to(checkpoints.parent / "logs", trainer)
    trainer.remove_callback(PrinterCallback)
    checkpoint = processes.on_main(lambda: newest_complete_checkpoint(checkpoints, processes.count))
    if checkpoint is not None:
        logger.info("Stage %d continues from %s", stage, checkpoint)
    _train(trainer, checkpoint)
    encoder.eval()
    model.adapter.requires_grad_(True)
    return [entry for log in trainer.state.log_history if len(entry := _entry(log)) > 1]


def _train(trainer: SentenceTransformerTrainer, checkpoint: Path | None) -> None:
    """Train from a checkpoint to the end, or from the beginning."""
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step >= state.max_steps:
            # The trainer would train one step more if the last one isn't the end of an epoch.
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def newest_complete_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """Return the last checkpoint that is complete, and delete those that aren't.

    Args:
        folder: Folder with sub-folders `checkpoint-<step>`.
        processes: Number of processes that train together.
    """
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if _is_complete(checkpoint, processes):
            complete.append(checkpoint)
        else:
            logger.warning("%s is incomplete and is deleted.", checkpoint)
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)


def _is_complete(checkpoint: Path, processes: int) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    random = ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    # The other processes may be slower. A zip archive has its table of contents at its end.
    return all(any(checkpoint.glob(name)) for name in (*CHECKPOINT_FILES, random[0])) and all(
        zipfile.is_zipfile(checkpoint / name) for name in random[1:]
    )


def _prompts(model: RRRAModel, dataset: Dataset) -> dict[str, str] | None:
    """Return the prompts of the columns of texts."""
    config = model.config
    prompts = {
        name: config.query_prompt if name == "query" else config.document_prompt
        for name in dataset.column_names
        if name not in DEFAULT_LABEL_COLUMNS
    }
    return {name: prompt for name, prompt in prompts.items() if prompt} or None


def _entry(log: dict[str, Any]) -> dict[str, float]:
    """Return what is the same if the training is done again: no times, and one order."""
    evaluated = sorted(name for name in log if name.startswith(EVALUATED))
    return {name: log[name] for name in (*LOGGED, *evaluated) if name in log}


@contextmanager
def progress_bars_on_terminals_only(processes: Processes) -> Iterator[None]:
    """Hide transformers' progress bars of reading and writing weights, unless stderr is a terminal."""
    shown = processes.is_main and sys.stderr.isatty()
    silence = transformers_logging.is_progress_bar_enabled() and not shown
    if silence:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            transformers_logging.enable_progress_bar()


class _Trainer(SentenceTransformerTrainer):
    """A trainer whose processes share batches, and which logs how probable false negatives are.

    It writes no model card, because `RRRAModel` saves the model.
    """

    resampler: Resampler | None = None

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss, and log what the pool says about the negatives."""
        if self.resampler is not None:
            # Figures that are tracked in this way are averaged over processes and between two logs.
            self.track_loss_components(suspect_figures(self.resampler.pool, inputs["label"]))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate without a trace in the training."""
        with undisturbed(self.model):
            return super().evaluate(*args, **kwargs)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add no callback."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save in the main process only. In transformers 5, all processes write the same files."""
        if self.args.should_save:
            super()._save(output_dir, state_dict)

    def get_batch_sampler(
        self, dataset: Dataset, batch_size: int, drop_last: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the batch sampler; with several processes, each batch is cut into equal shares."""
        processes = self.args.world_size
        batches = super().get_batch_sampler(dataset, batch_size * processes, False, *args, **kwargs)
        return batches if processes == 1 else EqualShares(batches, processes)


class _ProgressBar(TrainerCallback):
    """A progress bar, on a terminal only. The trainer's own bar would print every log."""

    def __init__(self, description: str, *, hidden: bool):
        self.description = description
        self.hidden = hidden

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.description,
            unit="step",
            # With None, tqdm hides the bar where there is no terminal.
            disable=self.hidden or None,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()
