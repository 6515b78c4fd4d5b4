"""Retrievers and what they find, for tests of retrieval."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from retriever_models import CORPUS, make_adapter
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.data import Collection

QUERIES = ["how do i copy files", "sort text", "find the old folder"]
TEXTS = [d if isinstance(d, str) else f"{d['title']} {d['text']}" for d in CORPUS.values()]


def make_model(tiny_bert: Path, seed: int = 0, **config: object) -> RRRAModel:
    adapter = make_adapter(seed, **config)
    model = RRRAModel.from_encoder(tiny_bert, adapter=adapter.config.to_dict(), query_prompt="how ")
    model.adapter.load_state_dict(adapter.state_dict())
    return model


def vocabulary_encoder() -> SentenceTransformer:
    """Return an encoder whose embeddings can be computed by hand: one dimension a word."""
    return SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])], device="cpu")


def opposing_adapter(lambda_: float) -> RetrieverAdapter:
    """Return an adapter whose logit is `-cos(q, a)`, and `a = c`."""
    reader = {"kind": "residual", "hidden_size": 2}
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=4, reader=reader, tau=1.0, lambda_=lambda_))
    with torch.no_grad():
        adapter.reader.readout.weight.copy_(torch.tensor([[-1.0, 0.0, 0.0]]))
    return adapter


def ids(hits: list) -> list:
    return [hit["corpus_id"] for hit in hits]


def scores(hits: list) -> list[float]:
    return [hit["score"] for hit in hits]


def make_collection(**changes: object) -> Collection:
    corpus = {
        "id": ["a", "b", "c", "d"],
        "title": [""] * 4,
        "text": ["copy file", "copy", "copy sort", "list"],
    }
    queries = {"id": ["q1", "q2", "unjudged"], "text": ["copy file", "list", "sort"]}
    settings = {
        "name": "tiny",
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(queries),
        "qrels_by_split": {"test": {"q1": {"c": 1}, "q2": {"d": 1}, "unjudged": {}}},
        **changes,
    }
    return Collection(**settings)
