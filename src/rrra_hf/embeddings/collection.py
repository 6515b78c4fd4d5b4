"""Encode a whole collection."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from .encode import encode
from .fingerprint import encoder_fingerprint, texts_fingerprint

if TYPE_CHECKING:
    from ..data import Collection


class CollectionEmbeddings(NamedTuple):
    """Embeddings of a collection, with fingerprints of their sources.

    Args:
        queries: `(n_queries, dim)` float32, rows in the order of `collection.query_ids`.
        documents: `(n_documents, dim)` float32, rows in the order of `collection.document_ids`.
        fingerprint: Fingerprints of the `encoder`, the `corpus` and the `queries`.
    """

    queries: np.ndarray
    documents: np.ndarray
    fingerprint: dict[str, str]


def embed_collection(
    collection: Collection,
    encoder: SentenceTransformer,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    show_progress_bar: bool | None = None,
) -> CollectionEmbeddings:
    """Encode the documents and the queries of a collection.

    Args:
        collection: The collection. To encode only the queries of a split, pass `collection.split(name)`.
        encoder: The encoder.
        cache_dir: Cache folder, see `encode`.
        batch_size: Encoder batch size.
        show_progress_bar: Show a progress bar. None shows one on a terminal only.

    Raises:
        ValueError: If there are no queries or no documents, or the encoder returns NaN.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from rrra_hf import load_collection
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "list"])])
        >>> collection = load_collection([{"query": "copy", "answer": "copy a file"}])
        >>> embeddings = embed_collection(collection, encoder)
        >>> embeddings.queries.shape, embeddings.documents.shape
        ((1, 3), (1, 3))
    """
    queries, documents = list(collection.query_texts), list(collection.document_texts)
    for name, texts in (("queries", queries), ("documents", documents)):
        if not texts:
            raise ValueError(f"collection must have {name}, got none.")
    fingerprint = {
        "encoder": encoder_fingerprint(encoder),
        "corpus": texts_fingerprint(documents),
        "queries": texts_fingerprint(queries),
    }
    encode_all = partial(
        encode, encoder, cache_dir=cache_dir, batch_size=batch_size, show_progress_bar=show_progress_bar
    )
    return CollectionEmbeddings(
        queries=encode_all(queries, task="query"),
        documents=encode_all(documents, task="document"),
        fingerprint=fingerprint,
    )
