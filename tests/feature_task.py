"""Embeddings and words to fit readers of features on, at small size; adapters that read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel, fit_model
from rrra_hf.candidates import (
    CandidatePool,
    DocumentFeatures,
    LabelledQueries,
    RetrievedCandidates,
    SharedWords,
    read_candidates,
)
from rrra_hf.data import Collection
from rrra_hf.evaluation import ndcg_per_query, reorder
from rrra_hf.fitting import FitArguments, cross_fit, fit_adapter, fold_state, heads, maps
from rrra_hf.fitting import features as fitting_features
from rrra_hf.fitting.fold_state import FoldState
from rrra_hf.fitting.maps import Maps
from rrra_hf.models.features_rrra import OF_WORDS, CandidateFeatures
from rrra_hf.models.reader_rrra import WITHOUT_WORDS, FeatureReader

DIM, DOCUMENTS, VOCABULARY = 16, 120, 80
PRESET = FitArguments(depth=30)
# Half precision of the memory.
HALF = 2e-3


def normalized(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def directions(*shape: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=shape))


def counts_of(rows: list[list[int]], vocabulary: int = VOCABULARY) -> csr_array:
    """Return the counts of texts that are given as lists of words."""
    return csr_array(np.stack([np.bincount(row, minlength=vocabulary) for row in rows]).astype(np.float32))


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Fit maps and heads in a few steps."""
    for name, value in {"STEPS": 8, "STOPS": (4, 8), "CORPUS_NEGATIVES": (5,), "LEARNING_RATE": 2e-2}.items():
        patch.setattr(maps, name, value)
    patch.setattr(heads, "RANKING_STEPS", 10)
    patch.setattr(heads, "RELEVANCE_STEPS", 5)


# -------------------------------------------------------------------- words


def overlap(queries: csr_array, weights: csr_array, idf: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what candidates share with their query, nothing being remembered."""
    nothing = csr_array((1, weights.shape[1]), dtype=np.float32)
    recalled = np.ones((len(rows), 1), dtype=np.float32), np.zeros((len(rows), 1), dtype=int)
    return SharedWords(weights, idf, nothing).with_candidates(queries, *recalled, rows)[0]


# -------------------------------------------------------------------- readers and adapters


def make_reader(
    names: list[str], queries: np.ndarray, documents: np.ndarray, pairs: list[tuple[int, int]]
) -> FeatureReader:
    """Return a reader of features that remembers labelled pairs."""
    vocabulary = VOCABULARY if set(names) & set(OF_WORDS) else 0
    sizes = len(queries), len(documents), len(pairs), vocabulary
    reader = FeatureReader(queries.shape[1], 0.05, names, *sizes)
    reader.memory.remember(torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(pairs))
    return reader


def read(reader: FeatureReader, queries: np.ndarray, candidates: np.ndarray, **known: Any) -> np.ndarray:
    """Return the features of candidates."""
    q, c = torch.from_numpy(queries), torch.from_numpy(candidates)
    return reader.features(q, c, torch.einsum("nd,nkd->nk", q, c), CandidateFeatures(**known)).numpy()


def make_adapter(names: list[str] | None = None, lambda_: float = 1.0) -> RetrieverAdapter:
    """Return an adapter that remembers twelve queries, and whose heads aren't fitted."""
    names = list(WITHOUT_WORDS) if names is None else names
    sizes: dict[str, Any] = {"names": names, "queries": 12, "documents": 12, "pairs": 12}
    sizes |= {"vocabulary": VOCABULARY if set(names) & set(OF_WORDS) else 0, "entries": 0}
    reader = {"kind": "features", **sizes}
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, lambda_=lambda_, reader=reader))
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
        self.words = counts_of([list(bag) for bag in self.bags])
        self.turn = np.diag(np.where(np.arange(DIM) < 4, -1.0, 1.0))

    def queries(self, count: int, answers: int = 1) -> LabelledQueries:
        rows = np.stack([self.rng.choice(len(self.documents), answers, replace=False) for _ in range(count)])
        noise = 0.15 * self.rng.normal(size=(count, DIM))
        embeddings = normalized(self.documents[rows].mean(1) @ self.turn + noise)
        texts = [
            [*self.rng.choice(self.bags[row[0]], 2, replace=False), self.rng.integers(VOCABULARY)]
            for row in rows
        ]
        return LabelledQueries(embeddings, list(rows), counts_of([list(map(int, t)) for t in texts]))


def fit(task: Task, labelled: LabelledQueries, arguments: FitArguments, **given: Any) -> RetrieverAdapter:
    given = {"query_words": labelled.words, "document_words": task.words, **given}
    return fit_adapter(labelled.embeddings, task.documents, labelled.positives, arguments=arguments, **given)


def quality(adapter: RetrieverAdapter, task: Task, test: LabelledQueries) -> tuple[float, float]:
    """Return nDCG@10 of queries: searched with the adapter's maps, and reranked."""
    documents = adapter.map_documents(task.documents)
    mapped = test._replace(embeddings=adapter.map_queries(test.embeddings))
    found = RetrievedCandidates.retrieve(mapped, documents, 30)
    known = DocumentFeatures.of(adapter.reader, [documents], task.words)
    take = documents.__getitem__
    reading = read_candidates(adapter, found.queries, found.rows, take, known, found.words)
    assert_allclose(reading.cosines, found.cosines, atol=1e-5)
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    rankings = found.relevant, reorder(found.relevant, scores)
    return tuple(float(ndcg_per_query(ranking, found.num_relevant).mean()) for ranking in rankings)


def encoder_quality(task: Task, test: LabelledQueries) -> float:
    found = RetrievedCandidates.retrieve(test, task.documents, 30)
    return float(ndcg_per_query(found.relevant, found.num_relevant).mean())


def spy_on_folds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the list of (queries that made the maps, queries in memory, queries that were read)."""
    read_queries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    taught: dict[int, np.ndarray] = {}
    states: dict[int, tuple[FoldState, np.ndarray, np.ndarray]] = {}
    refit, make, mapped = fold_state.refit_maps, fold_state.fold_state, FoldState.mapped

    def refit_spy(training: LabelledQueries, *rest: Any) -> Maps:
        made = refit(training, *rest)
        taught[id(made)] = training.embeddings
        return made

    def make_spy(training: LabelledQueries, documents: np.ndarray, maps_: Maps, *rest: Any) -> FoldState:
        state = make(training, documents, maps_, *rest)
        states[id(state)] = state, taught.get(id(maps_), training.embeddings), training.embeddings
        return state

    def mapped_spy(state: FoldState, queries: LabelledQueries) -> LabelledQueries:
        read_queries.append((*states[id(state)][1:], queries.embeddings))
        return mapped(state, queries)

    monkeypatch.setattr(fold_state, "refit_maps", refit_spy)
    monkeypatch.setattr(fold_state, "fold_state", make_spy)
    monkeypatch.setattr(fitting_features, "fold_state", make_spy)
    monkeypatch.setattr(FoldState, "mapped", mapped_spy)
    return read_queries


def assert_every_query_is_read_once(
    read_queries: list[tuple[np.ndarray, np.ndarray, np.ndarray]], training: LabelledQueries
) -> None:
    def names(embeddings: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in embeddings}

    everything = names(training.embeddings)
    for mapped_by, remembered, queries in read_queries:
        assert names(mapped_by) == names(remembered) == everything - names(queries)
    assert sorted(row.tobytes() for *_, queries in read_queries for row in queries) == sorted(everything)


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
        model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, replace(PRESET, depth=20))
    make_it_matter(model.adapter)
    return model
