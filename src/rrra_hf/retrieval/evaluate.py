"""Ranking quality of a retriever or of embeddings, without and with an adapter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ..candidates import DEPTH, DocumentFeatures, Words
from ..data import Collection
from ..embeddings import CollectionEmbeddings, encode, texts_fingerprint
from ..evaluation import (
    DEFAULT_MEASURES,
    RankingQuality,
    named_rankings,
    ranking_quality,
    seen_queries,
    split_by_seen,
)
from ..indexes import FlatIndex, WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from .corpus_index import CorpusIndex, IndexedDocuments, no_features
from .documents import document_table
from .milvus_corpus import MilvusCorpus
from .passages import are_passages_of, rank_documents
from .reranking import Reranked, rerank
from .retriever import Retriever
from .searching import EncodedQueries, Found, hybrid_candidates, search_dense


class RetrieverEvaluation(NamedTuple):
    """What `evaluate` returns.

    Args:
        quality: Ranking quality of the search by embeddings, `"encoder"`, or `"maps"` if the adapter has
            linear maps; and, if the retriever has an adapter, of the reranked candidates, `"adapter"`.
        milliseconds: Wall time per query of `"encode"`, `"search"` and `"rerank"`, in batches.
    """

    quality: dict[str, RankingQuality]
    milliseconds: dict[str, float]


def evaluate(
    retriever: Retriever,
    collection: Collection,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    depth: int = DEPTH,
    batch_size: int = 64,
    show_progress_bar: bool | None = None,
) -> RetrieverEvaluation:
    """Measure a retriever on the labelled queries of a collection, before and after reranking.

    If documents were split, a document is ranked by its best passage.

    The queries are encoded and searched once. Candidates are those of `Retriever.search`: by embeddings and
    by words, if the retriever has words and the adapter reads them. Linear maps belong to the search: both
    rankings have them.

    Args:
        retriever: The retriever. It must have indexed the collection's corpus.
        collection: The collection, or a split of it.
        measures: Names such as `"nDCG@10"`, `"MRR@10"`, `"R@100"`. A cutoff above `depth` retrieves more.
        depth: Number of documents to rerank per query.
        batch_size: Encoder batch size.
        show_progress_bar: Show a progress bar; by default, only on a terminal.

    Raises:
        ValueError: If the retriever's index is of another corpus, no query has a relevant document, or a
            measure is unknown.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from rrra_hf import load_collection
        >>> pairs = [{"query": "copy", "answer": "copy a file"}, {"query": "list", "answer": "list files"}]
        >>> collection = load_collection(pairs)
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "list"])])
        >>> retriever = Retriever(encoder).index(collection)
        >>> evaluate(retriever, collection, ["nDCG@10"]).quality["adapter"].mean
        {'nDCG@10': 1.0}
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")
    corpus = retriever.corpus
    if not is_index_of(corpus, collection):
        raise ValueError(
            f"The retriever's index is of another corpus than {collection.name}, or has other ids; call "
            "retriever.index(collection) first."
        )
    queries = _labelled_queries(collection)
    milliseconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        milliseconds[name] += 1000 * (perf_counter() - start) / len(queries)

    # Not from a cache, which would take no time.
    with timed("encode"):
        embeddings = encode(
            retriever.encoder,
            list(queries.values()),
            task="query",
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )
    deepest = _deepest(depth, measures, corpus.most_passages)
    adapter, texts = retriever.adapter, list(queries.values())
    encoder = "encoder" if adapter is None or not adapter.has_maps else "maps"
    numbers: dict[str, int] = {}
    rankings: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(texts), corpus.block_size):
        block = slice(start, start + corpus.block_size)
        with timed("search"):
            documents, _ = retriever.searchable(corpus, embeddings[block], texts[block], deepest)
            prepared = retriever.prepare_queries(embeddings[block], texts[block], documents)
            dense = search_dense(documents, prepared, deepest)
            candidates = dense.rows[:, :depth]
            if retriever.is_hybrid():
                candidates = hybrid_candidates(documents, prepared, dense, depth)
        found = {encoder: dense.rows}
        if adapter is not None:
            with timed("rerank"):
                found["adapter"] = rerank(adapter, documents, prepared, candidates, dense).rows
        names = documents.document_ids
        document_of = np.array([numbers.setdefault(name, len(numbers)) for name in names])
        for system, rows in found.items():
            rankings.setdefault(system, []).append(rank_documents(rows, document_of))
    stacked = {system: _stacked(blocks) for system, blocks in rankings.items()}
    quality = ranking_qualities(stacked, list(queries), list(numbers), collection.qrels, measures)
    return RetrieverEvaluation(quality, dict(milliseconds))


def _stacked(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return rankings of some queries and of others, the shorter ones with -1 at the end."""
    width = max(block.shape[1] for block in blocks)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in blocks]
    return np.concatenate(padded)


def evaluate_embeddings(
    collection: Collection,
    embeddings: CollectionEmbeddings,
    adapter: RetrieverAdapter | None = None,
    *,
    depth: int = DEPTH,
    query_words: csr_array | None = None,
    document_words: Words | None = None,
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> dict[str, RankingQuality]:
    """Measure an encoder, and optionally an adapter, given the embeddings of a collection.

    Args:
        collection: The collection, or a split of it.
        embeddings: Its embeddings from the encoder, before the adapter's linear maps.
        adapter: The adapter.
        depth: Number of documents to rerank per query.
        query_words: Counts of the queries' words, `document_words.count(texts)`.
        document_words: The documents' words. If the adapter reads them, candidates are found by them too.
        measures: Names such as `"nDCG@10"`, `"MRR@10"`, `"R@100"`. A cutoff above `depth` retrieves more.

    Returns:
        Ranking quality of the encoder alone, `"encoder"`; of its search after the adapter's linear maps,
        `"maps"`, if it has any; and of the reranked candidates, `"adapter"`.

    Raises:
        ValueError: If no query has a relevant document, or a measure is unknown, or the adapter is of an
            earlier version and needs word pieces.
    """
    ranked = rank_embeddings(
        embeddings,
        adapter,
        depth=depth,
        k=_deepest(depth, measures),
        query_words=query_words,
        document_words=document_words,
    )
    return ranking_qualities(
        ranked.rankings, collection.query_ids, collection.document_ids, collection.qrels, measures
    )


class GroupedQuality(NamedTuple):
    """Mean ranking quality by group of queries.

    The groups are `"all"` and, if there are both, `"unseen"` and `"seen"`: queries without and with a
    relevant document that is labelled for a training query.

    Args:
        queries: Number of queries, by group.
        quality: Means of measures, by group and system.
    """

    queries: dict[str, int]
    quality: dict[str, dict[str, dict[str, float]]]


def group_quality(
    quality: Mapping[str, RankingQuality], collection: Collection, part: Collection
) -> GroupedQuality:
    """Average ranking quality over all queries, and over those that training has seen and hasn't.

    Args:
        quality: Ranking quality by system, as `evaluate` or `evaluate_embeddings` returns it.
        collection: The collection with all its splits.
        part: The split that was measured.
    """
    positives = dict(zip(part.query_ids, part.positive_rows, strict=True))
    labelled = collection.split("train").positive_rows if "train" in collection.splits else []
    first = next(iter(quality.values()))
    seen = seen_queries([positives[query_id] for query_id in first.query_ids], labelled)
    groups = {system: split_by_seen(found.per_query, seen) for system, found in quality.items()}
    names = ("all", "unseen", "seen") if seen.any() and not seen.all() else ("all",)
    return GroupedQuality(
        {name: next(iter(groups.values()))[name].num_queries for name in names},
        {name: {system: group[name].mean for system, group in groups.items()} for name in names},
    )


class RankedEmbeddings(NamedTuple):
    """What `rank_embeddings` returns.

    Args:
        rankings: Rows of documents, best first, `(n, k)`, by system, see `evaluate_embeddings`.
        reranked: The ranking of the adapter, None without one.
    """

    rankings: dict[str, np.ndarray]
    reranked: Reranked | None


def rank_embeddings(
    embeddings: CollectionEmbeddings,
    adapter: RetrieverAdapter | None,
    *,
    depth: int,
    k: int,
    query_words: csr_array | None = None,
    document_words: Words | None = None,
) -> RankedEmbeddings:
    """Rank the documents for each query by exact search, without and with an adapter.

    Args:
        embeddings: Embeddings from the encoder, before the adapter's linear maps.
        adapter: The adapter, None for the encoder alone.
        depth: Number of documents to rerank per query.
        k: Number of documents to rank per query, at least `depth`.
        query_words: Counts of the queries' words.
        document_words: The documents' words.

    Raises:
        ValueError: If the adapter needs word pieces and they are not given.
    """
    documents, queries, dense = _search(embeddings.queries, embeddings.documents, k)
    rankings = {"encoder": dense.rows}
    if adapter is None:
        return RankedEmbeddings(rankings, None)
    if adapter.has_maps:
        mapped = adapter.map_queries(embeddings.queries), adapter.map_documents(embeddings.documents)
        documents, queries, dense = _search(*mapped, k)
        rankings["maps"] = dense.rows
    blocks = [documents.index.reconstruct(np.arange(len(documents.index)))]
    documents.features = DocumentFeatures.of(adapter.reader, blocks, document_words)
    queries = queries._replace(words=query_words)
    candidates = dense.rows[:, :depth]
    if adapter.reads_words and isinstance(document_words, WordIndex) and query_words is not None:
        documents.words = document_words
        candidates = hybrid_candidates(documents, queries, dense, depth)
    reranked = rerank(adapter, documents, queries, candidates, dense)
    rankings["adapter"] = reranked.rows
    return RankedEmbeddings(rankings, reranked)


def _search(
    queries: np.ndarray, documents: np.ndarray, k: int
) -> tuple[IndexedDocuments, EncodedQueries, Found]:
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    indexed, encoded = IndexedDocuments(index, no_features(len(index)), None), EncodedQueries(queries)
    return indexed, encoded, search_dense(indexed, encoded, k)


def ranking_qualities(
    rankings: Mapping[str, np.ndarray],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> dict[str, RankingQuality]:
    """Return the ranking quality of each system.

    Args:
        rankings: Rows of documents, best first, `(n, k)`, by system.
        query_ids: Ids of the queries, `n`.
        document_ids: Ids of the documents, by row.
        qrels: Relevant documents and their grades, by query id.
        measures: Names of measures.
    """
    return {
        system: ranking_quality(named_rankings(query_ids, document_ids, rows), qrels, measures)
        for system, rows in rankings.items()
    }


def is_index_of(corpus: CorpusIndex | MilvusCorpus, collection: Collection) -> bool:
    """Return whether an index is of the corpus of a collection, in the same order if it wasn't split.

    Documents in Milvus are not compared: it is enough if all with labels are there, and as many as in the
    collection.
    """
    if isinstance(corpus, MilvusCorpus):
        labelled = list({name for grades in collection.qrels.values() for name in grades})
        same_number = len(corpus) == len(collection.document_ids)
        return same_number and len(corpus.present(labelled)) == len(labelled)
    if corpus.split is not None:
        return are_passages_of(corpus.documents, document_table(collection))
    same_texts = corpus.corpus == texts_fingerprint(collection.document_texts)
    return same_texts and corpus.ids == collection.document_ids


def _labelled_queries(collection: Collection) -> dict[str, str]:
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


def _deepest(depth: int, measures: Sequence[str], passages: int = 1) -> int:
    """Return how many to retrieve: `depth`, or the passages of as many documents as a measure looks at."""
    cutoffs = (measure.rpartition("@")[2] for measure in measures)
    return max(depth, *(int(cutoff) * passages for cutoff in cutoffs if cutoff.isdigit()), 1)
