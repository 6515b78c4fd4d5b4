"""The three stages, from a collection and an encoder to a saved, reranking retriever."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import get_device_name
from torch import nn
from transformers import set_seed

from ..adapter_rrra import RetrieverAdapter
from ..data import Collection
from ..embeddings import CollectionEmbeddings, embed_collection, encoder_fingerprint, texts_fingerprint
from ..losses import RRRALoss
from ..mining import CandidatePool, mine_collection
from ..modeling_rrra import RRRAModel
from .contrastive import progress_bars_on_terminals_only, train_contrastive
from .cross_fit import cross_fit
from .examples import LabelledQueries
from .fit import fit_adapter
from .fit_model import fit_model
from .measure import measure
from .run_folder import RunFolder, write_json
from .train_arguments import TrainArguments
from .train_data import pair_dataset, resampled_dataset, with_development

MODEL_NAME = "model"


@progress_bars_on_terminals_only()
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
    4. The adapter is fitted again on the final encoder.

    Started again with the same arguments, an interrupted run continues where it stopped, and ends
    with the same result as one that was not interrupted.

    Args:
        collection: A collection with the split `train`; its split `dev`, or else a held-out part of
            `train`, serves as development queries in every stage.
        encoder: Folder or Hub repository of the encoder.
        output_dir: Folder of the run: `model/` is the result; `stage1/`, `stage2/`, `stage3/` hold what
            the stages made, `results.json` their figures, `embeddings/` the cache.
        arguments: Settings; the defaults if not given.

    Returns:
        The model in `output_dir/model`, in evaluation mode.

    Raises:
        ValueError: If `output_dir` belongs to another run, the message naming what differs; or if
            the collection has no split `train` or too few queries.
        OSError: If there is no such encoder.

    Source:
        RRRA, arXiv 2508.11670.
    """
    arguments = arguments or TrainArguments()
    parts = with_development(collection, arguments.fit.development_fraction, arguments.seed)
    start = _starting_model(encoder, arguments)
    settings = {
        "arguments": arguments.to_dict(),
        "collection": _collection_fingerprint(parts),
        "encoder": encoder_fingerprint(start.to_sentence_transformer()),
    }
    folder = RunFolder(output_dir, settings)
    stages = _Stages(folder, parts, arguments)
    folder.run_stage("stage1", lambda: stages.stage1(start))
    folder.run_stage("stage2", stages.stage2)
    folder.run_stage("stage3", stages.stage3)
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


def _collection_fingerprint(collection: Collection) -> dict[str, Any]:
    qrels = (
        "\t".join((split, query_id, document_id, str(grade)))
        for split, by_query in collection.qrels_by_split.items()
        for query_id, grades in by_query.items()
        for document_id, grade in grades.items()
    )
    return {
        "documents": texts_fingerprint([*collection.document_ids, *collection.document_texts]),
        "queries": texts_fingerprint([*collection.query_ids, *collection.query_texts]),
        "qrels": texts_fingerprint(qrels),
    }


@dataclass
class _Stages:
    """The work of each stage: reads what the former ones saved, and returns its results."""

    folder: RunFolder
    collection: Collection
    arguments: TrainArguments

    def __post_init__(self) -> None:
        self.training, self.development = self.collection.split("train"), self.collection.split("dev")
        self.cache = self.folder.path / "embeddings"

    def stage1(self, model: RRRAModel) -> dict[str, Any]:
        """Train the encoder with in-batch negatives."""
        arguments = self.arguments
        return self._train_encoder(
            1,
            model,
            lambda encoder: MultipleNegativesRankingLoss(encoder, scale=1 / arguments.fit.tau),
            pair_dataset(self.training),
            arguments.stage1_epochs,
            arguments.stage1_max_steps,
        )

    def stage2(self) -> dict[str, Any]:
        """Mine candidates with the frozen encoder, cross-fit their probabilities, fit an adapter."""
        fit = self.arguments.fit
        encoder = self._load(1).to_sentence_transformer()
        queries, documents, _ = embeddings = self._embed(self.training, encoder)
        development = LabelledQueries(
            self._embed(self.development, encoder).queries, self.development.positive_rows
        )
        pool = cross_fit(
            mine_collection(self.training, embeddings, fit.depth),
            queries,
            documents,
            development=development,
            arguments=fit,
            folds=self.arguments.folds,
        )
        pool.save(self.folder.path / "stage2" / "pool")
        adapter = fit_adapter(queries, documents, pool=pool, development=development, arguments=fit)
        adapter.save_pretrained(self.folder.path / "stage2" / "adapter")
        return self._measure(encoder, adapter)

    def stage3(self) -> dict[str, Any]:
        """Train the encoder of stage 1 on, with hard negatives and their resampling weights."""
        arguments = self.arguments
        pool = CandidatePool.load(self.folder.path / "stage2" / "pool")
        epochs, max_steps = arguments.stage3_epochs, arguments.stage3_max_steps
        if max_steps is not None:
            pairs = sum(len(rows) for rows in pool.positives)
            epochs = -(-max_steps * arguments.batch_size // pairs)
        return self._train_encoder(
            3,
            self._load(1),
            lambda encoder: RRRALoss(encoder, scale=1 / arguments.fit.tau),
            resampled_dataset(self.training, pool, arguments, epochs),
            1,
            max_steps,
        )

    def final(self) -> dict[str, Any]:
        """Fit the adapter on the final encoder, and save the two together."""
        model = self._load(3)
        encoder = model.to_sentence_transformer()
        fit_model(
            model,
            self.collection,
            self.arguments.fit,
            cache_dir=self.cache,
            batch_size=self.arguments.encode_batch_size,
        )
        results = self._measure(encoder, model.adapter)
        model.save_pretrained(self.folder.path / MODEL_NAME)
        return results

    # ---------------------------------------------------------------- parts of stages

    def _load(self, stage: int) -> RRRAModel:
        model = RRRAModel.from_pretrained(self.folder.path / f"stage{stage}" / MODEL_NAME)
        return model.to(get_device_name()).eval()

    def _train_encoder(
        self,
        stage: int,
        model: RRRAModel,
        make_loss: Callable[[SentenceTransformer], nn.Module],
        dataset: Dataset,
        epochs: int,
        max_steps: int | None,
    ) -> dict[str, Any]:
        place = self.folder.path / f"stage{stage}"
        encoder = model.to_sentence_transformer()
        history = train_contrastive(
            model,
            encoder,
            make_loss(encoder),
            dataset,
            place / "checkpoints",
            self.arguments,
            stage=stage,
            epochs=epochs,
            max_steps=max_steps,
        )
        # The trainer and what it holds refer to each other: gigabytes that would wait for a collection.
        gc.collect()
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

    def _measure(
        self, encoder: SentenceTransformer, adapter: RetrieverAdapter | None = None
    ) -> dict[str, Any]:
        embeddings = self._embed(self.development, encoder)
        results = {"encoder": measure(self.development, embeddings)}
        if adapter is not None:
            depth = self.arguments.fit.depth
            results["adapter"] = measure(self.development, embeddings, adapter, depth=depth)
        return {"development": {"queries": len(self.development.query_ids), **results}}
