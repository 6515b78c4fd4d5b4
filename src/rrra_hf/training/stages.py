"""The work of each stage of `train`."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import get_device_name
from torch import nn
from transformers import TrainerCallback

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection
from ..fitting import cross_fit, fit_adapter, fit_model
from ..indexes import WordIndex
from ..labels import best_positive_scores, drop_above_positive, rrra_strategy
from ..losses import RRRALoss
from ..models.adapter_rrra import RetrieverAdapter
from ..models.files_rrra import read_json, write_json
from ..models.modeling_rrra import RRRAModel
from ..retrieval.evaluate import evaluate_embeddings
from .contrastive import train_contrastive
from .refresh import Refresh
from .resampler import Resampler
from .run_folder import RESULTS_NAME, RunFolder
from .train_arguments import TrainArguments
from .train_data import pair_dataset

logger = logging.getLogger(__name__)

MODEL_NAME = "model"
MEASURES = ("nDCG@10", "R@1", "R@100")


@dataclass
class Stages:
    """The stages, each of which reads what the former ones saved and returns its results.

    Args:
        folder: Folder of the run.
        collection: A collection with the splits `train` and `dev`.
        arguments: Settings.
        dtype: Data type of the result's encoder. It is trained in float32.
    """

    folder: RunFolder
    collection: Collection
    arguments: TrainArguments
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.training, self.development = self.collection.split("train"), self.collection.split("dev")
        self.cache = self.folder.path / "embeddings"
        self.processes = self.folder.processes

    def stage1(self, model: RRRAModel) -> dict[str, Any]:
        """Train the encoder with in-batch negatives."""
        encoder = model.to_sentence_transformer()
        loss = MultipleNegativesRankingLoss(encoder, **self._softmax)
        epochs, max_steps = self.arguments.stage1_epochs, self.arguments.stage1_max_steps
        return self._train_encoder(1, encoder, loss, pair_dataset(self.training), epochs, max_steps)

    def stage2(self) -> dict[str, Any]:
        """Mine candidates with the frozen encoder, cross-fit their probabilities, and fit an adapter."""
        encoder = self._load(1).to_sentence_transformer()
        queries, documents, _ = embeddings = self._embed(self.training, encoder)
        fit: dict[str, Any] = {
            "arguments": self.arguments.fit,
            "development": LabelledQueries.of(
                self.development,
                self._embed(self.development, encoder).queries,
                self._words.count(self.development.query_texts),
            ),
            "query_words": self._words.count(self.training.query_texts),
            "document_words": self._words,
        }
        pool = mine_collection(self.training, embeddings, self.arguments.fit.depth, words=self._words)
        pool = cross_fit(pool, queries, documents, folds=self.arguments.folds, **fit)
        if self.arguments.drop_above_positive:
            pool = drop_above_positive(pool, best_positive_scores(queries, documents, pool.positives))
        pool.save(self.folder.path / "stage2" / "pool")
        adapter = fit_adapter(queries, documents, pool=pool, **fit)
        adapter.save_pretrained(self.folder.path / "stage2" / "adapter")
        return self._measure(encoder, adapter)

    def stage3(self) -> dict[str, Any]:
        """Train the encoder of stage 1 further, with hard negatives and their resampling weights."""
        arguments = self.arguments
        pool = CandidatePool.load(self.folder.path / "stage2" / "pool")
        resampler = Resampler(
            self.training,
            pool,
            num_negatives=arguments.num_negatives,
            strategy=partial(rrra_strategy, gamma=arguments.gamma),
            labels="rows",
            seed=arguments.seed,
        )
        encoder = self._load(1).to_sentence_transformer()
        # With rows of the pool as labels, the loss knows all labelled documents of each query.
        loss = RRRALoss(encoder, pool=pool, gamma=arguments.gamma, **self._softmax)
        callbacks: list[TrainerCallback] = [resampler]
        if arguments.refresh_steps or arguments.refresh_epochs:
            callbacks.append(self._refresh(resampler, loss))
        epochs, max_steps = arguments.stage3_epochs, arguments.stage3_max_steps
        return self._train_encoder(3, encoder, loss, resampler.dataset, epochs, max_steps, callbacks)

    def final(self) -> dict[str, Any]:
        """Fit an adapter on the better encoder, and save the two together."""
        stage = self._better_stage()
        model = self._load(stage, self.dtype)
        encoder = model.to_sentence_transformer()
        fit_model(
            model,
            self.collection,
            self.arguments.fit,
            cache_dir=self.cache,
            batch_size=self.arguments.encode_batch_size,
        )
        results = {"stage": stage, **self._measure(encoder, model.adapter)}
        model.adapter.config.fit["training"] = self._record(results)
        model.save_pretrained(self.folder.path / MODEL_NAME)
        return results

    # ---------------------------------------------------------------- parts of stages

    def _record(self, final: dict[str, Any]) -> dict[str, Any]:
        """Return what the saved model records of its training: settings, and figures of the stages."""
        arguments = self.arguments.to_dict()
        del arguments["fit"]  # the fit records its own
        stages = {
            name: read_json(self.folder.path / name / RESULTS_NAME) for name in ("stage1", "stage2", "stage3")
        }
        for results in stages.values():
            del results["seconds"]  # would differ after an interruption
        return {"arguments": arguments, "stages": {**stages, "final": final}}

    def _better_stage(self) -> int:
        """Return 3, or 1 if its encoder ranks the development queries better and `fall_back` is set."""
        before, after = (
            read_json(self.folder.path / stage / RESULTS_NAME)["development"]["encoder"]["nDCG@10"]
            for stage in ("stage1", "stage3")
        )
        if after >= before or not self.arguments.fall_back:
            return 3
        logger.warning(
            "Hard negatives did not help: development nDCG@10 is %.4f after stage 3 and was %.4f after "
            "stage 1. The encoder of stage 1 is kept.",
            after,
            before,
        )
        return 1

    @property
    def _softmax(self) -> dict[str, Any]:
        """Settings of the losses of both stages."""
        return {"scale": 1 / self.arguments.fit.tau, "gather_across_devices": self.processes.count > 1}

    def _refresh(self, resampler: Resampler, loss: RRRALoss) -> Refresh:
        arguments = self.arguments
        return Refresh(
            resampler,
            self.folder.path / "stage3" / "checkpoints" / "refresh",
            every_steps=arguments.refresh_steps,
            every_epochs=arguments.refresh_epochs,
            development=self.development,
            drop_above_positive=arguments.drop_above_positive,
            # Maps are for an encoder that stays as it is.
            arguments=replace(arguments.fit, maps="none"),
            batch_size=arguments.encode_batch_size,
            loss=loss,
        )

    def _load(self, stage: int, dtype: torch.dtype = torch.float32) -> RRRAModel:
        model = RRRAModel.from_pretrained(self.folder.path / f"stage{stage}" / MODEL_NAME, dtype=dtype)
        return model.to(get_device_name()).eval()

    def _train_encoder(
        self,
        stage: int,
        encoder: SentenceTransformer,
        loss: nn.Module,
        dataset: Dataset,
        epochs: int,
        max_steps: int | None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> dict[str, Any]:
        place = self.folder.path / f"stage{stage}"
        model = RRRAModel.from_sentence_transformer(encoder)
        history = train_contrastive(
            model,
            encoder,
            loss,
            dataset,
            place / "checkpoints",
            self.arguments,
            stage=stage,
            epochs=epochs,
            max_steps=max_steps,
            callbacks=callbacks,
            processes=self.processes,
        )
        # The trainer and its parts refer to each other, and would keep gigabytes until the next collection.
        gc.collect()
        return self.processes.on_main(lambda: self._save_encoder(place, model, encoder, history))

    def _save_encoder(
        self, place: Path, model: RRRAModel, encoder: SentenceTransformer, history: list[dict[str, float]]
    ) -> dict[str, Any]:
        write_json(place / "history.json", history)
        model.save_pretrained(place / MODEL_NAME)
        results = self._measure(encoder)
        # Not earlier: a run that is interrupted before continues from the last checkpoint.
        shutil.rmtree(place / "checkpoints")
        return {"steps": len(history), **results}

    def _embed(self, collection: Collection, encoder: SentenceTransformer) -> CollectionEmbeddings:
        return embed_collection(
            collection,
            encoder,
            cache_dir=self.cache,
            batch_size=self.arguments.encode_batch_size,
        )

    @cached_property
    def _words(self) -> WordIndex:
        """The words of the corpus."""
        return WordIndex.of(self.collection.document_texts)

    def _measure(
        self, encoder: SentenceTransformer, adapter: RetrieverAdapter | None = None
    ) -> dict[str, Any]:
        """Return the figures of the development queries, without and with an adapter."""
        part = self.development
        reads_words = adapter is not None and adapter.reads_words
        quality = evaluate_embeddings(
            part,
            self._embed(part, encoder),
            adapter,
            depth=self.arguments.fit.depth,
            query_words=self._words.count(part.query_texts) if reads_words else None,
            document_words=self._words if reads_words else None,
            measures=MEASURES,
        )
        means = {name: system.mean for name, system in quality.items()}
        return {"development": {"queries": len(part.query_ids), **means}}
