"""The three stages, from a collection and an encoder to a saved, reranking retriever."""

from __future__ import annotations

import gc
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import get_device_name
from torch import nn
from transformers import TrainerCallback, set_seed

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..data import Collection
from ..embeddings import CollectionEmbeddings, collection_fingerprint, embed_collection, encoder_fingerprint
from ..fitting import cross_fit, fit_adapter, fit_model
from ..fitting.fit_model import words_to_read
from ..labels import best_positive_scores, drop_above_positive, rrra_strategy
from ..losses import RRRALoss
from ..models.adapter_rrra import RetrieverAdapter
from ..models.files_rrra import read_json, write_json
from ..models.modeling_rrra import RRRAModel
from ..retrieval.measure import measure
from .contrastive import progress_bars_on_terminals_only, train_contrastive
from .launch import check_launch
from .processes import Processes, joined_processes
from .refresh import Refresh
from .resampler import Resampler
from .run_folder import RESULTS_NAME, RunFolder
from .train_arguments import TrainArguments
from .train_data import pair_dataset, with_development

logger = logging.getLogger(__name__)

MODEL_NAME = "model"


def train(
    collection: Collection,
    encoder: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    arguments: TrainArguments | None = None,
) -> RRRAModel:
    """Train a retriever in three stages, refit its adapter, and save it.

    1. The encoder is trained by contrast, on (query, positive) pairs with in-batch negatives.
    2. The encoder is frozen: its candidates are mined, their false-negative probabilities cross-fitted,
       and an adapter is fitted.
    3. The encoder of stage 1 is trained on with drawn candidates as hard negatives, each with the
       resampling weight that its probability says.
    4. The adapter is fitted again on the final encoder: that of stage 3, or of stage 1 if that ranks the
       development queries better.

    Started again with the same arguments, an interrupted run continues where it stopped, and ends
    with the same result as one that was not interrupted.

    Called in every process of an `accelerate launch` or `torchrun`, it trains the encoder in all of them,
    each with its share of the batch; the rest is done by the main process while the others wait.

    Args:
        collection: A collection with the split `train`; its split `dev`, or else a held-out part of
            `train`, serves as development queries in every stage.
        encoder: Folder or Hub repository of the encoder.
        output_dir: Folder of the run: `model/` is the result; `stage1/`, `stage2/`, `stage3/` hold what
            the stages made, `results.json` their figures, `embeddings/` the cache. All processes
            must see it under this name.
        arguments: Settings; the defaults if not given.

    Returns:
        The model in `output_dir/model`, in evaluation mode.

    Raises:
        ValueError: If `output_dir` belongs to another run, the message naming what differs; if the
            collection has no split `train` or too few queries; or if `batch_size` is no multiple of the
            number of processes.
        OSError: If there is no such encoder.
        FloatingPointError: If a loss is not finite, see `StopOnNonFiniteLoss`.
        RuntimeError: If the launch was asked for several processes and started one, see `check_launch`;
            or in another process than the main one, if that failed.

    Source:
        RRRA, arXiv 2508.11670.
    """
    check_launch()
    arguments = arguments or TrainArguments()
    with joined_processes() as processes, progress_bars_on_terminals_only(processes):
        return _run(collection, encoder, output_dir, arguments, processes)


def _run(
    collection: Collection,
    encoder: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    arguments: TrainArguments,
    processes: Processes,
) -> RRRAModel:
    if arguments.batch_size % processes.count:
        raise ValueError(
            f"batch_size must be a multiple of the {processes.count} processes, got {arguments.batch_size}."
        )
    parts = with_development(collection, arguments.fit.development_fraction, arguments.seed)
    start = _starting_model(encoder, arguments)
    settings = {
        "arguments": arguments.to_dict(),
        "collection": collection_fingerprint(parts),
        "encoder": encoder_fingerprint(start.to_sentence_transformer()),
        "processes": processes.count,
    }
    folder = RunFolder(output_dir, settings, processes)
    stages = _Stages(folder, parts, arguments)
    folder.run_stage("stage1", lambda: stages.stage1(start), together=True)
    folder.run_stage("stage2", stages.stage2)
    folder.run_stage("stage3", stages.stage3, together=True)
    folder.run_stage("final", stages.final)
    folder.summarize(("stage1", "stage2", "stage3", "final"))
    return RRRAModel.from_pretrained(folder.path / MODEL_NAME).eval()


def _starting_model(encoder: str | os.PathLike[str], arguments: TrainArguments) -> RRRAModel:
    # LoRA starts from random weights.
    set_seed(arguments.seed)
    return RRRAModel.from_encoder(
        encoder,
        lora=(arguments.lora or True) if arguments.mode == "lora" else None,
        max_seq_length=arguments.max_seq_length,
    )


@dataclass
class _Stages:
    """The work of each stage: reads what the former ones saved, and returns its results."""

    folder: RunFolder
    collection: Collection
    arguments: TrainArguments

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
        """Mine candidates with the frozen encoder, cross-fit their probabilities, fit an adapter."""
        fit = self.arguments.fit
        encoder = self._load(1).to_sentence_transformer()
        queries, documents, _ = embeddings = self._embed(self.training, encoder)
        development = LabelledQueries(
            self._embed(self.development, encoder).queries,
            self.development.positive_rows,
            self._words(encoder, self.development.query_texts),
        )
        words = {
            "query_words": self._words(encoder, self.training.query_texts),
            "document_words": self._words(encoder, self.training.document_texts),
        }
        pool = cross_fit(
            mine_collection(self.training, embeddings, fit.depth),
            queries,
            documents,
            development=development,
            arguments=fit,
            folds=self.arguments.folds,
            **words,
        )
        if self.arguments.drop_above_positive:
            pool = drop_above_positive(pool, best_positive_scores(queries, documents, pool.positives))
        pool.save(self.folder.path / "stage2" / "pool")
        adapter = fit_adapter(queries, documents, pool=pool, development=development, arguments=fit, **words)
        adapter.save_pretrained(self.folder.path / "stage2" / "adapter")
        return self._measure(encoder, adapter)

    def stage3(self) -> dict[str, Any]:
        """Train the encoder of stage 1 on, with hard negatives and their resampling weights."""
        arguments = self.arguments
        pool = CandidatePool.load(self.folder.path / "stage2" / "pool")
        weights: dict[str, Any] = {"gamma": arguments.gamma, "hardness": arguments.hardness}
        resampler = Resampler(
            self.training,
            pool,
            num_negatives=arguments.num_negatives,
            strategy=partial(rrra_strategy, mode=arguments.sampling, tau=arguments.fit.tau, **weights),
            labels="rows",
            seed=arguments.seed,
        )
        encoder = self._load(1).to_sentence_transformer()
        # By their rows the loss knows every labelled document of a query among those of others. What is
        # drawn by its weight has no other weight.
        in_loss = weights if arguments.sampling == "uniform" else {"gamma": 0.0}
        loss = RRRALoss(encoder, pool=pool, **in_loss, **self._softmax)
        callbacks: list[TrainerCallback] = [resampler]
        if arguments.refresh_steps or arguments.refresh_epochs:
            callbacks.append(self._refresh(resampler, loss))
        epochs, max_steps = arguments.stage3_epochs, arguments.stage3_max_steps
        return self._train_encoder(3, encoder, loss, resampler.dataset, epochs, max_steps, callbacks)

    def final(self) -> dict[str, Any]:
        """Fit the adapter on the better encoder, and save the two together."""
        stage = self._better_stage()
        model = self._load(stage)
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
        """Return what the saved model says of its training: settings, and figures of the stages."""
        arguments = self.arguments.to_dict()
        del arguments["fit"]  # recorded beside
        stages = {
            name: read_json(self.folder.path / name / RESULTS_NAME) for name in ("stage1", "stage2", "stage3")
        }
        for results in stages.values():
            del results["seconds"]  # an interrupted run is to end as any other
        return {"arguments": arguments, "stages": {**stages, "final": final}}

    def _better_stage(self) -> int:
        """Return 3, or 1 if its encoder ranks the development queries better and may be fallen back to."""
        before, after = (
            read_json(self.folder.path / stage / RESULTS_NAME)["development"]["encoder"]["nDCG@10"]
            for stage in ("stage1", "stage3")
        )
        if after >= before or not self.arguments.fall_back:
            return 3
        logger.warning(
            "Hard negatives did not pay: development nDCG@10 is %.4f after stage 3 and was %.4f after "
            "stage 1, whose encoder is kept.",
            after,
            before,
        )
        return 1

    @property
    def _softmax(self) -> dict[str, Any]:
        """Temperature of the stages' losses, and whether they gather."""
        return {"scale": 1 / self.arguments.fit.tau, "gather_across_devices": self.processes.count > 1}

    def _refresh(self, resampler: Resampler, loss: RRRALoss) -> Refresh:
        """Return the callback that refreshes the pool of stage 3; the adapter is fitted after it."""
        arguments = self.arguments
        return Refresh(
            resampler,
            self.folder.path / "stage3" / "checkpoints" / "refresh",
            every_steps=arguments.refresh_steps,
            every_epochs=arguments.refresh_epochs,
            development=self.development,
            drop_above_positive=arguments.drop_above_positive,
            refit_adapter=False,
            arguments=replace(arguments.fit, stage1="none"),
            batch_size=arguments.encode_batch_size,
            loss=loss,
        )

    def _load(self, stage: int) -> RRRAModel:
        model = RRRAModel.from_pretrained(self.folder.path / f"stage{stage}" / MODEL_NAME)
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
        # The trainer and what it holds refer to each other: gigabytes that would wait for a collection.
        gc.collect()
        return self.processes.on_main(lambda: self._save_encoder(place, model, encoder, history))

    def _save_encoder(
        self, place: Path, model: RRRAModel, encoder: SentenceTransformer, history: list[dict[str, float]]
    ) -> dict[str, Any]:
        write_json(place / "history.json", history)
        model.save_pretrained(place / MODEL_NAME)
        results = self._measure(encoder)
        # The model is saved: an interruption from here on trains no step again.
        shutil.rmtree(place / "checkpoints")
        return {"steps": len(history), **results}

    def _embed(self, collection: Collection, encoder: SentenceTransformer) -> CollectionEmbeddings:
        return embed_collection(
            collection,
            encoder,
            cache_dir=self.cache,
            batch_size=self.arguments.encode_batch_size,
        )

    def _words(self, encoder: SentenceTransformer, texts: Sequence[str]) -> csr_array | None:
        return words_to_read(self.arguments.fit, encoder, texts)

    def _measure(
        self, encoder: SentenceTransformer, adapter: RetrieverAdapter | None = None
    ) -> dict[str, Any]:
        embeddings = self._embed(self.development, encoder)
        results = {"encoder": measure(self.development, embeddings)}
        if adapter is not None:
            depth = self.arguments.fit.depth
            results["adapter"] = measure(
                self.development,
                embeddings,
                adapter,
                depth=depth,
                query_words=self._words(encoder, self.development.query_texts),
                document_words=self._words(encoder, self.development.document_texts),
            )
        return {"development": {"queries": len(self.development.query_ids), **results}}
