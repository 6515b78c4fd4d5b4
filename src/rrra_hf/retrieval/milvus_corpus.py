"""A corpus that lives in Milvus: what a search needs of it is fetched for a few queries at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from ..data.metadata import parse_metadata
from ..hub.layout import WORDS_FOLDER
from ..indexes import FlatIndex, MilvusIndex
from ..indexes.checks import normalized
from ..indexes.milvus import Entity, checked_uri
from ..indexes.word_counts import count_words
from ..indexes.word_files import META_NAME as WORDS_META_NAME
from ..indexes.word_statistics import ARRAYS, WordStatistics
from ..indexes.word_vectors import QueryWords, document_vectors
from ..models.files_rrra import read_meta, write_json
from .corpus_index import CorpusIndex, no_features
from .documents import METADATA, METADATA_FIELD, SCHEMA, document_texts
from .filters import Condition
from .milvus_filters import filter_entries, milvus_filter

META_NAME = "milvus.json"
FORMAT_VERSION = 1
FILE_NAMES = (
    META_NAME,
    f"{WORDS_FOLDER}/{WORDS_META_NAME}",
    *(f"{WORDS_FOLDER}/{name}.npy" for name in ARRAYS),
)
ENTRIES = {"uri": str, "collection_name": str, "dim": int, "encoder": str, "memory": str, "adapter": bool}
WITH_METADATA = SCHEMA.append(METADATA_FIELD)
# What is fetched of documents to search among them, and to show them, too.
SEARCHED = ("id", METADATA, "length", "embedding", "words")
TEXTS = ("title", "text")
# Queries whose documents are fetched together: at most 300 documents of a few kilobytes for each.
QUERIES = 64
# Documents that are prepared at a time.
DOCUMENTS = 1000

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class MilvusCorpus:
    """The documents of a corpus in Milvus, and what BM25 has to know of all of them.

    The best documents for a query are the same among those that Milvus finds for it as among all. So a few
    queries at a time are searched and reranked in a small index of the documents that Milvus finds for them.

    Args:
        stored: The documents.
        statistics: Frequencies of their words.
        encoder: Fingerprint of the model that made the embeddings.
        memory: Fingerprint of the adapter's memory, empty if there is none.
        adapter: Whether the retriever has an adapter.
    """

    stored: MilvusIndex
    statistics: WordStatistics
    encoder: str
    memory: str
    adapter: bool

    @classmethod
    def of(
        cls,
        stored: MilvusIndex,
        documents: pa.Table,
        embeddings: np.ndarray,
        language: str,
        made_by: tuple[str, str, bool],
    ) -> MilvusCorpus:
        """Store the documents of a corpus, instead of those that are there.

        Args:
            stored: Where to store them.
            documents: The documents, see `document_table`.
            embeddings: Their embeddings as indexed, `(n, dim)`.
            language: Language of the words.
            made_by: The last arguments.
        """
        counts, vocabulary = count_words(document_texts(documents), language, show_progress_bar=False)
        corpus = cls(stored, WordStatistics.of(counts, vocabulary, language), *made_by)
        stored.clear()
        corpus._upsert(documents, embeddings, counts, vocabulary)
        return corpus

    @property
    def block_size(self) -> int:
        """Number of queries whose documents are fetched together."""
        return QUERIES

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self.stored.dim

    @property
    def language(self) -> str:
        """Language of the words."""
        return self.statistics.language

    @property
    def has_words(self) -> bool:
        """Whether documents can be searched by words."""
        return True

    @property
    def most_passages(self) -> int:
        """Greatest number of passages of a document: documents are not split."""
        return 1

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.stored)

    def __len__(self) -> int:
        return self.num_documents

    def put(self, documents: pa.Table, embeddings: np.ndarray) -> None:
        """Add documents, or replace those with the same ids.

        Args:
            documents: The documents, see `document_table`.
            embeddings: Their embeddings as indexed, `(n, dim)`.
        """
        language = self.statistics.language
        counts, vocabulary = count_words(document_texts(documents), language, show_progress_bar=False)
        replaced = self._statistics_of(documents["id"].to_pylist())
        self._upsert(documents, embeddings, counts, vocabulary)
        added = WordStatistics.of(counts, vocabulary, language)
        self.statistics = self.statistics.minus(replaced).plus(added)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents. Unknown ids are ignored."""
        deleted = self._statistics_of(ids)
        self.stored.delete(ids)
        self.statistics = self.statistics.minus(deleted)

    def present(self, ids: Sequence[str]) -> list[str]:
        """Return those of some ids that documents have, each once."""
        return [entity["id"] for entity in self.stored.fetch(list(dict.fromkeys(ids)), ["id"])]

    def document(self, corpus_id: str) -> dict[str, Any]:
        """Return a document's `id`, `title`, `text` and `metadata`.

        Raises:
            KeyError: If there is no document with that id.
        """
        document = self.documents_of([corpus_id]).to_pylist()[0]
        return document | {METADATA: parse_metadata(document[METADATA])}

    def documents_of(self, ids: Sequence[str]) -> pa.Table:
        """Return documents in the order of their ids, with `id`, `title`, `text` and `metadata`.

        Args:
            ids: Ids of the documents, each once.

        Raises:
            KeyError: If there is no document with such an id.
        """
        found = {entity["id"]: entity for entity in self.stored.fetch(ids, WITH_METADATA.names)}
        for name in ids:
            if name not in found:
                raise KeyError(f"No document {name!r} in the index.")
        columns = {name: [found[row][name] for row in ids] for name in WITH_METADATA.names}
        return pa.table(columns, schema=WITH_METADATA)

    def part(
        self,
        queries: np.ndarray,
        texts: Sequence[str] | None,
        k: int,
        condition: Condition | None = None,
        *,
        by_words: bool = True,
        ids: Sequence[str] = (),
        with_texts: bool = False,
    ) -> CorpusIndex:
        """Return a small index with the documents that a search for some queries can find.

        Args:
            queries: Embeddings as searched with, `(n, dim)`.
            texts: The queries; None to read no words.
            k: Number of documents to find by each search; 0 for none.
            condition: Filter of the documents.
            by_words: Search by words, too.
            ids: Further documents.
            with_texts: Fetch titles and texts, too.

        Returns:
            The documents, in the order of their ids. Their words are those that queries have. Features of the
            adapter's memory are missing.
        """
        where = milvus_filter(condition)
        words = None if texts is None else QueryWords.of(texts, self.statistics)
        found = self.stored.search(queries, k, where) if k else []
        if k and by_words and words is not None:
            found += self.stored.search_words(words.vectors(), k, where)
        wanted = sorted({*chain.from_iterable(found), *ids})
        fields = (*SEARCHED, *TEXTS) if with_texts else SEARCHED
        entities = sorted(self.stored.fetch(wanted, fields), key=itemgetter("id"))
        return self._index(entities, words)

    def _index(self, entities: Sequence[Mapping[str, Any]], words: QueryWords | None) -> CorpusIndex:
        index, indexed = FlatIndex(self.stored.dim), None
        if entities:
            index.add(np.array([entity["embedding"] for entity in entities], dtype=np.float32))
        if words is not None:
            lengths = np.array([entity["length"] for entity in entities], dtype=np.float32)
            indexed = words.word_index([entity["words"] for entity in entities], lengths)
        columns = {name: [entity.get(name, "") for entity in entities] for name in WITH_METADATA.names}
        return CorpusIndex(
            index,
            no_features(len(entities), indexed),
            indexed,
            pa.table(columns, schema=WITH_METADATA),
            encoder=self.encoder,
            memory=self.memory,
            adapter=self.adapter,
        )

    def _upsert(
        self, documents: pa.Table, embeddings: np.ndarray, counts: csr_array, vocabulary: np.ndarray
    ) -> None:
        vectors = document_vectors(counts, vocabulary, self.statistics.stored_length)
        lengths = counts.sum(axis=1).astype(np.int64).tolist()
        for start in range(0, len(embeddings), DOCUMENTS):
            block = slice(start, start + DOCUMENTS)
            columns = documents.slice(start, DOCUMENTS).to_pydict()
            columns.setdefault(METADATA, [""] * len(columns["id"]))
            entries = (filter_entries(parse_metadata(text)) for text in columns[METADATA])
            texts = (columns[name] for name in WITH_METADATA.names)
            embedded = normalized(embeddings[block])
            self.stored.upsert(list(map(Entity, *texts, entries, lengths[block], embedded, vectors)))

    def _statistics_of(self, ids: Sequence[str]) -> WordStatistics:
        """Return the statistics of those documents that are stored."""
        entities = self.stored.fetch(ids, ["words", "length"])
        return WordStatistics.of_vectors(entities, self.statistics.language)

    def recount(self) -> None:
        """Count the words of all documents again. Their weights stay as they are."""
        language = self.statistics.language
        counted = WordStatistics.of_vectors([], language)
        for entities in self.stored.entities(["words", "length"]):
            counted = counted.plus(WordStatistics.of_vectors(entities, language))
        self.statistics = replace(counted, stored_length=self.statistics.stored_length)

    def save(self, directory: Path) -> None:
        """Write the connection and the statistics of words to a new folder. The token is not written."""
        directory.mkdir()
        self.statistics.save(directory / WORDS_FOLDER)
        made_by = {name: getattr(self, name) for name in ("encoder", "memory", "adapter")}
        place = {name: getattr(self.stored, name) for name in ("uri", "collection_name", "dim")}
        write_json(directory / META_NAME, {"format_version": FORMAT_VERSION, **place, **made_by})

    @classmethod
    def load(cls, directory: Path) -> MilvusCorpus:
        """Connect to a corpus that `save` described.

        Args:
            directory: The folder.

        Raises:
            FileNotFoundError: If the file of Milvus Lite isn't there.
            ValueError: If a file of the folder is missing or damaged, or the collection isn't one of such
                documents.
        """
        path = directory / META_NAME
        meta = read_meta(path, {FORMAT_VERSION}, tuple(ENTRIES))
        for name, kind in ENTRIES.items():
            if type(meta[name]) is not kind:
                raise ValueError(
                    f"{path} is damaged: {name} must be of type {kind.__name__}, got {meta[name]!r}."
                )
        statistics = WordStatistics.load(directory / WORDS_FOLDER)
        uri = checked_uri(meta["uri"])
        if "://" not in uri and not Path(uri).exists():
            raise FileNotFoundError(f"The documents of {directory} are in {uri}, which isn't there.")
        stored = MilvusIndex(meta["dim"], uri, meta["collection_name"])
        corpus = cls(stored, statistics, meta["encoder"], meta["memory"], meta["adapter"])
        if len(corpus) != statistics.documents:
            logger.info(
                "%s holds %d documents, and held %d when %s was saved: their words are counted again.",
                *(stored.collection_name, len(corpus), statistics.documents, directory),
            )
            corpus.recount()
        return corpus
