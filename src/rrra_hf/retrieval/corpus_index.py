"""An indexed corpus on disk: the index, the documents, and fingerprints of what made it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..candidates import DocumentFeatures
from ..embeddings import texts_fingerprint
from ..indexes import Index, load_index
from ..models.files_rrra import read_meta, write_json
from .documents import SCHEMA, document_texts

VECTORS_NAME = "vectors.faiss"
DOCUMENTS_NAME = "documents.parquet"
FEATURES_NAME = "features.safetensors"
META_NAME = "meta.json"
FILE_NAMES = (VECTORS_NAME, DOCUMENTS_NAME, FEATURES_NAME, META_NAME)
FORMAT_VERSION = 2


@dataclass(eq=False)
class CorpusIndex:
    """The documents of a corpus and the index of their embeddings, row for row.

    Args:
        index: Index of the embeddings.
        documents: Columns `id`, `title` and `text`.
        encoder: Fingerprint of the model that made the embeddings.
        corpus: Fingerprint of the documents' texts.
        features: What the adapter needs of each document beside its embedding, if it reads features.
    """

    index: Index
    documents: pa.Table
    encoder: str
    corpus: str
    features: DocumentFeatures | None = None

    @cached_property
    def ids(self) -> list[str]:
        """Document ids, by row."""
        return self.documents["id"].to_pylist()

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each document id."""
        return {document_id: row for row, document_id in enumerate(self.ids)}

    def document(self, corpus_id: str) -> dict[str, str]:
        """Return a document's `id`, `title` and `text`.

        Raises:
            KeyError: If there is no document of that id.
        """
        if corpus_id not in self.row_of:
            raise KeyError(f"No document {corpus_id!r} in the index.")
        return self.documents.slice(self.row_of[corpus_id], 1).to_pylist()[0]

    def save(self, directory: Path) -> None:
        """Write the files of the index to a new folder."""
        directory.mkdir()
        self.index.save(directory / VECTORS_NAME)
        pq.write_table(self.documents, directory / DOCUMENTS_NAME)
        if self.features is not None:
            self.features.save(directory / FEATURES_NAME)
        meta = {
            "format_version": FORMAT_VERSION,
            "documents": len(self.index),
            "dim": self.index.dim,
            "encoder": self.encoder,
            "corpus": self.corpus,
            "features": self.features is not None,
        }
        write_json(directory / META_NAME, meta)

    @classmethod
    def load(cls, directory: Path, encoder: str) -> CorpusIndex:
        """Read an index that `save` wrote.

        Args:
            directory: The folder.
            encoder: Fingerprint of the model that is to search it.

        Raises:
            ValueError: If another model made it, or if a file of it is missing, damaged or doesn't belong
                to the others; the message names the file.
        """
        meta = read_meta(
            directory / META_NAME, {FORMAT_VERSION}, ("documents", "dim", "encoder", "corpus", "features")
        )
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
        features = DocumentFeatures.load(directory / FEATURES_NAME) if meta["features"] else None
        if features is not None and len(features.statics) != len(index):
            raise ValueError(
                f"{directory / FEATURES_NAME} is of {len(features.statics)} documents, not {len(index)}; "
                "index the corpus again."
            )
        return cls(index, documents, encoder, corpus, features)


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
