"""Reranking of vectors that a database found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..candidates import DocumentFeatures, read_candidates
from ..evaluation import reorder
from ..models.adapter_rrra import RetrieverAdapter


def rerank_vectors(
    adapter: RetrieverAdapter,
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    rows: np.ndarray | Sequence[Sequence[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Rerank what a vector database found, given the embeddings alone. Words are not read.

    The score is computed from cosines, whatever distance the database uses. If the adapter has linear maps,
    they are applied here. Search the database with `adapter.map_queries(query_embeddings)`.

    Args:
        adapter: `RetrieverAdapter.pretrained()`, or one that was fitted on embeddings of the same encoder.
        query_embeddings: `(n, dim)`, as the encoder returned them.
        document_embeddings: `(m, dim)`, likewise, memory-mapped or not. Only the rows found are read.
        rows: Rows of the documents found for each query, `(n, k)`.

    Returns:
        Rows, best first, and their scores, both `(n, k)`.

    Raises:
        ValueError: If a shape is wrong, a row doesn't exist, a value is not finite, or the adapter is of an
            earlier version and needs word pieces.

    Example:
        >>> from rrra_hf import AdapterConfig
        >>> adapter = RetrieverAdapter(AdapterConfig(embedding_dim=2, lambda_=0.1))
        >>> rows, _ = rerank_vectors(adapter, np.array([[1.0, 0.0]]), np.eye(2), [[1, 0]])
        >>> rows.tolist()
        [[0, 1]]
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.ndim != 2 or len(rows) != len(query_embeddings):
        raise ValueError(f"rows must be (n, k) for {len(query_embeddings)} queries, got {rows.shape}.")
    if rows.size and (rows.min() < 0 or rows.max() >= len(document_embeddings)):
        raise ValueError(
            f"rows must be in [0, {len(document_embeddings)}), got {rows.min()} to {rows.max()}."
        )
    found, places = np.unique(rows, return_inverse=True)
    documents = adapter.map_documents(np.asarray(document_embeddings[found], dtype=np.float32))
    queries = adapter.map_queries(np.asarray(query_embeddings, dtype=np.float32))
    features = DocumentFeatures.of(adapter.reader, [documents], None)
    reading = read_candidates(adapter, queries, places.reshape(rows.shape), documents.__getitem__, features)
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    return reorder(rows, scores), reorder(scores, scores)
