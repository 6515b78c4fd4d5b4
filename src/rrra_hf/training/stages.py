"""The work of each stage of `train`."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import get_device_name
from torch import nn
from transformers import TrainerCallback

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection
from ..evaluation import RankingQuality
from ..fitting import cross_fit, fit_model
from ..indexes import WordIndex
from ..labels import best_positive_scores, drop_above_positive, drop_strategy, rrra_strategy
from ..labels.estimates import ADD
from ..losses import RRRALoss
from ..models.adapter_rrra import RetrieverAdapter
from ..models.files_rrra import write_json
from ..models.modeling_rrra import RRRAModel
from ..retrieval.evaluate import evaluate_embeddings
from .choice import FROZEN, NAMES, choose_encoder
from .contrastive import train_contrastive
from .evaluator import CANDIDATES, development_evaluator, evaluated_rows
from .plot import NDCG, plot_run
from .refresh import Refresh
from .resampler import Resampler
from .run_folder import RunFolder
from .train_arguments import TrainArguments
from .train_data import pair_dataset

logger = logging.getLogger(__name__)

MODEL_NAME = "model"
STAGES = ("stage1", "stage2", "stage3", "comparison", "final")
MEASURES = (NDCG, "R@1", "R@100")


@dataclass
class Stages:
    """The stages, each of which reads what the former ones saved and returns its results.

    Args:
        folder: Folder of the run.
        collection: The collection as it was given, which the final adapter is fitted on.
        parts: The same with the splits `train` and `dev`, which all else is done with.
        arguments: Settings.
        frozen: Opens the encoder as it came.
        dtype: Data type of the result's encoder. It is trained in float32.
        callbacks: Callbacks of the trainers.
    """

    folder: RunFolder
    collection: Collection
    parts: Collection
    arguments: TrainArguments
    frozen: Callable[[], RRRAModel]
    dtype: torch.dtype = torch.float32
    callbacks: Sequence[TrainerCallback] = ()

    def __post_init__(self) -> None:
        self.training, self.development = self.parts.split("train"), self.parts.split("dev")
        self.cache = self.folder.path / "embeddings"
        self.processes = self.folder.processes

    def stage1(self, model: RRRAModel) -> dict[str, Any]:
        """Train the encoder with in-batch negatives."""
        encoder = model.to_sentence_transformer()
        loss = MultipleNegativesRankingLoss(encoder, **self._softmax)
        epochs, max_steps = self.arguments.stage1_epochs, self.arguments.stage1_max_steps
        return self._train_encoder(1, encoder, loss, pair_dataset(self.training), epochs, max_steps)

    def stage2(self) -> dict[str, Any]:
        """Mine candidates with the frozen encoder, and cross-fit their probabilities."""
        encoder = self._load(1).to_sentence_transformer()
        queries, documents, _ = embeddings = self._embed(self.training, encoder)
        pool = mine_collection(self.training, embeddings, self.arguments.fit.depth, words=self._words)
        pool = cross_fit(
            pool,
            queries,
            documents,
            folds=self.arguments.folds,
            arguments=self.arguments.fit,
            development=LabelledQueries.of(
                self.development,
                self._embed(self.development, encoder).queries,
                self._words.count(self.development.query_texts),
            ),
            query_words=self._words.count(self.training.query_texts),
            document_words=self._words,
        )
        if self.arguments.drop_above_positive:
            pool = drop_above_positive(pool, best_positive_scores(queries, documents, pool.positives))
        pool.save(self.folder.path / "stage2" / "pool")
        probability = pool.required_probability[pool.candidates >= 0]
        # A corpus may have no document without a label.
        count = max(1, len(probability))
        return {
            "candidates": len(probability),
            "false_negative_probability": float(probability.sum() / count),
            "suspects": float((probability > ADD).sum() / count),
        }

    def stage3(self) -> dict[str, Any]:
        """Train the encoder of stage 1 further, with hard negatives that count by their probabilities."""
        arguments = self.arguments
        pool = CandidatePool.load(self.folder.path / "stage2" / "pool")
        resampler = Resampler(
            self.training,
            pool,
            num_negatives=arguments.num_negatives,
            # The loss reads the pool, so that only the chances count here.
            strategy=drop_strategy if arguments.targets == "drop" else rrra_strategy,
            labels="rows",
            seed=arguments.seed,
        )
        encoder = self._load(1).to_sentence_transformer()
        # With rows of the pool as labels, the loss knows all labelled documents of each query.
        loss = RRRALoss(encoder, pool=pool, targets=arguments.targets, gamma=arguments.gamma, **self._softmax)
        callbacks: list[TrainerCallback] = []
        if arguments.refresh_steps or arguments.refresh_epochs:
            callbacks.append(self._refresh(resampler, loss))
        epochs, max_steps = arguments.stage3_epochs, arguments.stage3_max_steps
        return self._train_encoder(
            3, encoder, loss, resampler.dataset, epochs, max_steps, callbacks, resampler=resampler
        )

    def comparison(self) -> dict[str, Any]:
        """Fit an adapter to each encoder without the development queries, and compare the two by these."""
        training = replace(self.parts, qrels_by_split={"train": self.training.qrels})
        found = {}
        for name in NAMES:
            encoder, model = self._fitted(name, training)
            found[name] = self._measure(encoder, model.adapter)
        choice = choose_encoder({name: quality["adapter"].per_query[NDCG] for name, quality in found.items()})
        logger.info(choice.sentence)
        development = {name: _means(quality) for name, quality in found.items()}
        queries = len(self.development.query_ids)
        return {"development": {"queries": queries, **development}, **choice._asdict()}

    def final(self) -> dict[str, Any]:
        """Fit an adapter to the encoder that is kept, on the whole collection, and save the two together."""
        kept = self.folder.results("comparison")["encoder"]
        _, model = self._fitted(kept, self.collection)
        model.adapter.config.fit["training"] = self._record()
        model.save_pretrained(self.folder.path / MODEL_NAME)
        return {"encoder": kept}

    def summarize(self) -> None:
        """Write the results of all stages to one file, and plot the run."""
        plot_run(self.folder.path)
        self.folder.summarize(STAGES)

    # ---------------------------------------------------------------- parts of stages

    def _fitted(self, name: str, collection: Collection) -> tuple[SentenceTransformer, RRRAModel]:
        """Return an encoder by its name, and the model of it with an adapter fitted on a collection."""
        model = self._load_frozen() if name == FROZEN else self._load(int(name[-1]), self.dtype)
        # Made now, it has none of the linear maps that are fitted.
        encoder = model.to_sentence_transformer()
        batch_size = self.arguments.encode_batch_size
        fit_model(model, collection, self.arguments.fit, cache_dir=self.cache, batch_size=batch_size)
        return encoder, model

    def _record(self) -> dict[str, Any]:
        """Return what the saved model records of its training: settings, and figures of the stages."""
        arguments = self.arguments.to_dict()
        del arguments["fit"]  # the fit records its own
        stages = {name: self.folder.results(name) for name in STAGES[:-1]}
        for results in stages.values():
            del results["seconds"]  # would differ after an interruption
        return {"arguments": arguments, "stages": stages}

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
        return _ready(RRRAModel.from_pretrained(self.folder.path / f"stage{stage}" / MODEL_NAME, dtype=dtype))

    def _load_frozen(self) -> RRRAModel:
        return _ready(self.frozen())

    def _train_encoder(
        self,
        stage: int,
        encoder: SentenceTransformer,
        loss: nn.Module,
        dataset: Dataset,
        epochs: int,
        max_steps: int | None,
        callbacks: Sequence[TrainerCallback] = (),
        resampler: Resampler | None = None,
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
            callbacks=[*callbacks, *self.callbacks],
            evaluator=self._evaluator,
            resampler=resampler,
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
        development = {"queries": len(self.development.query_ids), **_means(self._measure(encoder))}
        # Not earlier: a run that is interrupted before continues from the last checkpoint.
        shutil.rmtree(place / "checkpoints")
        steps = sum("loss" in entry for entry in history)
        return {"steps": steps, "development": development}

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

    @cached_property
    def _evaluator(self) -> InformationRetrievalEvaluator | None:
        """What evaluates encoders while they are trained, on the same documents in both stages."""
        if self.arguments.eval_steps is None:
            return None
        rows = self.processes.on_main(self._evaluated_rows)
        return development_evaluator(self.development, *rows, self.arguments.encode_batch_size)

    def _evaluated_rows(self) -> tuple[list[int], list[int]]:
        encoder = self._load_frozen().to_sentence_transformer()
        embeddings = self._embed(self.development, encoder)
        pool = mine_collection(self.development, embeddings, CANDIDATES, words=self._words)
        return evaluated_rows(pool, self.arguments.seed)

    def _measure(
        self, encoder: SentenceTransformer, adapter: RetrieverAdapter | None = None
    ) -> dict[str, RankingQuality]:
        """Return how the development queries are ranked, without and with an adapter."""
        part = self.development
        reads_words = adapter is not None and adapter.reads_words
        return evaluate_embeddings(
            part,
            self._embed(part, encoder),
            adapter,
            depth=self.arguments.fit.depth,
            query_words=self._words.count(part.query_texts) if reads_words else None,
            document_words=self._words if reads_words else None,
            measures=MEASURES,
        )


def _means(quality: dict[str, RankingQuality]) -> dict[str, dict[str, float]]:
    return {name: system.mean for name, system in quality.items()}


def _ready(model: Any) -> RRRAModel:
    ready: RRRAModel = model.to(get_device_name()).eval()
    return ready
