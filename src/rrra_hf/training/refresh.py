"""Candidates, probabilities and adapter that follow the encoder while it is trained."""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..candidates.reading import candidate_probabilities
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection, encode
from ..fitting import FitArguments, cross_fit, fit_adapter
from ..labels import best_positive_scores, drop_above_positive
from ..losses import CachedRRRALoss, RRRALoss
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.files_rrra import write_aside
from ..models.modeling_rrra import RRRAModel
from .processes import joined_processes
from .resampler import Resampler, sorted_rows

logger = logging.getLogger(__name__)

PROBABILITIES = ("held_out", "cross_fit")
# What decides the shapes of the weights, and what is fitted beside them.
SIZES = ("embedding_dim", "hidden_size", "linear_skip", "num_classes", "query_map", "document_map")
FITTED = ("scoring", "tau", "lambda_", "temperature", "fit")


class Refresh(TrainerCallback):
    """Mine and weigh the negatives anew with the encoder as it stands, every n steps or epochs.

    Queries and documents are encoded, candidates mined, their false-negative probabilities estimated, and
    the resampler (and a loss that has the pool) goes on with the new pool. The model's own adapter is
    refitted in place: an optimizer that holds its weights keeps holding them. The trainer's random numbers
    are left as they were. At the last step there is no refresh, as nothing is drawn any more; to fit the
    adapter on the final encoder, see `fit_model`.

    Encoding and fitting are done by the main process; the others wait for it and read what it wrote, so that
    `output_dir` must be one folder for all. Every process needs the whole model (one process, or DDP).

    Each refresh is written to `output_dir/step-<n>/`; the folder belongs to one run. A run that is resumed
    from a checkpoint, on as many processes, goes on with the pool and the negatives that it had there, and
    ends like one that was not interrupted. Refreshes that no checkpoint in the trainer's folder goes back
    to are deleted.

    A data loader reads a batch or more ahead, always the same number, and a pair keeps the negatives
    with which it was read until the epoch ends: the new pool comes into effect that much later.

    Args:
        resampler: The resampler that feeds the trainer, which must be among its callbacks, too.
        output_dir: Folder of the refreshes.
        every_steps: Refresh after every so many steps.
        every_epochs: Refresh after every so many epochs; give one of the two.
        development: Development queries (a split of the resampler's collection), which the encoder is not
            trained on. `"held_out"` needs at least two; for `"cross_fit"`, if there are none, a part of the
            training queries is held out of each fit.
        probabilities: `"held_out"`: candidates are judged by a head fitted on the development queries, to
            whose embeddings the encoder was not fitted, as it was to those of the training queries.
            `"cross_fit"`: by heads fitted on the other training queries, see `cross_fit`.
        drop_above_positive: Set aside, too, candidates that the encoder scores above the query's best labelled
            document, see `drop_above_positive`.
        refit_adapter: Refit the model's adapter: with the head of the development queries, or with
            `"cross_fit"` by one fitted on all training queries.
        arguments: Settings of the fits, without linear maps, which are for a frozen encoder.
        folds: Folds of `"cross_fit"`.
        batch_size: Texts a forward pass when encoding.
        loss: A loss that looks weights up in a pool: it is given the new one, too.

    Raises:
        ValueError: If an argument is not legal, or the pool's positives are not those of the collection;
            when training begins, if the model has no adapter of the sizes that are fitted, or if steps are
            counted and the data loader has workers, which would hear of a new pool in the next epoch only.
        FileNotFoundError: When a run is resumed whose refreshes are not in `output_dir`.

    Source:
        The moving encoder: RRRA, arXiv 2508.11670, stage 3; mining anew while training: ANCE,
        arXiv 2007.00808.

    Example:
        ::

            resampler = Resampler(collection.split("train"), pool)
            refresh = Refresh(
                resampler, "refreshes", every_epochs=1, development=collection.split("dev")
            )
            trainer = SentenceTransformerTrainer(
                model=model,
                args=args,
                train_dataset=resampler.dataset,
                loss=RRRALoss(model),
                callbacks=[resampler, refresh],
            )
    """

    def __init__(
        self,
        resampler: Resampler,
        output_dir: str | os.PathLike[str],
        *,
        every_steps: int | None = None,
        every_epochs: int | None = None,
        development: Collection | None = None,
        probabilities: str = "held_out",
        drop_above_positive: bool = False,
        refit_adapter: bool = True,
        arguments: FitArguments | None = None,
        folds: int = 5,
        batch_size: int = 64,
        loss: RRRALoss | CachedRRRALoss | None = None,
    ):
        arguments = arguments or FitArguments()
        if (every_steps is None) == (every_epochs is None):
            raise ValueError("Give either every_steps or every_epochs, and not both.")
        for name, value in (("every_steps", every_steps), ("every_epochs", every_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if probabilities not in PROBABILITIES:
            raise ValueError(
                f"probabilities must be one of {', '.join(PROBABILITIES)}, got {probabilities!r}."
            )
        if probabilities == "held_out" and (development is None or len(development.query_ids) < 2):
            raise ValueError("probabilities='held_out' needs development with at least two queries.")
        if probabilities == "cross_fit" and not 2 <= folds <= len(resampler.pool):
            raise ValueError(
                f"folds must lie between 2 and the number of queries, {len(resampler.pool)}; got {folds}."
            )
        if development is not None:
            _check_development(development, resampler.collection)
        if arguments.stage1 != "none":
            raise ValueError(f"arguments.stage1 must be 'none' in a Refresh, got {arguments.stage1!r}.")
        if refit_adapter and arguments.features:
            raise ValueError(
                "arguments.features must be empty where refit_adapter is true: the adapter trained on is a "
                "residual one."
            )
        if loss is not None and loss.pool is None:
            raise ValueError("loss must have a pool to be given a new one: make it with pool=...")
        if sorted_rows(resampler.collection.positive_rows) != sorted_rows(resampler.pool.positives):
            raise ValueError("resampler must have a pool with the positives of its collection.")
        self.resampler = resampler
        self.output_dir = Path(output_dir)
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self.development = development
        self.probabilities = probabilities
        self.drop_above_positive = drop_above_positive
        self.refit_adapter = refit_adapter
        self.arguments = arguments
        self.folds = folds
        self.batch_size = batch_size
        self.loss = loss
        self._next_epoch = 0
        self._is_amid_epoch = False

    # ---------------------------------------------------------------- when

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check what is to be refreshed, and of a resumed run take up the last refresh."""
        if self.every_steps is not None and args.dataloader_num_workers > 0:
            raise ValueError(
                "every_steps needs dataloader_num_workers=0: workers would go on with the former pool until "
                "the epoch ends. Use every_epochs."
            )
        encoder = extract_model_from_parallel(kwargs["model"])
        if self.refit_adapter:
            self._check_adapter(encoder)
        self._next_epoch = int(state.epoch)
        self._is_amid_epoch = state.epoch > self._next_epoch
        with joined_processes() as processes:
            processes.on_main(lambda: self._delete_later(state.global_step))
        if steps := self._steps():
            self._load(encoder, steps[-1], is_now=steps[-1] == state.global_step)
            if self._draws(steps[-1]).exists():
                self.resampler.load_draws(self._draws(steps[-1]))
        elif self._have_been_refreshes(state):
            raise FileNotFoundError(
                f"{self.output_dir} has no refresh of the run that is resumed at step {state.global_step}, "
                "which goes on from its last one."
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refresh between epochs; not at their end, where a checkpoint has been saved already."""
        epoch, is_amid = self._next_epoch, self._is_amid_epoch
        self._next_epoch, self._is_amid_epoch = epoch + 1, False
        if self.every_epochs is not None and not is_amid and epoch and epoch % self.every_epochs == 0:
            self._refresh(args, state, kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refresh between steps, before a checkpoint is saved."""
        if self.every_steps is None or state.global_step >= state.max_steps:
            return
        if state.global_step % self.every_steps == 0:
            self._refresh(args, state, kwargs["model"])

    # ---------------------------------------------------------------- what

    def _refresh(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        """Make the refresh of this step, unless it was made before an interruption, and take it up."""
        encoder = extract_model_from_parallel(model)
        step = state.global_step
        with _random_numbers_kept():
            with joined_processes() as processes:
                processes.on_main(lambda: self._make(encoder, step))
            self.resampler.save_draws(self._draws(step))
            self._load(encoder, step, is_now=True)
        # A checkpoint of this step needs the draws of every process.
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            self._delete_unneeded(Path(str(args.output_dir)))

    def _make(self, encoder: SentenceTransformer, step: int) -> None:
        """Write the pool and the adapter for the encoder as it stands, complete or not at all."""
        if self._folder(step).exists():
            return
        began = time.perf_counter()
        before = self.resampler.pool
        with _evaluated(encoder):
            embeddings = embed_collection(self.resampler.collection, encoder, batch_size=self.batch_size)
            pool = mine_collection(self.resampler.collection, embeddings, before.depth)
            development = self._development(encoder)
            pool, adapter = self._judged(pool, embeddings, development)
        if self.drop_above_positive:
            positive_scores = best_positive_scores(embeddings.queries, embeddings.documents, pool.positives)
            pool = drop_above_positive(pool, positive_scores)
        with write_aside(self._folder(step)) as temporary:
            pool.save(temporary / "pool")
            if adapter is not None:
                adapter.save_pretrained(temporary / "adapter")
        logger.info(
            "Refresh at step %d: %.1f seconds, %.1f %% of the candidates changed, mean false-negative "
            "probability %.3f",
            step,
            time.perf_counter() - began,
            100 * _changed(before, pool),
            np.nanmean(np.asarray(pool.probability)),
        )

    def _development(self, encoder: SentenceTransformer) -> LabelledQueries | None:
        if self.development is None:
            return None
        queries = encode(encoder, self.development.query_texts, task="query", batch_size=self.batch_size)
        return LabelledQueries(queries, self.development.positive_rows)

    def _judged(
        self, pool: CandidatePool, embeddings: CollectionEmbeddings, development: LabelledQueries | None
    ) -> tuple[CandidatePool, RetrieverAdapter | None]:
        """Return the pool with false-negative probabilities, and the adapter for the model."""
        queries, documents, _ = embeddings
        if self.probabilities == "held_out":
            assert development is not None
            adapter = fit_adapter(
                development.embeddings, documents, development.positives, arguments=self.arguments
            )
            probability = candidate_probabilities(adapter, queries, pool.candidates, documents)
            judged = replace(pool, probability=probability)
            return judged, adapter if self.refit_adapter else None
        fit: dict[str, Any] = {"development": development, "arguments": self.arguments}
        judged = cross_fit(pool, queries, documents, folds=self.folds, **fit)
        if not self.refit_adapter:
            return judged, None
        return judged, fit_adapter(queries, documents, pool=pool, **fit)

    def _load(self, encoder: SentenceTransformer, step: int, is_now: bool) -> None:
        """Take up a refresh; of a former one not the adapter's weights, which were trained on since.

        A trainer brings those back from a checkpoint, but not the adapter's settings.
        """
        self.resampler.pool = CandidatePool.load(self._folder(step) / "pool")
        if self.loss is not None:
            self.loss.pool = self.resampler.pool
        if self.refit_adapter:
            fitted = RetrieverAdapter.from_pretrained(self._folder(step) / "adapter")
            adapter = RRRAModel.from_sentence_transformer(encoder).adapter
            if is_now:
                adapter.load_state_dict(fitted.state_dict())
            for name in FITTED:
                setattr(adapter.config, name, getattr(fitted.config, name))

    # ---------------------------------------------------------------- folders

    def _folder(self, step: int) -> Path:
        return self.output_dir / f"step-{step}"

    def _draws(self, step: int) -> Path:
        return self._folder(step) / f"draws-{PartialState().process_index}.safetensors"

    def _steps(self) -> list[int]:
        """Return the steps of the refreshes that are there, in order."""
        return _numbered(self.output_dir, "step-")

    def _have_been_refreshes(self, state: TrainerState) -> bool:
        """Return whether a checkpoint comes from a run that has refreshed before."""
        if self.every_steps is not None:
            return state.global_step >= self.every_steps
        assert self.every_epochs is not None
        return state.epoch > self.every_epochs

    def _delete_later(self, step: int) -> None:
        """Delete the refreshes after a step, which are made again, and what a killed process left."""
        unwanted = [self._folder(number) for number in self._steps() if number > step]
        for folder in [*unwanted, *self.output_dir.glob(".step-*")]:
            shutil.rmtree(folder)

    def _delete_unneeded(self, checkpoints: Path) -> None:
        """Delete the refreshes that neither a checkpoint nor the training goes back to."""
        steps = self._steps()
        needed = {steps[-1]}
        for checkpoint in _numbered(checkpoints, "checkpoint-"):
            needed |= set([step for step in steps if step <= checkpoint][-1:])
        for step in set(steps) - needed:
            shutil.rmtree(self._folder(step))

    def _check_adapter(self, encoder: SentenceTransformer) -> None:
        if not isinstance(getattr(encoder[0], "model", None), RRRAModel):
            raise ValueError("The model has no adapter to refit: give refit_adapter=False.")
        has = RRRAModel.from_sentence_transformer(encoder).adapter.config
        fitted = AdapterConfig(
            embedding_dim=has.embedding_dim,
            hidden_size=self.arguments.hidden_size,
            linear_skip=self.arguments.linear_skip,
            num_classes=4 if self.arguments.objective == "four_class" else 1,
        )
        for name in SIZES:
            if getattr(has, name) != getattr(fitted, name):
                raise ValueError(
                    f"The model's adapter has {name}={getattr(has, name)}, with these arguments one with "
                    f"{name}={getattr(fitted, name)} is fitted; make them equal or give refit_adapter=False."
                )


def _check_development(development: Collection, collection: Collection) -> None:
    if development.document_ids != collection.document_ids:
        raise ValueError("development must have the documents of the resampler's collection.")
    without = [
        name
        for name, rows in zip(development.query_ids, development.positive_rows, strict=True)
        if not len(rows)
    ]
    if without:
        raise ValueError(
            f"Every query of development needs a positive: {len(without)} of {len(development.query_ids)} "
            f"have none, the first is {without[0]!r}."
        )


def _numbered(folder: Path, prefix: str) -> list[int]:
    numbers = [path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*")]
    return sorted(int(number) for number in numbers if number.isdigit())


def _changed(before: CandidatePool, after: CandidatePool) -> float:
    """Return the share of the candidates that were none of their query's before."""
    keys = []
    for pool in (before, after):
        queries, places = np.nonzero(pool.candidates >= 0)
        keys.append(queries * len(pool.document_ids) + pool.candidates[queries, places])
    return float(np.mean(np.isin(keys[1], keys[0], invert=True)))


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Put the global random number generators back to where they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back to its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
