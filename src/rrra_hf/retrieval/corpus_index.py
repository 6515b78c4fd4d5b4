"""An indexed corpus on disk: the indexes, the documents, and fingerprints of what made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..candidates import DocumentFeatures
from ..data.metadata import parse_metadata
from ..data.parquet_files import read_columns
from ..embeddings import texts_fingerprint
from ..hub.layout import INDEX_META_NAME, WORDS_FOLDER
from ..indexes import Index, WordIndex, load_index
from ..indexes.checksums import ENTRY, check_files, checksums
from ..indexes.stop_lists import AUTO
from ..indexes.words import ARRAYS
from ..models.files_rrra import read_json, read_meta, write_json
from .documents import METADATA, METADATA_FIELD, SCHEMA, document_texts
from .metadata import MetadataColumns
from .passages import DOCUMENT_ID, PASSAGE_SCHEMA, START

VECTORS_NAME = "vectors.faiss"
DOCUMENTS_NAME = "documents.parquet"
FEATURES_NAME = "features.safetensors"
FORMAT_VERSION = 4
BLOCK_SIZE = 4096
# Entries of the metadata since version 4, and their types.
ENTRIES = {
    "documents": int,
    "dim": int,
    "encoder": str,
    "corpus": str,
    "memory": str,
    "adapter": bool,
    "features": bool,
    "words": bool,
}
# By format version: the entry that says whether there are features, and the name of their file.
OLD_FEATURES = {2: ("evidence", "evidence.safetensors"), 3: ("features", FEATURES_NAME)}
APPROXIMATE_FILES = ("meta.json", "candidates.faiss", "embeddings.arrow")
# Patterns of its files. An index of another kind than a flat one of float32 is a folder with a subfolder.
FILE_NAMES = [
    VECTORS_NAME,
    f"{VECTORS_NAME}/current.json",
    *(f"{VECTORS_NAME}/*/{name}" for name in (*APPROXIMATE_FILES, "codes.arrow", "ranges.arrow")),
    *(f"{VECTORS_NAME}/*/{name}" for name in ("kept.npy", "added.faiss", "base/current.json")),
    *(f"{VECTORS_NAME}/*/base/*/{name}" for name in APPROXIMATE_FILES),
    DOCUMENTS_NAME,
    INDEX_META_NAME,
    *(name for _, name in OLD_FEATURES.values()),
    f"{WORDS_FOLDER}/words.json",
    *(f"{WORDS_FOLDER}/{name}.npy" for name in ARRAYS),
]


@dataclass(eq=False)
class IndexedDocuments:
    """What a search reads of documents, row for row.

    Args:
        index: Index of the embeddings.
        features: Features of the documents that the adapter reads; empty if it precomputes none.
        words: Index of the words; None to search by embeddings alone.
    """

    index: Index
    features: DocumentFeatures
    words: WordIndex | None

    @property
    def has_words(self) -> bool:
        """Whether documents can be searched by words."""
        return self.words is not None


@dataclass(eq=False)
class CorpusIndex(IndexedDocuments):
    """The documents of a corpus and the indexes of their embeddings and words.

    Args:
        documents: Columns `id`, `title`, `text` and, if any have them, `metadata`, JSON texts. If documents
            were split, these are passages, with the columns `document_id` and `start`, see `split_documents`.
        encoder: Fingerprint of the model that made the embeddings. In an index of format version 3 or before,
            it is one of the adapter's memory, too.
        memory: Fingerprint of the memory that made the features, empty if there was none; None in an index of
            format version 3 or before.
        adapter: Whether the retriever had an adapter; None in an index of format version 3 or before.
        split: Maximum number of tokens of a passage; None if documents were not split.
    """

    documents: pa.Table
    encoder: str
    memory: str | None
    adapter: bool | None
    split: int | None = None

    @property
    def block_size(self) -> int:
        """Number of queries to search for at a time. Each brings a matrix of candidates."""
        return BLOCK_SIZE

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return self.index.dim

    @property
    def language(self) -> str:
        """Language of the words, "auto" if there are none."""
        return AUTO if self.words is None else self.words.language

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the documents or passages, by row."""
        return self.documents["id"].to_pylist()

    @cached_property
    def corpus(self) -> str:
        """Fingerprint of the documents' texts."""
        return texts_fingerprint(document_texts(self.documents))

    @cached_property
    def document_ids(self) -> list[str]:
        """Ids of the documents, by row, also if the rows are passages."""
        return self.ids if self.split is None else self.documents[DOCUMENT_ID].to_pylist()

    @property
    def num_documents(self) -> int:
        """Number of documents, also if the rows are passages."""
        return len(set(self.document_ids))

    @property
    def most_passages(self) -> int:
        """Greatest number of passages of a document, 1 if documents were not split."""
        return 1 if self.split is None else max(Counter(self.document_ids).values())

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Rows of the documents or passages, by id."""
        return {document_id: row for row, document_id in enumerate(self.ids)}

    @cached_property
    def texts(self) -> list[str]:
        """Titles and texts of the documents, by row."""
        return document_texts(self.documents)

    @cached_property
    def metadata(self) -> MetadataColumns:
        """Metadata of the documents, to filter by."""
        has_any = METADATA in self.documents.column_names
        return MetadataColumns(
            self.documents[METADATA].to_pylist() if has_any else [""] * self.documents.num_rows
        )

    def document(self, corpus_id: str) -> dict[str, Any]:
        """Return a document's `id`, `title`, `text` and, if any documents have them, `metadata`.

        If documents were split, these are of a passage, with its `document_id` and `start`.

        Raises:
            KeyError: If there is no document or passage with that id.
        """
        if corpus_id not in self.row_of:
            raise KeyError(f"No document {corpus_id!r} in the index.")
        return self.document_at(self.row_of[corpus_id])

    def document_at(self, row: int) -> dict[str, Any]:
        """Return the document in a row, see `document`."""
        document = self.documents.slice(row, 1).to_pylist()[0]
        if METADATA in document:
            document[METADATA] = parse_metadata(document[METADATA])
        return document

    def documents_of(self, ids: Sequence[str]) -> pa.Table:
        """Return documents in the order of their ids, see `documents`.

        Raises:
            KeyError: If there is no document with such an id.
        """
        return self.documents.take([self.row_of[name] for name in ids])

    def present(self, ids: Sequence[str]) -> list[str]:
        """Return those of some ids that documents have, each once."""
        known = set(self.document_ids)
        return [name for name in dict.fromkeys(ids) if name in known]

    def part(self, *queries: Any, **options: Any) -> CorpusIndex:
        """Return an index with the documents that a search for some queries can find: all of them.

        Args:
            queries: As for `MilvusCorpus.part`.
            options: Likewise.
        """
        return self

    def save(self, directory: Path) -> None:
        """Write the files of the index to a new folder."""
        directory.mkdir()
        self.index.save(directory / VECTORS_NAME)
        pq.write_table(self.documents, directory / DOCUMENTS_NAME)
        has_features = self.features.statics.size > 0
        if has_features:
            self.features.save(directory / FEATURES_NAME)
        if self.words is not None:
            self.words.save(directory / WORDS_FOLDER)
        meta = {
            "format_version": FORMAT_VERSION,
            "documents": len(self.index),
            "dim": self.index.dim,
            "encoder": self.encoder,
            "corpus": self.corpus,
            "adapter": self.adapter,
            "memory": self.memory,
            "features": has_features,
            "words": self.words is not None,
            "split": self.split,
            ENTRY: checksums(directory),
        }
        write_json(directory / INDEX_META_NAME, meta)

    @classmethod
    def load(cls, directory: Path) -> CorpusIndex:
        """Read an index that `save` wrote. The words are memory-mapped.

        Args:
            directory: The folder.

        Raises:
            ValueError: If a file is missing, damaged or doesn't belong to the others; the message names the
                file.
        """
        meta, features_name = _read_meta(directory / INDEX_META_NAME)
        check_files(directory / INDEX_META_NAME)
        index = _read_vectors(directory / VECTORS_NAME)
        if (len(index), index.dim) != (meta["documents"], meta["dim"]):
            raise ValueError(
                f"{directory / VECTORS_NAME} holds {len(index)} embeddings of dimension {index.dim}, "
                f"not {meta['documents']} of {meta['dim']}; index the corpus again."
            )
        documents = _read_documents(directory / DOCUMENTS_NAME, meta["split"])
        words = _read_words(directory / WORDS_FOLDER, len(index)) if meta["words"] else None
        features = no_features(len(index))
        if meta["features"]:
            features = _read_features(directory / features_name, len(index))
        kept = {name: meta[name] for name in ("encoder", "memory", "adapter", "split")}
        found = cls(index, features, words, documents, **kept)
        if (documents.num_rows, found.corpus) != (meta["documents"], meta["corpus"]):
            raise ValueError(
                f"{directory / DOCUMENTS_NAME} holds other documents than were indexed (fingerprint "
                f"{found.corpus} of {documents.num_rows}, not {meta['corpus']} of {meta['documents']}); "
                "index them again."
            )
        return found


def _read_meta(path: Path) -> tuple[dict[str, Any], str]:
    """Return the metadata of an index as this version has them, and the name of the file with features."""
    version = read_meta(path, {*OLD_FEATURES, FORMAT_VERSION}, ("format_version",))["format_version"]
    old = version in OLD_FEATURES
    if old:
        entry, features_name = OLD_FEATURES[version]
        meta = read_meta(path, {version}, ("documents", "dim", "encoder", "corpus", entry))
        meta |= {"features": meta[entry], "memory": None, "adapter": None, "words": False}
    else:
        features_name, meta = FEATURES_NAME, read_meta(path, {version}, tuple(ENTRIES))
    for name, kind in ENTRIES.items():
        if type(meta[name]) is not kind and not (old and meta[name] is None):
            raise ValueError(
                f"{path} is damaged: {name} must be of type {kind.__name__}, got {meta[name]!r}."
            )
    # Documents were not split before there was such an entry.
    meta["split"] = read_json(path, dict).get("split")
    if meta["split"] is not None and (type(meta["split"]) is not int or meta["split"] < 1):
        raise ValueError(f"{path} is damaged: split must be null or at least 1, got {meta['split']!r:.80}.")
    return meta, features_name


def no_features(documents: int, words: WordIndex | None = None) -> DocumentFeatures:
    """Return the features of documents for which none are precomputed, except their words if given."""
    return DocumentFeatures(np.empty((documents, 0), dtype=np.float32), words)


def _read_documents(path: Path, split: int | None) -> pa.Table:
    schema = SCHEMA if split is None else PASSAGE_SCHEMA
    try:
        with_metadata = METADATA in pq.read_schema(path).names
        table = read_columns(path, schema.append(METADATA_FIELD) if with_metadata else schema)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error
    ids = table["id"]
    if any(column.null_count for column in table.columns) or len(ids.unique()) < len(ids):
        raise ValueError(f"{path} is damaged: texts are missing, or ids repeat.")
    if split is not None and (table[START].to_numpy() < 0).any():
        raise ValueError(f"{path} is damaged: a passage starts before its document.")
    return table


def _read_vectors(path: Path) -> Index:
    try:
        return load_index(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; index the corpus again.") from error


def _read_features(path: Path, documents: int) -> DocumentFeatures:
    features = DocumentFeatures.load(path)
    if len(features.statics) != documents:
        raise ValueError(
            f"{path} holds features of {len(features.statics)} documents, not {documents}; "
            "index the corpus again."
        )
    return features


def _read_words(path: Path, documents: int) -> WordIndex:
    words = WordIndex.load(path)
    if len(words) != documents:
        raise ValueError(
            f"{path} holds words of {len(words)} documents, not {documents}; index the corpus again."
        )
    return words
