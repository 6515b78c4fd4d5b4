"""Mining candidates: exact search with the training queries, the labelled positives taken out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sentence_transformers import SentenceTransformer

from ..embeddings import CollectionEmbeddings, check_embeddings, embed_collection
from ..indexes import FlatIndex
from .pool import CandidatePool

if TYPE_CHECKING:
    from ..data import Collection


def mine(
    collection: Collection,
    encoder: SentenceTransformer,
    depth: int = 100,
    *,
    split: str = "train",
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    show_progress_bar: bool | None = None,
) -> CandidatePool:
    """Mine the documents that an encoder ranks high for each query of a split.

    Documents with the very text of one of the query's positives are no candidates either.

    Args:
        collection: The collection.
        encoder: The encoder.
        depth: Candidates a query.
        split: The split whose queries and positives are used.
        cache_dir: Folder of the cache of embeddings, see `encode`.
        batch_size: Texts a forward pass.
        show_progress_bar: None shows one on a terminal only.

    Returns:
        A pool with the queries in the order of `collection.split(split).query_ids`, and fingerprints.

    Raises:
        ValueError: If there is no such split, a query has no positive, or the encoder gives NaN.
    """
    part = collection.split(split)
    # Before the long part.
    _check_depth(depth)
    _check_every_query_has_positives(part.positive_rows, part.query_ids)
    embeddings = embed_collection(
        part, encoder, cache_dir=cache_dir, batch_size=batch_size, show_progress_bar=show_progress_bar
    )
    return mine_collection(part, embeddings, depth)


def mine_collection(
    collection: Collection, embeddings: CollectionEmbeddings, depth: int = 100
) -> CandidatePool:
    """Mine candidates for all queries of a collection that is encoded already.

    Args:
        collection: The collection, with a positive for every query (take a split of it).
        embeddings: Its embeddings.
        depth: Candidates a query.

    Returns:
        A pool with the queries in the order of `collection.query_ids`, and fingerprints.

    Raises:
        ValueError: If a query has no positive.
    """
    return mine_embeddings(
        embeddings.queries,
        embeddings.documents,
        collection.positive_rows,
        depth=depth,
        query_ids=collection.query_ids,
        document_ids=collection.document_ids,
        excluded=_rows_of_same_text(collection.document_texts, collection.positive_rows),
        fingerprint=embeddings.fingerprint,
    )


def mine_embeddings(
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray],
    *,
    depth: int = 100,
    query_ids: Sequence[str] | None = None,
    document_ids: Sequence[str] | None = None,
    excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
    fingerprint: dict[str, str] | None = None,
    block_size: int = 1024,
) -> CandidatePool:
    """Mine candidates from embeddings of any source.

    Args:
        query_embeddings: `(n_queries, dim)`, of any length; memory-mapped or not.
        document_embeddings: `(n_documents, dim)`, likewise.
        positives: Rows of each query's relevant documents, at least one a query.
        depth: Candidates a query; where the corpus has fewer, the pool is padded with -1.
        query_ids: Ids of the queries; their rows as strings if not given.
        document_ids: Ids of the documents; their rows as strings if not given.
        excluded: Rows of further documents that must not be a query's candidates.
        fingerprint: What the embeddings were made from, see `CandidatePool`.
        block_size: Queries searched at a time.

    Returns:
        A pool with the queries in the order of their rows.

    Raises:
        ValueError: If embeddings are not finite matrices of one dimension, a query has no positive, a
            row is not in the corpus, or lengths disagree; the message names the argument.

    Example:
        >>> documents = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> pool = mine_embeddings(documents[:1], documents, positives=[[0]], depth=2)
        >>> pool.candidate_ids, pool.scores.round(2).tolist()
        ([['1', '2']], [[0.800000011920929, 0.0]])
    """
    _check_depth(depth)
    queries = check_embeddings(query_embeddings, "query_embeddings")
    documents = check_embeddings(document_embeddings, "document_embeddings", dim=queries.shape[1])
    query_names = _ids(query_ids, len(queries), "query_ids")
    document_names = _ids(document_ids, len(documents), "document_ids")
    positive_rows = _check_rows(positives, "positives", len(queries), len(documents))
    _check_every_query_has_positives(positive_rows, query_names)
    removed = positive_rows
    if excluded is not None:
        excluded_rows = _check_rows(excluded, "excluded", len(queries), len(documents))
        removed = [np.union1d(p, e) for p, e in zip(positive_rows, excluded_rows, strict=True)]

    index = FlatIndex(documents.shape[1])
    index.add(documents)
    candidates = np.full((len(queries), depth), -1, dtype=np.int32)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), block_size):
        block = slice(start, start + block_size)
        # Deep enough that `depth` candidates are left after the removal.
        k = depth + max(len(rows) for rows in removed[block])
        found_scores, found = index.search(queries[block], k)
        for query, rows in enumerate(removed[block], start):
            kept = np.flatnonzero(np.isin(found[query - start], rows, invert=True))[:depth]
            candidates[query, : len(kept)] = found[query - start, kept]
            scores[query, : len(kept)] = found_scores[query - start, kept]
    return CandidatePool(
        query_ids=query_names,
        document_ids=document_names,
        positives=positive_rows,
        candidates=candidates,
        scores=scores,
        fingerprint=dict(fingerprint or {}),
    )


def _rows_of_same_text(texts: list[str], positives: list[np.ndarray]) -> list[np.ndarray]:
    """Return, for each query, the rows of all documents with the text of one of its positives."""
    rows_of = defaultdict(list)
    for row, text in enumerate(texts):
        rows_of[text].append(row)
    return [np.array([same for row in rows for same in rows_of[texts[row]]]) for rows in positives]


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")


def _ids(ids: Sequence[str] | None, count: int, name: str) -> list[str]:
    if ids is None:
        return [str(row) for row in range(count)]
    if len(ids) != count:
        raise ValueError(f"{name} must have one entry an embedding ({count}), got {len(ids)}.")
    return list(ids)


def _check_rows(
    row_lists: Sequence[Sequence[int] | np.ndarray], name: str, n_queries: int, n_documents: int
) -> list[np.ndarray]:
    """Return each query's rows, sorted and unique, if all are rows of the corpus."""
    if len(row_lists) != n_queries:
        raise ValueError(f"{name} must have one entry a query ({n_queries}), got {len(row_lists)}.")
    checked = []
    for query, rows in enumerate(row_lists):
        unique = np.unique(np.asarray(rows))
        if unique.size and (unique.dtype.kind not in "iu" or unique[0] < 0 or unique[-1] >= n_documents):
            raise ValueError(
                f"{name} must hold rows of the {n_documents} documents, "
                f"got {unique.tolist()} for query {query}."
            )
        checked.append(unique.astype(np.int32))
    return checked


def _check_every_query_has_positives(positives: list[np.ndarray], query_ids: list[str]) -> None:
    without = [query_id for query_id, rows in zip(query_ids, positives, strict=True) if not len(rows)]
    if without:
        raise ValueError(
            f"Every query needs a positive: {len(without)} of {len(query_ids)} have none, "
            f"the first is {without[0]!r}."
        )
