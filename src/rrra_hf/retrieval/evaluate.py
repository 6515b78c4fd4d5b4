"""The ranking quality of a retriever, without and with its adapter, and what each part costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

from ..data import Collection
from ..embeddings import encode, texts_fingerprint
from ..evaluation import DEFAULT_MEASURES, RankingQuality, named_rankings, ranking_quality
from .corpus_index import CorpusIndex
from .reranking import rerank
from .retriever import Retriever


class RetrieverEvaluation(NamedTuple):
    """What `evaluate` measured.

    Args:
        quality: Ranking quality of the search alone, `"encoder"`, and, if the retriever has an adapter,
            of the same search reranked, `"adapter"`.
        milliseconds: Wall time a query of `"encode"`, `"search"` and `"rerank"`, in batches.
    """

    quality: dict[str, RankingQuality]
    milliseconds: dict[str, float]


def evaluate(
    retriever: Retriever,
    collection: Collection,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    depth: int = 100,
    batch_size: int = 64,
    show_progress_bar: bool | None = None,
) -> RetrieverEvaluation:
    """Measure a retriever on the judged queries of a collection, before and after reranking.

    The queries are encoded and searched once; both rankings come from the same search. Linear maps of a
    frozen stage 1 belong to the search, so both have them.

    Args:
        retriever: The retriever, with the collection's corpus indexed.
        collection: The collection, or a split of it.
        measures: Names such as `"nDCG@10"`, `"MRR@10"`, `"R@100"`; a cutoff above `depth` retrieves more.
        depth: Documents to rerank a query.
        batch_size: Queries a forward pass of the encoder.
        show_progress_bar: None shows one on a terminal only.

    Raises:
        ValueError: If the retriever's index is of another corpus, no query has a relevant document, or a
            measure is unknown.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")
    corpus = retriever.corpus_index
    _check_same_corpus(corpus, collection)
    queries = _judged_queries(collection)
    milliseconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        milliseconds[name] = 1000 * (perf_counter() - start) / len(queries)

    # Not from a cache: that would take no time.
    with timed("encode"):
        embeddings = encode(
            retriever.encoder,
            list(queries.values()),
            task="query",
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )
    with timed("search"):
        embeddings = retriever.map_queries(embeddings)
        cosines, rows = corpus.index.search(embeddings, max(depth, *map(_cutoff, measures)))
    rankings = {"encoder": rows}
    if retriever.adapter is not None:
        with timed("rerank"):
            words = retriever.count_words(list(queries.values()))
            rankings["adapter"], _ = rerank(
                retriever.adapter, corpus.index, embeddings, rows, cosines, depth, corpus.features, words
            )
    quality = {
        name: ranking_quality(named_rankings(queries, corpus.ids, ranking), collection.qrels, measures)
        for name, ranking in rankings.items()
    }
    return RetrieverEvaluation(quality, milliseconds)


def _check_same_corpus(corpus: CorpusIndex, collection: Collection) -> None:
    fingerprint = texts_fingerprint(collection.document_texts)
    if corpus.corpus != fingerprint or corpus.ids != collection.document_ids:
        raise ValueError(
            f"The retriever's index is of another corpus (fingerprint {corpus.corpus}, that of "
            f"{collection.name} is {fingerprint}) or has other ids; call retriever.index(collection) first."
        )


def _judged_queries(collection: Collection) -> dict[str, str]:
    """Return the queries that have a relevant document, by id."""
    qrels = collection.qrels
    texts = zip(collection.query_ids, collection.query_texts, strict=True)
    queries = {
        query_id: text
        for query_id, text in texts
        if any(grade > 0 for grade in qrels.get(query_id, {}).values())
    }
    if not queries:
        raise ValueError(f"{collection.name} has no query with a relevant document.")
    return queries


def _cutoff(measure: str) -> int:
    cutoff = measure.rpartition("@")[2]
    return int(cutoff) if cutoff.isdigit() else 0
