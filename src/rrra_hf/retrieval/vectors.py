"""Reranking of vectors that a database found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation import reorder
from ..models.adapter_rrra import RetrieverAdapter

# Pairs of query and document that the adapter reads at a time.
PAIRS = 2048


def rerank_vectors(
    adapter: RetrieverAdapter,
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    rows: np.ndarray | Sequence[Sequence[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Rerank what a vector database found, given the embeddings alone.

    The score is computed from cosines, whatever distance the database uses. If the adapter has linear maps,
    they are applied here. Search the database with `adapter.map_queries(query_embeddings)`.

    Args:
        adapter: An adapter that was fitted on embeddings of the same encoder.
        query_embeddings: `(n, dim)`, as the encoder returned them.
        document_embeddings: `(m, dim)`, likewise, memory-mapped or not. Only the rows found are read.
        rows: Rows of the documents found for each query, `(n, k)`.

    Returns:
        Rows, best first, and their scores, both `(n, k)`.

    Raises:
        ValueError: If a shape is wrong, a row doesn't exist, a value is not finite, or the adapter reads
            words.

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
    scores = np.empty(rows.shape, dtype=np.float32)
    step = max(1, PAIRS // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        found = np.asarray(document_embeddings[block.reshape(-1)])
        documents = adapter.map_documents(found).reshape(*block.shape, -1)
        queries = adapter.map_queries(np.asarray(query_embeddings[start : start + step]))
        scores[start : start + step] = adapter.rerank(queries, documents)
    return reorder(rows, scores), reorder(scores, scores)
