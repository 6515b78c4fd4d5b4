"""Candidates and probabilities that follow the encoder while it is trained."""

from __future__ import annotations

import logging
import os
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..candidates import CandidatePool, LabelledQueries, mine_collection, mine_embeddings
from ..candidates.reading import with_probability
from ..data import Collection
from ..embeddings import embed_collection, encode
from ..fitting import AnyFitArguments, FitArguments, ResidualFitArguments, cross_fit, fit_adapter
from ..indexes import WordIndex
from ..labels import best_positive_scores, drop_above_positive
from ..losses import CachedRRRALoss, RRRALoss
from ..models.adapter_rrra import RetrieverAdapter
from ..models.files_rrra import write_aside
from ..models.modeling_rrra import RRRAModel
from .processes import joined_processes
from .refit import check_adapter, take_over
from .refresh_folders import RefreshFolders
from .resampler import Resampler, sorted_rows
from .undisturbed import undisturbed

logger = logging.getLogger(__name__)

PROBABILITIES = ("held_out", "cross_fit")


class Refresh(TrainerCallback):
    """Mine candidates again with the present encoder, every n steps or epochs.

    Queries and documents are encoded, candidates are mined, and their false-negative probabilities are
    estimated. The resampler, and a loss that has the pool, continue with the new pool. There is no refresh
    after the last step, as no negatives are drawn any more. To fit the model's adapter on the final encoder,
    see `fit_model`.

    The main process encodes and fits while the others wait; they read what it wrote, so `output_dir` must be
    one folder for all. Every process needs the whole model (one process, or DDP). The random numbers of the
    training aren't affected.

    Each refresh is written to `output_dir/step-<n>/`, and the folder belongs to one run. If a run is resumed
    from a checkpoint, with as many processes, it continues with the pool and the negatives that it had there,
    and ends like a run that wasn't interrupted. Refreshes that no checkpoint in the trainer's folder needs
    are deleted.

    A new pool takes effect a little later: a data loader reads one or more batches ahead (always the same
    number), and a pair that was already read keeps its negatives until the epoch ends.

    Args:
        resampler: The resampler of the training set. Add it to the callbacks of the trainer, too.
        output_dir: Folder of the refreshes.
        every_steps: Number of steps between refreshes.
        every_epochs: Number of epochs between refreshes; give one of the two.
        development: Development queries (a split of the resampler's collection), on which the encoder isn't
            trained. `"held_out"` needs at least two. Without them, `"cross_fit"` of residual adapters holds
            out a part of the training queries of each fit.
        probabilities: `"held_out"`: an adapter is fitted on the development queries. The encoder was trained
            on the embeddings of the training queries, but not on theirs. `"cross_fit"`: adapters are fitted
            on the other training queries, see `cross_fit`.
        drop_above_positive: Give no weight to candidates that the encoder scores above the query's best
            labelled document, see `drop_above_positive`.
        refit_adapter: Replace the weights of the model's adapter, in place: by those of the adapter fitted on
            the development queries, or with `"cross_fit"` on all training queries. This is for a loss that
            uses the adapter, and needs `ResidualFitArguments`.
        arguments: Settings of the fits, with `maps="none"`, as maps are for an encoder that stays as it is;
            `FitArguments(maps="none")` by default.
        folds: Number of folds of `"cross_fit"`.
        batch_size: Encoder batch size.
        loss: A loss that has a pool. It is given each new pool.

    Raises:
        ValueError: If an argument is not legal, or the pool's positives are not those of the collection. When
            training begins, also if the model has no adapter of the sizes that are fitted, or if steps are
            counted and the data loader has workers, which would see a new pool in the next epoch only.
        FileNotFoundError: If a run is resumed whose refreshes are not in `output_dir`.

    Source:
        The moving encoder: RRRA, arXiv 2508.11670, stage 3; mining again while training: ANCE,
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
        refit_adapter: bool = False,
        arguments: AnyFitArguments | None = None,
        folds: int = 5,
        batch_size: int = 64,
        loss: RRRALoss | CachedRRRALoss | None = None,
    ):
        arguments = arguments or FitArguments(maps="none")
        _check_intervals(every_steps, every_epochs)
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
        if arguments.maps != "none":
            raise ValueError(f"arguments.maps must be 'none' in a Refresh, got {arguments.maps!r}.")
        if refit_adapter and not isinstance(arguments, ResidualFitArguments):
            raise ValueError(
                "refit_adapter needs arguments=ResidualFitArguments(...): an adapter that reads features "
                "can't be replaced in place."
            )
        if loss is not None and loss.pool is None:
            raise ValueError("loss must have a pool to be given a new one: make it with pool=...")
        if sorted_rows(resampler.collection.positive_rows) != sorted_rows(resampler.pool.positives):
            raise ValueError("resampler must have a pool with the positives of its collection.")
        self.resampler = resampler
        self.folders = RefreshFolders(Path(output_dir))
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
        """Check the settings, and load the last refresh of a resumed run."""
        if self.every_steps is not None and args.dataloader_num_workers > 0:
            raise ValueError(
                "every_steps needs dataloader_num_workers=0: workers would continue with the former pool "
                "until the epoch ends. Use every_epochs."
            )
        encoder = extract_model_from_parallel(kwargs["model"])
        if self.refit_adapter:
            assert isinstance(self.arguments, ResidualFitArguments)
            check_adapter(encoder, self.arguments)
        self._next_epoch = int(state.epoch)
        self._is_amid_epoch = state.epoch > self._next_epoch
        with joined_processes() as processes:
            processes.on_main(lambda: self.folders.delete_after(state.global_step))
        if steps := self.folders.steps():
            self._load(encoder, steps[-1], is_now=steps[-1] == state.global_step)
            if self.folders.draws(steps[-1]).exists():
                self.resampler.load_draws(self.folders.draws(steps[-1]))
        elif self._has_refreshed(state):
            raise FileNotFoundError(
                f"{self.folders.path} has no refresh of the run that is resumed at step {state.global_step}, "
                "which continues from its last one."
            )

    def _has_refreshed(self, state: TrainerState) -> bool:
        """Return whether the run that is resumed had a refresh before this checkpoint."""
        if self.every_steps is not None:
            return state.global_step >= self.every_steps
        assert self.every_epochs is not None
        return state.epoch > self.every_epochs

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refresh between epochs. At the end of an epoch, a checkpoint would have been saved already."""
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
        """Make the refresh of this step, unless it was made before an interruption, and load it."""
        encoder = extract_model_from_parallel(model)
        step = state.global_step
        with undisturbed(encoder):
            with joined_processes() as processes:
                processes.on_main(lambda: self._make(encoder, step))
            self.resampler.save_draws(self.folders.draws(step))
            self._load(encoder, step, is_now=True)
        # A checkpoint of this step needs the draws of every process.
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            self.folders.delete_unneeded(Path(str(args.output_dir)))

    def _make(self, encoder: SentenceTransformer, step: int) -> None:
        """Write the pool and the adapter of the present encoder."""
        if self.folders.folder(step).exists():
            return
        began = time.perf_counter()
        before = self.resampler.pool
        pool, adapter = self._estimated(encoder)
        with write_aside(self.folders.folder(step)) as temporary:
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

    def _estimated(self, encoder: SentenceTransformer) -> tuple[CandidatePool, RetrieverAdapter | None]:
        """Return candidates with their probabilities, and the adapter for the model if it is refitted."""
        collection, words = self.resampler.collection, self._words
        embeddings = embed_collection(collection, encoder, batch_size=self.batch_size)
        queries, documents, _ = embeddings
        query_words = words.count(collection.query_texts)
        pool = mine_collection(collection, embeddings, self.resampler.pool.depth, words=words)
        development = self._development(encoder)
        fit: dict[str, Any] = {"arguments": self.arguments, "document_words": words}
        if self.probabilities == "held_out":
            assert development is not None
            given = mine_embeddings(
                development.embeddings,
                documents,
                development.positives,
                depth=self.arguments.depth,
                negatives=development.negatives,
                excluded=development.excluded,
            )
            adapter = fit_adapter(
                development.embeddings, documents, pool=given, query_words=development.words, **fit
            )
            pool = with_probability(pool, adapter, embeddings, query_words, words)
        else:
            fit.update(development=development, query_words=query_words)
            pool = cross_fit(pool, queries, documents, folds=self.folds, **fit)
            if self.refit_adapter:
                adapter = fit_adapter(queries, documents, pool=pool, **fit)
        if self.drop_above_positive:
            pool = drop_above_positive(pool, best_positive_scores(queries, documents, pool.positives))
        return pool, adapter if self.refit_adapter else None

    def _development(self, encoder: SentenceTransformer) -> LabelledQueries | None:
        if self.development is None:
            return None
        texts = self.development.query_texts
        embeddings = encode(encoder, texts, task="query", batch_size=self.batch_size)
        return LabelledQueries.of(self.development, embeddings, self._words.count(texts))

    @cached_property
    def _words(self) -> WordIndex:
        """The words of the corpus, which stay the same while the encoder changes."""
        return WordIndex.of(self.resampler.collection.document_texts)

    def _load(self, encoder: SentenceTransformer, step: int, is_now: bool) -> None:
        """Load a refresh.

        The adapter's weights are loaded only if the refresh is of the present step. Otherwise they were
        trained since, and the trainer has loaded them from the checkpoint, though not the adapter's settings.
        """
        self.resampler.pool = CandidatePool.load(self.folders.pool(step))
        if self.loss is not None:
            self.loss.pool = self.resampler.pool
        if self.refit_adapter:
            fitted = RetrieverAdapter.from_pretrained(self.folders.adapter(step))
            take_over(RRRAModel.from_sentence_transformer(encoder).adapter, fitted, weights=is_now)


def _check_intervals(every_steps: int | None, every_epochs: int | None) -> None:
    if (every_steps is None) == (every_epochs is None):
        raise ValueError("Give either every_steps or every_epochs, and not both.")
    for name, value in (("every_steps", every_steps), ("every_epochs", every_epochs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


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


def _changed(before: CandidatePool, after: CandidatePool) -> float:
    """Return the share of the candidates that their query didn't have before."""
    keys = []
    for pool in (before, after):
        queries, places = np.nonzero(pool.candidates >= 0)
        keys.append(queries * len(pool.document_ids) + pool.candidates[queries, places])
    return float(np.mean(np.isin(keys[1], keys[0], invert=True)))
