"""Indexing texts: their embeddings, their words, and what an adapter reads of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from ..candidates import DocumentFeatures, WordPieces
from ..embeddings import encode
from ..embeddings.storage import scratch_matrix
from ..indexes import Index, WordIndex, make_index
from ..models.adapter_rrra import RetrieverAdapter
from ..models.reader_v2_rrra import Version2Reader
from .corpus_index import IndexedDocuments, no_features

# Embeddings handled at a time. They may be memory-mapped.
BLOCK_SIZE = 4096


def index_texts(
    texts: list[str],
    encoder: SentenceTransformer,
    beside: RetrieverAdapter | None,
    adapter: RetrieverAdapter | None,
    kind: str,
    language: str,
    *,
    storage: str = "float32",
    show_progress_bar: bool | None,
    embeddings: np.ndarray | None = None,
    **options: Any,
) -> IndexedDocuments:
    """Index the embeddings and the words of texts.

    Args:
        texts: The documents.
        encoder: The encoder.
        beside: An adapter that is not the encoder's own, whose map is applied to the embeddings.
        adapter: The adapter, also if it is the encoder's own.
        kind: Kind of index of the embeddings, see `make_index`.
        language: Language of the words, see `WordIndex.of`.
        storage: Storage of the embeddings, see `make_index`.
        show_progress_bar: Show a progress bar; by default, only on a terminal.
        embeddings: Embeddings of the texts from the encoder; by default, they are encoded here.
        options: Arguments of `encode`.

    Raises:
        ValueError: If the language isn't known, or the encoder gives NaN.
    """
    words = None
    # Adapters of format version 2 and before rank the candidates of a search by embeddings.
    if adapter is None or not isinstance(adapter.reader, Version2Reader):
        words = WordIndex.of(texts, language, show_progress_bar=show_progress_bar)
    if embeddings is None:
        embeddings = encode(encoder, texts, task="document", show_progress_bar=show_progress_bar, **options)
    index = make_index(embeddings.shape[1], len(embeddings), kind, storage=storage)
    # All at once: an approximate index is trained on a sample of what it is given first.
    index.add(mapped(embeddings, beside))
    return IndexedDocuments(index, document_features(encoder, adapter, index, words, texts), words)


def document_features(
    encoder: SentenceTransformer,
    adapter: RetrieverAdapter | None,
    index: Index,
    words: WordIndex | None,
    texts: Sequence[str],
) -> DocumentFeatures:
    """Return what an adapter reads of indexed documents.

    Args:
        encoder: The encoder.
        adapter: The adapter.
        index: Index of the embeddings.
        words: The documents' words.
        texts: The documents, for an adapter that reads word pieces.

    Raises:
        ValueError: If the adapter reads word pieces, and the encoder has no tokenizer of transformers.
    """
    if adapter is None or not adapter.reader.remembers:
        return no_features(len(index), words if adapter is not None and adapter.reads_words else None)
    blocks = (
        index.reconstruct(np.arange(start, min(start + BLOCK_SIZE, len(index))))
        for start in range(0, len(index), BLOCK_SIZE)
    )
    pieces = WordPieces(encoder, texts) if reads_word_pieces(adapter) else None
    return DocumentFeatures.of(adapter.reader, blocks, pieces or words)


def check_document_features(
    features: DocumentFeatures, adapter: RetrieverAdapter, dim: int, directory: Path
) -> None:
    """Refuse features of indexed documents that are not those that an adapter reads.

    Args:
        features: Features that were read from a folder.
        adapter: The adapter, of the memory that they were computed with.
        dim: Dimension of the embeddings.
        directory: The folder.

    Raises:
        ValueError: If there are other features, or word pieces of another vocabulary.
    """
    reader = adapter.reader
    document = torch.zeros(1, dim, device=next(reader.parameters()).device)
    expected, vocabulary = reader.document_statics(document).shape[1], None
    if isinstance(reader, Version2Reader) and reader.reads_word_pieces:
        vocabulary = len(reader.memory.idf)
    pieces = None if features.pieces is None else features.pieces.shape[1]
    if (features.statics.shape[1], pieces) != (expected, vocabulary):
        raise ValueError(
            f"{directory} is damaged: it has {features.statics.shape[1]} features and {pieces} word pieces, "
            f"the adapter reads {expected} and {vocabulary}; index the corpus again."
        )


def reads_word_pieces(adapter: RetrieverAdapter | None) -> bool:
    """Return whether an adapter can't do without the word pieces of the encoder's tokenizer."""
    return adapter is not None and adapter.reader.reads_word_pieces


def mapped(embeddings: np.ndarray, beside: RetrieverAdapter | None) -> np.ndarray:
    """Return the embeddings to index, from those of the encoder. Mapped ones are in a temporary file."""
    # The embeddings of an RRRAModel are mapped already.
    if beside is None or beside.document_map is None:
        return embeddings
    with tempfile.TemporaryFile() as file:
        result = scratch_matrix(file, *embeddings.shape)
    for start in range(0, len(embeddings), BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        result[block] = beside.map_documents(embeddings[block])
    return result
