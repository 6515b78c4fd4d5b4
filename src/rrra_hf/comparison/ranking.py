"""Ranking the test queries with a system, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from ..candidates import DocumentFeatures
from ..evaluation import named_rankings, ranking_quality
from ..indexes import FlatIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..retrieval.reranking import rerank
from .cells import Result
from .task import Queries, Task
from .trial import Trial

Rank = Callable[[Queries], np.ndarray]
"""Queries to the rows of the documents ranked for them, best first, `(n, k)`."""

MEASURES = ("nDCG@10", "R@1", "R@10", "R@100")
# nDCG@10 gains a document's grade, as trec_eval has it; here it gains 2^grade - 1, as others have it.
EXPONENTIAL = "exponential nDCG@10"
# Documents that are ranked at least, for R@100.
RANKED = 100
# Queries that are ranked at a time: what the milliseconds a query are measured with.
BLOCK = 16


def searcher(
    documents: np.ndarray,
    depth: int,
    map_queries: Callable[[np.ndarray], np.ndarray] = lambda embeddings: embeddings,
    adapter: RetrieverAdapter | None = None,
    document_words: csr_array | None = None,
) -> Rank:
    """Return an exact search, reranked by an adapter if one is given.

    Args:
        documents: Embeddings to search, `(m, dim)`.
        depth: Documents reranked a query.
        map_queries: Moves the queries' embeddings first.
        adapter: Reranks the first `depth` documents.
        document_words: Counts of the documents' words, if the adapter reads words.
    """
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    features = None
    if adapter is not None and adapter.features is not None:
        features = DocumentFeatures.of(adapter.features, [documents], document_words)

    def rank(queries: Queries) -> np.ndarray:
        embeddings = map_queries(queries.embeddings)
        cosines, rows = index.search(embeddings, max(depth, RANKED))
        if adapter is None:
            return rows
        return rerank(adapter, index, embeddings, rows, cosines, depth, features, queries.words)[0]

    return rank


def ranked_by(fit: Callable[[Trial], Rank]) -> Callable[[Trial], Result]:
    """Return the run of a method that ranks: fits it, and ranks the test queries.

    Args:
        fit: From a trial to the fitted system.
    """

    def run(trial: Trial) -> Result:
        rank, seconds = trial.timed(lambda: fit(trial))
        rows, milliseconds = _timed_ranking(rank, trial.task.test)
        table = _per_query(trial.task, rows)
        figures = {name: float(np.mean(table[name].to_numpy())) for name in (*MEASURES, EXPONENTIAL)}
        return Result(figures, table, seconds, milliseconds)

    return run


def _timed_ranking(rank: Rank, queries: Queries) -> tuple[np.ndarray, float]:
    """Return the rows ranked for each query, and the median milliseconds a query on one thread."""
    blocks = [np.arange(i, min(i + BLOCK, len(queries.ids))) for i in range(0, len(queries.ids), BLOCK)]
    rankings, milliseconds = [], []
    with one_thread():
        rank(queries.select(blocks[0]))  # what is loaded at first use is not a query's cost
        for block in blocks:
            part = queries.select(block)
            start = time.perf_counter()
            rankings.append(rank(part))
            milliseconds.append(1000 * (time.perf_counter() - start) / len(block))
    return np.concatenate(rankings), statistics.median(milliseconds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: times on it compare between machines."""
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
    qrels = task.collection.split("test").qrels
    exponential = {
        query: {document: 2**grade - 1 for document, grade in grades.items()}
        for query, grades in qrels.items()
    }
    quality = ranking_quality(results, qrels, MEASURES)
    by_name = {
        **quality.per_query,
        EXPONENTIAL: ranking_quality(results, exponential, MEASURES[:1]).per_query[MEASURES[0]],
    }
    place = {query: i for i, query in enumerate(quality.query_ids)}
    order = [place[query] for query in task.test.ids]
    columns = {name: values[order] for name, values in by_name.items()}
    return pa.table({"query_id": task.test.ids, "seen": task.seen, **columns})
