"""Mine candidates: the best documents per training query, without the labelled positives."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from ..embeddings import CollectionEmbeddings, check_embeddings, embed_collection, texts_fingerprint
from ..embeddings.fingerprint import array_fingerprint
from ..evaluation import reorder
from ..indexes import Index, WordIndex, index_words, search_flat
from ..models.adapter_rrra import RetrieverAdapter, check_given
from .excluded import excluded_rows
from .hybrid import DEPTH, cosines_of, merge_ranks, take_from
from .indexed import Indexed, mine_index
from .pool import CandidatePool
from .reading import with_probability
from .removed import search_without
from .unfinished import UnfinishedPool

if TYPE_CHECKING:
    from ..data import Collection

logger = logging.getLogger(__name__)


def mine(
    collection: Collection,
    encoder: SentenceTransformer | None = None,
    depth: int = DEPTH,
    *,
    index: Indexed | None = None,
    split: str = "train",
    adapter: RetrieverAdapter | Literal["pretrained"] | None = "pretrained",
    exclude_self: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    show_progress_bar: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> CandidatePool:
    """Mine the best documents for each query of a split, by an encoder and by words.

    Labelled positives, and documents with the same text as a positive, are left out. Each candidate gets the
    probability that it is relevant although it has no label; 0 if it was judged and isn't relevant. That of
    the adapter that comes trained knows nothing else of the collection's labels, except one labelled document
    for each query. `cross_fit` gives those of adapters that were fitted on other queries.

    Args:
        collection: The collection.
        encoder: The encoder; not given with an index, which has one.
        depth: Number of candidates per query.
        index: A retriever with an index, to mine in its documents, wherever they are. They are not encoded
            again. Of the collection's own documents, only the labelled ones are needed.
        split: Split with the queries and positives.
        adapter: Gives the probabilities; None for none. One without linear maps.
        exclude_self: Leave out documents that are the query, see `mine_collection`.
        cache_dir: Cache folder for embeddings and the index of words, see `encode` and `index_words`.
        batch_size: Encoder batch size.
        show_progress_bar: Show a progress bar. None shows one on a terminal only.
        folder: Folder to save the pool to during mining, see `mine_embeddings`; with an index, after it.

    Returns:
        The pool, with the queries in the order of `collection.split(split).query_ids`, and with fingerprints.
        Its documents are those of the collection. With an index, others that were found stand behind them.

    Raises:
        ValueError: If the split doesn't exist, a query has no positive, `adapter` is something else or was
            never fitted, both or none of `encoder` and `index` are given, a labelled document isn't in the
            index, or the encoder returns NaN.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from rrra_hf import load_collection
        >>> pairs = [{"query": "copy", "answer": "copy a file"}, {"query": "list", "answer": "list files"}]
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "list"])])
        >>> pool = mine(load_collection(pairs), encoder, depth=1, show_progress_bar=False)
        >>> pool.candidates.tolist(), pool.probability.shape
        ([[1], [0]], (2, 1))
    """
    part = collection.split(split)
    # Check before the slow part.
    _check_depth(depth)
    check_given(adapter)
    if isinstance(adapter, RetrieverAdapter) and not adapter.has_learnt:
        raise ValueError("adapter must be one that was fitted, 'pretrained' or None; this one knows nothing.")
    _check_every_query_has_positives(part.positive_rows, part.query_ids)
    if (encoder is None) == (index is None):
        raise ValueError("encoder must be given, or index, which has one; got both or none.")
    if adapter == "pretrained":
        adapter = RetrieverAdapter.pretrained()
    if index is not None:
        pool = mine_index(
            part,
            index,
            depth,
            adapter,
            exclude_self=exclude_self,
            show_progress_bar=show_progress_bar,
            cache_dir=cache_dir,
            batch_size=batch_size,
        )
        if folder is not None:
            pool.save(folder)
        return pool
    assert encoder is not None
    embeddings = embed_collection(
        part, encoder, cache_dir=cache_dir, batch_size=batch_size, show_progress_bar=show_progress_bar
    )
    words = index_words(part.document_texts, cache_dir, show_progress_bar=show_progress_bar)
    pool = mine_collection(
        part,
        embeddings,
        depth,
        words=words,
        exclude_self=exclude_self,
        folder=folder,
        show_progress_bar=show_progress_bar,
    )
    if adapter is None:
        return pool
    pool = with_probability(pool, adapter, embeddings, words.count(part.query_texts), words)
    if folder is not None:
        pool.save(folder)
    return pool


def mine_collection(
    collection: Collection,
    embeddings: CollectionEmbeddings,
    depth: int = DEPTH,
    *,
    words: WordIndex | None = None,
    exclude_self: bool = True,
    **options: Any,
) -> CandidatePool:
    """Mine candidates for all queries of an encoded collection.

    Args:
        collection: The collection. Every query needs a positive, so pass a single split.
        embeddings: Embeddings of the collection.
        depth: Number of candidates per query.
        words: The documents' words, to find candidates by them too.
        exclude_self: Leave out documents that are the query: those with its id, and those with its text
            but for case and spaces. Collections of duplicate questions and of citations have them.
        **options: Further arguments of `mine_embeddings`, such as `folder`, `index` or `max_memory`.

    Returns:
        The pool, with the queries in the order of `collection.query_ids`, and with fingerprints.

    Raises:
        ValueError: If a query has no positive.
    """
    if words is not None:
        options |= {"query_words": words.count(collection.query_texts), "document_words": words}
    return mine_embeddings(
        embeddings.queries,
        embeddings.documents,
        collection.positive_rows,
        depth=depth,
        query_ids=collection.query_ids,
        document_ids=collection.document_ids,
        negatives=collection.negative_rows,
        excluded=excluded_rows(collection, exclude_self),
        fingerprint=embeddings.fingerprint,
        **options,
    )


def mine_embeddings(
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray],
    *,
    depth: int = DEPTH,
    query_ids: Sequence[str] | None = None,
    document_ids: Sequence[str] | None = None,
    negatives: Sequence[Sequence[int] | np.ndarray] | None = None,
    excluded: Sequence[Sequence[int] | np.ndarray] | None = None,
    fingerprint: dict[str, str] | None = None,
    block_size: int = 1024,
    max_memory: int = 2**25,
    index: Index | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: str | None = None,
    query_words: csr_array | None = None,
    document_words: WordIndex | None = None,
    show_progress_bar: bool | None = None,
) -> CandidatePool:
    """Mine candidates from embeddings of any source.

    With words, half of the candidates are found by BM25. The dense search is exact, unless you pass an
    `index`. Queries are searched in blocks.

    With `folder`, the candidates of each block are saved as soon as they are found, and finally the whole
    pool. Interrupted mining resumes with the missing blocks, and a finished pool is read from the folder. An
    earlier pool in the folder is replaced. Several processes that mine the same pool into the same folder
    divide the blocks among them, and all of them return the pool.

    Args:
        query_embeddings: `(n_queries, dim)`, in memory or memory-mapped. They don't need to be normalised.
        document_embeddings: `(n_documents, dim)`, likewise.
        positives: Row numbers of the relevant documents per query, at least one.
        depth: Number of candidates per query. If the corpus has fewer, the pool is padded with -1.
        query_ids: Ids of the queries, by default their row numbers as strings.
        document_ids: Ids of the documents, by default their row numbers as strings.
        negatives: Row numbers of documents per query that were judged and aren't relevant. They may be
            candidates.
        excluded: Row numbers of further documents to leave out per query, such as the query itself where
            queries are documents too.
        fingerprint: Fingerprints of the sources of the embeddings, see `CandidatePool`.
        block_size: Number of queries per block.
        max_memory: Maximum bytes per core, in addition to the embeddings and the pool.
        index: Index of the documents, in the order of their rows, to search instead. It may be approximate.
        folder: Folder of the pool, see `CandidatePool.save`. None saves nothing.
        device: Device for the search. By default, a GPU if there is one.
        query_words: Counts of the queries' words, `document_words.count(texts)`.
        document_words: The documents' words.
        show_progress_bar: Show a progress bar. None shows one on a terminal only.

    Returns:
        The pool, with the queries in the order of their rows.

    Raises:
        ValueError: If embeddings aren't finite or differ in dimension, a query has no positive, a row number
            is out of range, lengths differ, a size isn't legal, or the folder holds other files. The message
            names the argument.

    Example:
        >>> documents = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> pool = mine_embeddings(documents[:1], documents, positives=[[0]], depth=2)
        >>> pool.candidate_ids, pool.scores.round(2).tolist()
        ([['1', '2']], [[0.800000011920929, 0.0]])
    """
    _check_depth(depth)
    for name, size in (("block_size", block_size), ("max_memory", max_memory)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
    queries = check_embeddings(query_embeddings, "query_embeddings")
    documents = check_embeddings(document_embeddings, "document_embeddings", dim=queries.shape[1])
    if index is not None and (len(index), index.dim) != documents.shape:
        raise ValueError(
            f"index must have documents of shape {documents.shape}, got {(len(index), index.dim)}."
        )
    query_names = _ids(query_ids, len(queries), "query_ids")
    document_names = _ids(document_ids, len(documents), "document_ids")
    positive_rows = _check_rows(positives, "positives", len(queries), len(documents))
    _check_every_query_has_positives(positive_rows, query_names)
    nothing = [np.empty(0, dtype=np.int32)] * len(queries)
    judged, others = (
        nothing if rows is None else _check_rows(rows, name, len(queries), len(documents))
        for name, rows in (("negatives", negatives), ("excluded", excluded))
    )
    both = list(zip(positive_rows, others, strict=True))
    removed = [np.union1d(rows, more) if len(more) else rows for rows, more in both]
    left_out = [np.setdiff1d(more, rows) if len(more) else more for rows, more in both]

    def search_vectors(block: slice) -> tuple[np.ndarray, np.ndarray]:
        if index is not None:
            return search_without(index, queries[block], removed[block], depth)
        scores, rows = search_flat(
            queries[block], documents, depth, excluded=removed[block], max_memory=max_memory, device=device
        )
        return rows.astype(np.int32), scores

    def search(block: slice) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = search_vectors(block)
        if query_words is None or document_words is None:
            return rows, scores
        found = search_without(document_words, query_words[block], removed[block], depth)[0]
        rows = merge_ranks(rows, found, depth)
        scores = cosines_of(queries[block], rows, take_from(documents))
        return reorder(rows, scores), reorder(scores, scores)

    blocks = [
        slice(start, min(start + block_size, len(queries))) for start in range(0, len(queries), block_size)
    ]
    make_pool = partial(
        CandidatePool,
        query_names,
        document_names,
        positive_rows,
        negatives=judged,
        excluded=left_out,
    )
    fingerprint = dict(fingerprint or {})
    if folder is None:
        found = [search(block) for block in _with_progress(blocks, show_progress_bar)]
        candidates, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return make_pool(candidates, scores, fingerprint=fingerprint)
    decisive = {
        **fingerprint,
        "query_embeddings": array_fingerprint(queries),
        "document_embeddings": array_fingerprint(documents),
        "query_ids": texts_fingerprint(query_names),
        "document_ids": texts_fingerprint(document_names),
        "positives": _rows_fingerprint(positive_rows),
        "negatives": _rows_fingerprint(judged),
        "removed": _rows_fingerprint(removed),
        "index": type(index).__name__,
        "depth": str(depth),
        "words": _words_fingerprint(query_words, document_words),
    }
    mining = texts_fingerprint([*decisive, *decisive.values()])
    unfinished = UnfinishedPool(Path(folder), mining, blocks, depth)
    if unfinished.finished():
        return unfinished.load()
    for block in _with_progress(blocks, show_progress_bar):
        unfinished.mine(search, block)
    return unfinished.finish(search, partial(make_pool, fingerprint={**fingerprint, "mining": mining}))


def _with_progress(blocks: list[slice], show_progress_bar: bool | None) -> Iterator[slice]:
    """Yield each block, and count its queries when it is done."""
    disable = None if show_progress_bar is None else not show_progress_bar
    with tqdm(total=blocks[-1].stop, desc="Mining", unit="query", disable=disable) as bar:
        for block in blocks:
            yield block
            bar.update(block.stop - block.start)


def _rows_fingerprint(row_lists: list[np.ndarray]) -> str:
    lengths = np.array([len(rows) for rows in row_lists], dtype=np.int64)
    return array_fingerprint(lengths) + array_fingerprint(np.concatenate(row_lists))


def _words_fingerprint(queries: csr_array | None, documents: WordIndex | None) -> str:
    if queries is None or documents is None:
        return ""
    parts = queries.indices, queries.indptr, documents.vocabulary, documents.lengths
    return "".join(array_fingerprint(part) for part in parts)


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}.")


def _ids(ids: Sequence[str] | None, count: int, name: str) -> list[str]:
    if ids is None:
        return [str(row) for row in range(count)]
    if len(ids) != count:
        raise ValueError(f"{name} must have one entry per embedding ({count}), got {len(ids)}.")
    return list(ids)


def _check_rows(
    row_lists: Sequence[Sequence[int] | np.ndarray], name: str, n_queries: int, n_documents: int
) -> list[np.ndarray]:
    """Return the rows per query, sorted and unique, after checking that they are in the corpus."""
    if len(row_lists) != n_queries:
        raise ValueError(f"{name} must have one entry per query ({n_queries}), got {len(row_lists)}.")
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
