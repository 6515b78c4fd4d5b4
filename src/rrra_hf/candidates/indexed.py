"""Mining in an index: the documents, their embeddings and their words are where a retriever has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from ..embeddings import encode, encoder_fingerprint, texts_fingerprint
from ..evaluation import reorder
from ..indexes import Index, WordIndex
from ..models.adapter_rrra import Reading, RetrieverAdapter
from .document_features import DocumentFeatures
from .excluded import own_rows, rows_of_same_text, without_labelled
from .hybrid import Take, cosines_of, merge_ranks
from .pool import CandidatePool
from .reading import judge, read_candidates
from .removed import search_without

if TYPE_CHECKING:
    from ..data import Collection


class Part(Protocol):
    """Documents of an index, by rows of this part."""

    index: Index
    words: WordIndex | None

    @property
    def ids(self) -> list[str]:
        """Their ids."""

    @property
    def row_of(self) -> dict[str, int]:
        """Their rows, by id."""

    @property
    def texts(self) -> list[str]:
        """Their titles and texts, if they were asked for."""


class Corpus(Protocol):
    """The documents of a retriever."""

    @property
    def block_size(self) -> int:
        """Number of queries to ask for at a time."""

    def __len__(self) -> int: ...

    def part(
        self, queries: np.ndarray, texts: Sequence[str], k: int, *, ids: Sequence[str], with_texts: bool
    ) -> Part:
        """Return the documents that a search for some queries can find, or more.

        Args:
            queries: Embeddings as searched with, `(n, dim)`.
            texts: The queries.
            k: Number of documents to find by embeddings and by words; 0 for none.
            ids: Further documents.
            with_texts: Whether titles and texts are needed.
        """

    def documents_of(self, ids: Sequence[str]) -> pa.Table:
        """Return documents in the order of their ids, with columns `id`, `title` and `text` at least."""


class Indexed(Protocol):
    """A retriever with an index."""

    encoder: SentenceTransformer

    @property
    def corpus(self) -> Corpus:
        """The documents."""

    def map_queries(self, query_embeddings: np.ndarray) -> np.ndarray:
        """Return embeddings of queries as they are searched with."""


def mine_index(
    collection: Collection,
    index: Indexed,
    depth: int,
    adapter: RetrieverAdapter | None,
    *,
    exclude_self: bool = True,
    show_progress_bar: bool | None = None,
    **options: Any,
) -> CandidatePool:
    """Mine candidates for the queries of a collection among the documents of an index.

    Args:
        collection: The queries and their labels. Of its documents, only the labelled ones are needed.
        index: The retriever.
        depth: Number of candidates per query.
        adapter: Gives the probabilities, from embeddings as they are indexed; None for none.
        exclude_self: As in `mine`.
        show_progress_bar: Show a progress bar.
        options: Arguments of `encode`, for the queries.

    Returns:
        The pool. Its documents are those of the collection, and behind them others that were found.

    Raises:
        ValueError: If a labelled document isn't in the index.
    """
    options["show_progress_bar"] = show_progress_bar
    embeddings = encode(index.encoder, collection.query_texts, task="query", **options)
    mining = _Mining(collection, index, index.map_queries(embeddings), depth, exclude_self)
    pool = mining.pool(show_progress_bar)
    return pool if adapter is None else mining.judged(pool, adapter)


def with_documents(collection: Collection, index: Indexed, pool: CandidatePool) -> Collection:
    """Return a collection with the documents of a pool: its own, and behind them those that an index found.

    Args:
        collection: The collection that was mined.
        index: The retriever that it was mined with.
        pool: The pool.

    Raises:
        ValueError: If the pool is of another collection.
    """
    ids = collection.document_ids
    if pool.document_ids[: len(ids)] != ids:
        raise ValueError(f"The pool is of another collection than {collection.name}: its documents differ.")
    if len(pool.document_ids) == len(ids):
        return collection
    names = ["id", "title", "text"]
    own = collection.corpus.select_columns(names)
    found = index.corpus.documents_of(pool.document_ids[len(ids) :]).select(names)
    others = Dataset.from_dict(found.to_pydict(), features=own.features)
    return replace(collection, corpus=concatenate_datasets([own, others]))


class _Mining:
    """Mining of the queries of a collection in an index.

    Documents have numbers: those of the collection by their rows in it, others as they are found.
    """

    def __init__(
        self, collection: Collection, index: Indexed, queries: np.ndarray, depth: int, exclude_self: bool
    ):
        self._collection, self._index, self._embeddings = collection, index, queries
        self._depth, self._exclude_self = depth, exclude_self
        self._ids = list(collection.document_ids)
        self._numbers = {name: number for number, name in enumerate(self._ids)}

    def pool(self, show_progress_bar: bool | None) -> CandidatePool:
        """Return the candidates, without probabilities."""
        collection, disable = self._collection, None if show_progress_bar is None else not show_progress_bar
        found = []
        with tqdm(total=len(self._embeddings), desc="Mining", unit="query", disable=disable) as bar:
            for block in self._blocks(len(self._embeddings)):
                found.append(self._search(block))
                bar.update(block.stop - block.start)
        candidates, scores, left_out = zip(*found, strict=True)
        fingerprint = {
            "encoder": encoder_fingerprint(self._index.encoder),
            "queries": texts_fingerprint(collection.query_texts),
        }
        if len(self._ids) == len(collection.document_ids):
            fingerprint["corpus"] = texts_fingerprint(collection.document_texts)
        return CandidatePool(
            collection.query_ids,
            self._ids,
            list(map(np.unique, collection.positive_rows)),
            np.concatenate(candidates),
            np.concatenate(scores),
            fingerprint=fingerprint,
            negatives=list(map(np.unique, collection.negative_rows)),
            excluded=list(chain.from_iterable(left_out)),
        )

    def judged(self, pool: CandidatePool, adapter: RetrieverAdapter) -> CandidatePool:
        """Return the pool with the probabilities of an adapter, and with the scores that it ranks by."""

        def read_rows(asked: np.ndarray, rows: np.ndarray, labelled: np.ndarray | None) -> Reading:
            readings = [
                self._read(adapter, asked[block], rows[block], None if labelled is None else labelled[block])
                for block in self._blocks(len(asked))
            ]
            return Reading(*(torch.cat(values) for values in zip(*readings, strict=True)))

        judged = judge(adapter, read_rows, pool.candidates, pool.positives, pool.negatives)
        return replace(pool, probability=judged.probability, ranking_scores=judged.ranking_scores)

    def _search(self, block: slice) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return candidates of some queries, their cosines, and documents that are left out."""
        queries, depth = self._embeddings[block], self._depth
        k = depth + max(map(len, self._collection.positive_rows[block]))
        part, left_out, removed = self._part(block, k)
        # As deep that so many remain without those that are left out, which are only known when found.
        while (deeper := depth + max(map(len, removed))) > k and len(part.ids) < len(self._index.corpus):
            k = deeper
            part, left_out, removed = self._part(block, k)
        rows, scores = search_without(part.index, queries, removed, depth)
        if part.words is not None:
            counts = part.words.count(self._collection.query_texts[block])
            rows = merge_ranks(rows, search_without(part.words, counts, removed, depth)[0], depth)
            scores = cosines_of(queries, rows, _taking(part.index))
            rows, scores = reorder(rows, scores), reorder(scores, scores)
        return self._numbered(part, rows), scores, [self._numbered(part, rows) for rows in left_out]

    def _part(self, block: slice, k: int) -> tuple[Part, list[np.ndarray], list[np.ndarray]]:
        """Return what is found for some queries.

        Returns:
            The documents, and per query their rows that are neither relevant nor not, and those that are no
            candidates.
        """
        collection = self._collection
        labelled = [[self._ids[row] for row in rows] for rows in collection.positive_rows[block]]
        ids, texts = collection.query_ids[block], collection.query_texts[block]
        wanted = list(dict.fromkeys(chain.from_iterable(labelled)))
        part = self._index.corpus.part(self._embeddings[block], texts, k, ids=wanted, with_texts=True)
        unknown = [name for name in wanted if name not in part.row_of]
        if unknown:
            raise ValueError(
                f"index must have the labelled documents, {len(unknown)} of {len(wanted)} are missing, "
                f"the first is {unknown[0]!r:.80}."
            )
        positives = [np.array([part.row_of[name] for name in names]) for names in labelled]
        own: list[list[int]] = [[]] * len(ids)
        if self._exclude_self:
            own = own_rows(zip(ids, texts, strict=True), part.ids, part.texts)
        left_out = without_labelled(rows_of_same_text(part.texts, positives), own, positives)
        return part, left_out, list(map(np.union1d, positives, left_out))

    def _numbered(self, part: Part, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of documents from their rows in a part. New documents get one."""
        distinct, places = np.unique(rows, return_inverse=True)
        numbers = [self._number(part.ids[row]) if row >= 0 else -1 for row in distinct]
        return np.array(numbers, dtype=np.int64)[places].reshape(rows.shape)

    def _number(self, document_id: str) -> int:
        number = self._numbers.setdefault(document_id, len(self._ids))
        if number == len(self._ids):
            self._ids.append(document_id)
        return number

    def _read(
        self, adapter: RetrieverAdapter, asked: np.ndarray, numbers: np.ndarray, labelled: np.ndarray | None
    ) -> Reading:
        """Read documents of queries with an adapter."""
        queries = self._embeddings[asked]
        texts = [self._collection.query_texts[query] for query in asked]
        distinct, places = np.unique(numbers, return_inverse=True)
        ids = [self._ids[number] for number in distinct if number >= 0]
        part = self._index.corpus.part(queries, texts, 0, ids=ids, with_texts=False)
        rows = np.array([part.row_of[self._ids[number]] if number >= 0 else -1 for number in distinct])
        take = _taking(part.index)
        features = DocumentFeatures.of(adapter.reader, [take(np.arange(len(part.ids)))], part.words)
        counts = None if part.words is None else part.words.count(texts)
        return read_candidates(
            adapter, queries, rows[places].reshape(numbers.shape), take, features, counts, labelled=labelled
        )

    def _blocks(self, count: int) -> list[slice]:
        size = self._index.corpus.block_size
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _taking(index: Index) -> Take:
    """Return what takes embeddings from an index, which gives none of -1, where there is no document."""
    return lambda rows: index.reconstruct(np.maximum(rows, 0))
