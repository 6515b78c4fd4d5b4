"""An indexed corpus on disk: the index, the documents, and fingerprints of what made it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..candidates import DocumentFeatures
from ..embeddings import texts_fingerprint
from ..hub.layout import INDEX_META_NAME
from ..indexes import Index, load_index
from ..models.files_rrra import read_meta, write_json
from .documents import SCHEMA, document_texts

VECTORS_NAME = "vectors.faiss"
DOCUMENTS_NAME = "documents.parquet"
FORMAT_VERSION = 3
# By format version: the entry that says whether there are features, and the name of their file.
FEATURES = {2: ("evidence", "evidence.safetensors"), 3: ("features", "features.safetensors")}
FILE_NAMES = [VECTORS_NAME, DOCUMENTS_NAME, INDEX_META_NAME, *(name for _, name in FEATURES.values())]


@dataclass(eq=False)
class CorpusIndex:
    """The documents of a corpus and the index of their embeddings, row for row.

    Args:
        index: Index of the embeddings.
        documents: Columns `id`, `title` and `text`.
        encoder: Fingerprint of the model that made the embeddings.
        corpus: Fingerprint of the documents' texts.
        features: Features of the documents that the adapter reads; empty if it precomputes none.
    """

    index: Index
    documents: pa.Table
    encoder: str
    corpus: str
    features: DocumentFeatures

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the documents, by row."""
        return self.documents["id"].to_pylist()

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Rows of the documents, by id."""
        return {document_id: row for row, document_id in enumerate(self.ids)}

    def document(self, corpus_id: str) -> dict[str, str]:
        """Return a document's `id`, `title` and `text`.

        Raises:
            KeyError: If there is no document with that id.
        """
        if corpus_id not in self.row_of:
            raise KeyError(f"No document {corpus_id!r} in the index.")
        return self.documents.slice(self.row_of[corpus_id], 1).to_pylist()[0]

    def save(self, directory: Path) -> None:
        """Write the files of the index to a new folder."""
        directory.mkdir()
        self.index.save(directory / VECTORS_NAME)
        pq.write_table(self.documents, directory / DOCUMENTS_NAME)
        entry, name = FEATURES[FORMAT_VERSION]
        has_features = self.features.statics.size > 0
        if has_features:
            self.features.save(directory / name)
        meta = {
            "format_version": FORMAT_VERSION,
            "documents": len(self.index),
            "dim": self.index.dim,
            "encoder": self.encoder,
            "corpus": self.corpus,
            entry: has_features,
        }
        write_json(directory / INDEX_META_NAME, meta)

    @classmethod
    def load(cls, directory: Path, encoder: str) -> CorpusIndex:
        """Read an index that `save` wrote.

        Args:
            directory: The folder.
            encoder: Fingerprint of the model that is to search it.

        Raises:
            ValueError: If another model made it, or a file is missing, damaged or doesn't belong to the
                others; the message names the file.
        """
        path = directory / INDEX_META_NAME
        version = read_meta(path, FEATURES, ("format_version",))["format_version"]
        entry, name = FEATURES[version]
        meta = read_meta(path, {version}, ("documents", "dim", "encoder", "corpus", entry))
        if meta["encoder"] != encoder:
            raise ValueError(
                f"{directory} was made by another model (fingerprint {meta['encoder']}, this model has "
                f"{encoder}). Load the model that made it, or delete the folder and index the corpus again."
            )
        documents = _read_documents(directory / DOCUMENTS_NAME)
        corpus = texts_fingerprint(document_texts(documents))
        if (documents.num_rows, corpus) != (meta["documents"], meta["corpus"]):
            raise ValueError(
                f"{directory / DOCUMENTS_NAME} holds other documents than were indexed (fingerprint {corpus} "
                f"of {documents.num_rows}, not {meta['corpus']} of {meta['documents']}); index them again."
            )
        index = _read_vectors(directory / VECTORS_NAME)
        if (len(index), index.dim) != (meta["documents"], meta["dim"]):
            raise ValueError(
                f"{directory / VECTORS_NAME} holds {len(index)} embeddings of dimension {index.dim}, "
                f"not {meta['documents']} of {meta['dim']}; index the corpus again."
            )
        features = _read_features(directory / name, len(index)) if meta[entry] else no_features(len(index))
        return cls(index, documents, encoder, corpus, features)


def no_features(documents: int) -> DocumentFeatures:
    """Return the features of documents for which none are precomputed."""
    return DocumentFeatures(np.empty((documents, 0), dtype=np.float32))


def _read_documents(path: Path) -> pa.Table:
    try:
        return pq.read_table(path).select(SCHEMA.names).cast(SCHEMA)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error


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
