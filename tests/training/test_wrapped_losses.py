"""Losses of sentence-transformers around ours, in real short trainings with drawn negatives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    GlobalOrthogonalRegularizationLoss,
    MatryoshkaLoss,
)
from torch import Tensor, nn
from transformers import set_seed

from rrra_hf import RRRALoss, RRRAModel
from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection
from rrra_hf.labels import rrra_strategy
from rrra_hf.training import Resampler

Wrap = Callable[[SentenceTransformer], nn.Module]


class SpreadRRRALoss(RRRALoss):
    """Adds the regularisation that the page on small embeddings shows."""

    def __init__(self, model: SentenceTransformer, **settings: Any):
        super().__init__(model, **settings)
        self.spread = GlobalOrthogonalRegularizationLoss(model)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Any) -> Tensor:
        loss = super().compute_loss_from_embeddings(embeddings, labels)
        return loss + sum(self.spread.compute_loss_from_embeddings(embeddings).values())


@pytest.fixture(scope="module")
def trained(
    tiny_bert: Path, collection: Collection, pool: CandidatePool, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Wrap], SentenceTransformer]:
    """Train the tiny encoder for 20 steps."""

    def train(wrap: Wrap) -> SentenceTransformer:
        set_seed(0)
        model = RRRAModel.from_encoder(tiny_bert)
        model.adapter.requires_grad_(False)
        encoder = model.to_sentence_transformer()
        resampler = Resampler(collection.split("train"), pool, num_negatives=2, strategy=rrra_strategy)
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(tmp_path_factory.mktemp("wrapped")),
                max_steps=20,
                per_device_train_batch_size=13,
                learning_rate=3e-3,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=resampler.dataset,
            loss=wrap(encoder),
            callbacks=[resampler],
        )
        trainer.train()
        return encoder.eval()

    return train


@pytest.fixture(scope="module")
def plain(trained: Callable[[Wrap], SentenceTransformer]) -> SentenceTransformer:
    return trained(RRRALoss)


def reciprocal_rank(encoder: SentenceTransformer, collection: Collection, dim: int | None = None) -> float:
    """Mean reciprocal rank of the training queries' documents, by the first dimensions."""
    collection = collection.split("train")
    encoded = {"truncate_dim": dim, "normalize_embeddings": True}
    queries = encoder.encode_query(collection.query_texts, **encoded)
    documents = encoder.encode_document(collection.document_texts, **encoded)
    scores = queries @ documents.T
    own = scores[np.arange(len(queries)), [rows[0] for rows in collection.positive_rows]]
    return float((1 / (scores >= own[:, None]).sum(axis=1)).mean())


def test_matryoshka_ranks_better_by_few_dimensions(
    trained: Callable[[Wrap], SentenceTransformer], plain: SentenceTransformer, collection: Collection
) -> None:
    nested = trained(lambda model: MatryoshkaLoss(model, RRRALoss(model), [32, 8, 4]))
    for dim in (8, 4):
        assert reciprocal_rank(nested, collection, dim) > reciprocal_rank(plain, collection, dim) + 0.05


def test_adaptive_layers_embed_alike(
    trained: Callable[[Wrap], SentenceTransformer], plain: SentenceTransformer, collection: Collection
) -> None:
    """The first layer alone makes embeddings that are closer to those of both layers."""
    distances = []
    for encoder in (trained(lambda model: AdaptiveLayerLoss(model, RRRALoss(model))), plain):
        cut = copy.deepcopy(encoder)
        layers = RRRAModel.from_sentence_transformer(cut).encoder.encoder
        layers.layer = layers.layer[:1]
        embeddings = [one.encode_document(collection.document_texts) for one in (cut, encoder)]
        distances.append(1 - np.multiply(*embeddings).sum(axis=1).mean())
    assert distances[0] < 0.8 * distances[1]


def test_regularised_embeddings_spread(
    trained: Callable[[Wrap], SentenceTransformer], plain: SentenceTransformer, collection: Collection
) -> None:
    spread = trained(SpreadRRRALoss)
    moments = []
    for encoder in (spread, plain):
        documents = encoder.encode_document(collection.document_texts, normalize_embeddings=True)
        cosines = documents @ documents.T
        moments.append(np.mean(cosines[~np.eye(len(cosines), dtype=bool)] ** 2))
    assert moments[0] < 0.8 * moments[1]
