"""Reranking what a search found: rows and cosines in, rows, scores and probabilities out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array

from ..candidates import DocumentFeatures, read_candidates
from ..evaluation import reorder
from ..indexes import Index
from ..models.adapter_rrra import RetrieverAdapter


class Reranked(NamedTuple):
    """What `rerank` returns, best first.

    Args:
        rows: Rows of the documents, `(n, k)`.
        scores: Reranking scores of the first `depth` documents, cosines of the others, `(n, k)`.
        probabilities: Probabilities that the first `depth` documents are relevant, `(n, depth)`.
    """

    rows: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray


def rerank(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    cosines: np.ndarray,
    depth: int,
    features: DocumentFeatures,
    words: csr_array | None = None,
) -> Reranked:
    """Sort the first `depth` documents of each query by their reranking scores.

    Equal scores keep their order. The documents below `depth` follow as they are.

    Args:
        adapter: The adapter.
        index: The index that was searched.
        queries: Embeddings of the queries, as searched with, `(n, dim)`.
        rows: Rows of the documents found, best first, `(n, k)`.
        cosines: Their cosines, `(n, k)`.
        depth: Number of documents to rerank per query.
        features: Features of the indexed documents.
        words: Counts of the queries' words, `(n, vocabulary)`, if the adapter reads words.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    first, rest = np.s_[:, :depth], np.s_[:, depth:]
    reading = read_candidates(
        adapter, queries, rows[first], index.reconstruct, features, words, cosines[first]
    )
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    if not np.isfinite(scores).all():
        raise ValueError("The adapter gave NaN or infinite scores; its weights may be damaged.")
    return Reranked(
        np.concatenate([reorder(rows[first], scores), rows[rest]], axis=1),
        np.concatenate([reorder(scores, scores), cosines[rest]], axis=1),
        reorder(torch.sigmoid(reading.relevance).numpy(), scores),
    )


def relevance(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    features: DocumentFeatures,
    words: csr_array | None = None,
) -> np.ndarray:
    """Return the probability that each document found is relevant to its query.

    Args:
        adapter: The adapter.
        index: The index that was searched.
        queries: Embeddings of the queries, as searched with, `(n, dim)`.
        rows: Rows of the documents found, `(n, k)`.
        features: Features of the indexed documents.
        words: Counts of the queries' words, `(n, vocabulary)`, if the adapter reads words.

    Returns:
        Probabilities in [0, 1], `(n, k)`.
    """
    reading = read_candidates(adapter, queries, rows, index.reconstruct, features, words)
    return torch.sigmoid(reading.relevance).numpy()
