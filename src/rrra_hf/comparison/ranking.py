"""Systems: ranking the test queries, measuring the rankings, and timing them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from ..candidates import DocumentFeatures, LabelledQueries
from ..evaluation import membership, named_rankings, ndcg_per_query
from ..indexes import FlatIndex, WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..retrieval.corpus_index import IndexedDocuments, no_features
from ..retrieval.reranking import search_and_rerank
from ..retrieval.searching import EncodedQueries
from .cells import Result
from .measures import RANKING_MEASURES, Rankings
from .methods import Method, register
from .task import Queries, Task
from .trial import Trial

Rank = Callable[[Queries], np.ndarray]
"""From queries to the row numbers of their ranked documents, best first, `(n, k)`."""

System = Callable[[Trial], Rank]
"""From a trial to a fitted system, which ranks any queries."""

# Documents ranked at least, for R@100.
RANKED = 100
# Queries ranked at a time when milliseconds per query are measured.
BLOCK = 16


def system(name: str, about: str, **options: Any) -> Callable[[System], System]:
    """Register a system under a name.

    Args:
        name: Its name.
        about: Description in one line.
        **options: Other fields of `Method`.

    Example:
        A system of your own, which is then a method of `rrra compare`'s table of systems::

            @system("second-half", "the encoder without the first half of the embedding")
            def second_half(trial):
                half = trial.task.documents.shape[1] // 2
                documents = trial.task.documents[:, half:]
                return searcher(documents, trial.arguments.fit.depth, lambda queries: queries[:, half:])
    """

    def add(fit: System) -> System:
        register(Method("systems", name, about, ranked_by(fit), **options))
        return fit

    return add


def searcher(
    documents: np.ndarray,
    depth: int,
    map_queries: Callable[[np.ndarray], np.ndarray] = lambda embeddings: embeddings,
    adapter: RetrieverAdapter | None = None,
    words: WordIndex | None = None,
) -> Rank:
    """Return the search of a `Retriever`: exact, by words too if given, and reranked by an adapter if given.

    Args:
        documents: Embeddings to search, `(m, dim)`.
        depth: Number of documents to rerank per query.
        map_queries: Maps the query embeddings before the search.
        adapter: Reranks the first `depth` documents.
        words: The documents' words, to search by them, too. Without an adapter, the two rankings are fused.
    """
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    features = no_features(len(index))
    if adapter is not None:
        features = DocumentFeatures.of(adapter.reader, [documents], words)
    indexed = IndexedDocuments(index, features, words)

    def rank(queries: Queries) -> np.ndarray:
        counts = None if words is None else words.count(queries.texts)
        encoded, k = EncodedQueries(map_queries(queries.embeddings), counts), max(depth, RANKED)
        by_words = words is not None
        return search_and_rerank(adapter, indexed, encoded, k, depth, hybrid=by_words, fused=by_words).rows

    return rank


def adapter_searcher(trial: Trial, adapter: RetrieverAdapter) -> Rank:
    """Return the search of an adapter's maps, reranked by the adapter."""
    task = trial.task
    documents = adapter.map_documents(task.documents)
    words = task.words if adapter.reads_words else None
    return searcher(documents, trial.arguments.fit.depth, adapter.map_queries, adapter, words)


def development_quality(rank: Rank, trial: Trial) -> float:
    """Return the mean nDCG@10 of the development queries, with binary gains."""
    queries = trial.development
    relevant = membership(rank(queries)[:, :10], queries.positives)
    num_relevant = LabelledQueries(queries.embeddings, queries.positives).num_relevant
    return float(ndcg_per_query(relevant, num_relevant).mean())


def ranked_by(fit: System) -> Callable[[Trial], Result]:
    """Return the run of a method that ranks: fit the system, then rank and measure the test queries."""

    def run(trial: Trial) -> Result:
        rank, seconds = trial.timed(lambda: fit(trial))
        rows, milliseconds = _timed_ranking(rank, trial.task.test)
        table = _per_query(trial.task, rows)
        figures = {name: float(np.mean(table[name].to_numpy())) for name in RANKING_MEASURES}
        return Result(figures, table, seconds, milliseconds)

    return run


def _timed_ranking(rank: Rank, queries: Queries) -> tuple[np.ndarray, float]:
    """Return the ranked rows of each query, and the median milliseconds per query on one thread."""
    blocks = [np.arange(i, min(i + BLOCK, len(queries.ids))) for i in range(0, len(queries.ids), BLOCK)]
    rankings, milliseconds = [], []
    with one_thread():
        rank(queries.select(blocks[0]))  # what is loaded at first use isn't part of a query's cost
        for block in blocks:
            part = queries.select(block)
            start = time.perf_counter()
            rankings.append(rank(part))
            milliseconds.append(1000 * (time.perf_counter() - start) / len(block))
    return np.concatenate(rankings), statistics.median(milliseconds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, so that times of different machines can be compared."""
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])


def _per_query(task: Task, rows: np.ndarray) -> pa.Table:
    """Return the measures of each test query."""
    results = named_rankings(task.test.ids, task.collection.document_ids, rows)
    rankings = Rankings(task.test.ids, results, task.collection.split("test").qrels)
    columns = {name: measure(rankings) for name, measure in RANKING_MEASURES.items()}
    return pa.table({"query_id": task.test.ids, "seen": task.seen, **columns})
