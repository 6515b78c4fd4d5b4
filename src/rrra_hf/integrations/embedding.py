"""Embedding with a retriever, shared by the integrations whose tools keep the documents themselves."""

from __future__ import annotations

from collections.abc import Sequence

from ..embeddings import encode
from ..retrieval import Retriever


def embed_query(retriever: Retriever, text: str) -> list[float]:
    """Return what a store is searched with: prompts and the adapter's map of queries are applied.

    Args:
        retriever: A retriever. It needs no index.
        text: The query.

    Returns:
        An embedding of length 1.

    Raises:
        ValueError: In the same cases as `encode`.
    """
    embeddings = encode(retriever.encoder, [text], task="query", show_progress_bar=False)
    return retriever.map_queries(embeddings)[0].tolist()


def embed_documents(retriever: Retriever, texts: Sequence[str]) -> list[list[float]]:
    """Return what a store keeps: prompts and the adapter's map of documents, if it has one, are applied.

    Args:
        retriever: A retriever. It needs no index.
        texts: The documents.

    Returns:
        Embeddings of length 1, one per document.

    Raises:
        ValueError: In the same cases as `encode`.
    """
    if not texts:
        return []
    return retriever.map_documents(encode(retriever.encoder, texts, task="document")).tolist()
