"""Reranking what an index found: rows and cosines in, rows and scores out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..adapter_rrra import RetrieverAdapter
from ..evaluation import reorder
from ..indexes import Index

# Pairs of query and document that the adapter reads at a time: its activations are a few MB then.
PAIRS = 2048


def rerank(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    cosines: np.ndarray,
    depth: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Reorder the first `depth` documents of each query by their reranking score.

    Equal scores keep their order. The documents below `depth` follow as they are, with their cosines.

    Args:
        adapter: The adapter.
        index: The index that was searched.
        queries: Embeddings of the queries, `(n, dim)`.
        rows: Rows of the documents found, best first, `(n, k)`.
        cosines: Their cosines, `(n, k)`.
        depth: Documents a query to reorder.

    Returns:
        Rows `(n, k)` and scores `(n, k)`.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    head, rest = np.s_[:, :depth], np.s_[:, depth:]
    scores = _reranking_scores(adapter, index, queries, rows[head], cosines[head])
    return (
        np.concatenate([reorder(rows[head], scores), rows[rest]], axis=1),
        np.concatenate([reorder(scores, scores), cosines[rest]], axis=1),
    )


def relevance(adapter: RetrieverAdapter, index: Index, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the probability that each document found is relevant to its query.

    Args:
        adapter: The adapter.
        index: The index that was searched.
        queries: Embeddings of the queries, `(n, dim)`.
        rows: Rows of documents, `(n, k)`.

    Returns:
        Probabilities in [0, 1], `(n, k)`.
    """
    probability = np.empty(rows.shape, dtype=np.float32)
    with torch.inference_mode():
        for block in _blocks(*rows.shape):
            candidates = index.reconstruct(rows[block])
            probability[block] = adapter.eval().false_negative_probability(queries[block[0]], candidates)
    return probability


def _reranking_scores(
    adapter: RetrieverAdapter, index: Index, queries: np.ndarray, rows: np.ndarray, cosines: np.ndarray
) -> np.ndarray:
    scores = np.empty(rows.shape, dtype=np.float32)
    with torch.inference_mode():
        for block in _blocks(*rows.shape):
            candidates = index.reconstruct(rows[block])
            scores[block] = adapter.eval().rerank(queries[block[0]], candidates, cosines[block])
    if not np.isfinite(scores).all():
        raise ValueError("The adapter gave NaN or infinite scores; its weights may be damaged.")
    return scores


def _blocks(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into blocks of at most `PAIRS` entries."""
    step = max(1, PAIRS // width)
    for top in range(0, height, step):
        for left in range(0, width, PAIRS):
            yield slice(top, top + step), slice(left, left + PAIRS)
