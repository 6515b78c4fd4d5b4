"""Embeddings and words to fit readers of features on, at small size; adapters that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import (
    CandidatePool,
    DocumentFeatures,
    LabelledQueries,
    RetrievedCandidates,
    read_candidates,
)
from rrra_hf.data import Collection
from rrra_hf.evaluation import ndcg_per_query, reorder
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter, fold_state, gathered, heads, maps
from rrra_hf.fitting import features as fitting_features
from rrra_hf.fitting.fold_state import FoldState
from rrra_hf.fitting.maps import Maps
from rrra_hf.indexes import WordIndex
from rrra_hf.models.features_rrra import OF_LABELS, RANKING
from rrra_hf.models.reader_v2_rrra import OF_WORDS

DIM, DOCUMENTS, VOCABULARY = 16, 120, 80
PRESET = FitArguments(depth=30)
EVERYTHING = (*RANKING, *OF_LABELS)
# Half precision of the memory.
HALF = 2e-3


def normalized(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def directions(*shape: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=shape))


def text_of(words: Sequence[int] | np.ndarray) -> str:
    """Return a text of words that are given as numbers: 0 is xa, 10 is xba."""
    return " ".join("x" + "".join("abcdefghij"[int(digit)] for digit in str(word)) for word in words)


def words_of(texts: Sequence[Sequence[int] | np.ndarray]) -> WordIndex:
    """Return an index of texts that are given as lists of numbers."""
    return WordIndex.of([text_of(words) for words in texts], language="none")


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Fit maps and heads in a few steps."""
    for name, value in {"STEPS": 8, "STOPS": (4, 8), "CORPUS_NEGATIVES": (5,), "LEARNING_RATE": 2e-2}.items():
        patch.setattr(maps, name, value)
    patch.setattr(heads, "OWN_STEPS", 10)
    patch.setattr(heads, "STARTED_STEPS", 5)


def keep_everything(patch: pytest.MonkeyPatch) -> None:
    """Choose the adapter that has all its own, however it ranks."""
    patch.setattr(fitting_features, "_first_within_one_standard_error", lambda options: len(options) - 1)


# -------------------------------------------------------------------- readers and adapters


def make_adapter(names: Sequence[str] = EVERYTHING, lambda_: float = 1.0) -> RetrieverAdapter:
    """Return an adapter that remembers twelve queries, and whose heads aren't fitted."""
    reader = {"kind": "features", "ranking": names, "queries": 12, "documents": 12, "pairs": 12}
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, lambda_=lambda_, reader=reader))
    return _remembering(adapter)


def make_old_adapter(names: Sequence[str]) -> RetrieverAdapter:
    """Return an adapter as format version 2 had it, with word pieces if `names` has features of them."""
    vocabulary = VOCABULARY if set(names) & set(OF_WORDS) else 0
    sizes = {"queries": 12, "documents": 12, "pairs": 12, "vocabulary": vocabulary, "entries": 0}
    reader = {"kind": "features_v2", "names": names, **sizes}
    return _remembering(RetrieverAdapter(AdapterConfig(embedding_dim=DIM, lambda_=1.0, reader=reader)))


def _remembering(adapter: RetrieverAdapter) -> RetrieverAdapter:
    pairs = torch.arange(12)[:, None].expand(12, 2)
    adapter.reader.memory.remember(*(torch.from_numpy(directions(12, DIM, seed=s)) for s in (0, 1)), pairs)
    return adapter.eval()


def disturb(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Give the reader random weights, as if it were fitted."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.reader.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapter


# -------------------------------------------------------------------- fitting


class Task:
    """Queries that point to their document after some axes are turned about, and share words with it."""

    def __init__(self, documents: int = DOCUMENTS, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.documents = normalized(self.rng.normal(size=(documents, DIM)))
        self.bags = [self.rng.choice(VOCABULARY, 8, replace=False) for _ in range(documents)]
        self.words = words_of(self.bags)
        self.turn = np.diag(np.where(np.arange(DIM) < 4, -1.0, 1.0))

    def queries(self, count: int, answers: int = 1) -> LabelledQueries:
        rows = np.stack([self.rng.choice(len(self.documents), answers, replace=False) for _ in range(count)])
        noise = 0.15 * self.rng.normal(size=(count, DIM))
        embeddings = normalized(self.documents[rows].mean(1) @ self.turn + noise)
        texts = [
            [*self.rng.choice(self.bags[row[0]], 2, replace=False), self.rng.integers(VOCABULARY)]
            for row in rows
        ]
        return LabelledQueries(embeddings, list(rows), self.words.count([text_of(t) for t in texts]))


def fit(task: Task, labelled: LabelledQueries, arguments: FitArguments, **given: Any) -> RetrieverAdapter:
    given = {"query_words": labelled.words, "document_words": task.words, **given}
    return fit_adapter(labelled.embeddings, task.documents, labelled.positives, arguments=arguments, **given)


def rank(
    adapter: RetrieverAdapter, task: Task, test: LabelledQueries
) -> tuple[RetrievedCandidates, np.ndarray]:
    """Return what an adapter's search finds, by words too, and the reranking scores."""
    documents = adapter.map_documents(task.documents)
    known = DocumentFeatures.of(adapter.reader, [documents], task.words)
    mapped = test._replace(embeddings=adapter.map_queries(test.embeddings))
    found = RetrievedCandidates.retrieve(mapped, documents, 30, known.words)
    take = documents.__getitem__
    reading = read_candidates(adapter, found.queries, found.rows, take, known, found.words)
    assert_allclose(reading.cosines, found.cosines, atol=1e-5)
    return found, adapter.combine(reading.cosines, reading.ranking).numpy()


def quality(adapter: RetrieverAdapter, task: Task, test: LabelledQueries) -> float:
    """Return nDCG@10 of reranked queries."""
    found, scores = rank(adapter, task, test)
    return float(ndcg_per_query(reorder(found.relevant, scores), found.num_relevant).mean())


def encoder_quality(task: Task, test: LabelledQueries) -> float:
    found = RetrievedCandidates.retrieve(test, task.documents, 30)
    return float(ndcg_per_query(found.relevant, found.num_relevant).mean())


def spy_on_folds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the list of (queries in memory, queries that were read)."""
    read_queries: list[tuple[np.ndarray, np.ndarray]] = []
    states: dict[int, tuple[FoldState, np.ndarray]] = {}
    make, mapped = fold_state.fold_state, FoldState.mapped

    def make_spy(training: LabelledQueries, documents: np.ndarray, maps_: Maps, *rest: Any) -> FoldState:
        state = make(training, documents, maps_, *rest)
        states[id(state)] = state, training.embeddings
        return state

    def mapped_spy(state: FoldState, queries: LabelledQueries) -> LabelledQueries:
        read_queries.append((states[id(state)][1], queries.embeddings))
        return mapped(state, queries)

    for module in (gathered, fitting_features):
        monkeypatch.setattr(module, "fold_state", make_spy)
    monkeypatch.setattr(FoldState, "mapped", mapped_spy)
    return read_queries


def names_of(embeddings: np.ndarray) -> set[bytes]:
    """Return what tells queries apart."""
    return {row.tobytes() for row in embeddings}


# -------------------------------------------------------------------- cross-fitting and models


def cross_fit_pool(task: Task, pool: CandidatePool, labelled: LabelledQueries, **given: Any) -> CandidatePool:
    given = {"arguments": PRESET, "query_words": labelled.words, "document_words": task.words, **given}
    return cross_fit(pool, labelled.embeddings, task.documents, **given)


def make_it_matter(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Let the reader contradict the encoder, whose weights are random, and be sure of it."""
    disturb(adapter)
    adapter.config.lambda_ = 1.0
    adapter.config.temperature = 1.0
    return adapter


QUERIES = ["how do i copy files", "sort text", "find the old folder"]


def as_tuples(hits: list[Any]) -> list[Any]:
    return [[tuple(hit.values()) for hit in query_hits] for query_hits in hits]


def fit_model_quickly(tiny_bert: Path, collection: Collection) -> RRRAModel:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        keep_everything(patch)
        model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, replace(PRESET, depth=20))
    make_it_matter(model.adapter)
    return model
