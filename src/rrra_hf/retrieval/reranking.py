"""Reranking what an index found: rows and cosines in, rows and scores out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.nn import functional as F

from ..candidates import DocumentFeatures
from ..evaluation import reorder
from ..indexes import Index
from ..models.adapter_rrra import RetrieverAdapter
from ..models.features_rrra import CandidateFeatures

# Pairs of query and document that the adapter reads at a time: its activations are a few MB then.
PAIRS = 2048


def rerank(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    cosines: np.ndarray,
    depth: int,
    features: DocumentFeatures | None = None,
    words: csr_array | None = None,
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
        features: Features of the documents, if the adapter reads features.
        words: Counts of the queries' words, `(n, vocabulary)`, if it reads words.

    Returns:
        Rows `(n, k)` and scores `(n, k)`.

    Raises:
        ValueError: If the adapter gives NaN or infinite scores.
    """
    head, rest = np.s_[:, :depth], np.s_[:, depth:]
    scores = np.empty(rows[head].shape, dtype=np.float32)
    with torch.inference_mode():
        for block in _blocks(scores.shape, whole_rows=features is not None):
            candidates, known = _known(adapter, index, queries, rows[head][block], features, words, block[0])
            scores[block] = adapter.eval().rerank(queries[block[0]], candidates, cosines[head][block], known)
    if not np.isfinite(scores).all():
        raise ValueError("The adapter gave NaN or infinite scores; its weights may be damaged.")
    return (
        np.concatenate([reorder(rows[head], scores), rows[rest]], axis=1),
        np.concatenate([reorder(scores, scores), cosines[rest]], axis=1),
    )


def relevance(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    features: DocumentFeatures | None = None,
    words: csr_array | None = None,
) -> np.ndarray:
    """Return the probability that each document found is relevant to its query.

    Args:
        adapter: The adapter.
        index: The index that was searched.
        queries: Embeddings of the queries, `(n, dim)`.
        rows: Rows of documents, `(n, k)`.
        features: Features of the documents, if the adapter reads features.
        words: Counts of the queries' words, `(n, vocabulary)`, if it reads words.

    Returns:
        Probabilities in [0, 1], `(n, k)`.
    """
    probability = np.empty(rows.shape, dtype=np.float32)
    with torch.inference_mode():
        for block in _blocks(rows.shape, whole_rows=features is not None):
            candidates, known = _known(adapter, index, queries, rows[block], features, words, block[0])
            probability[block] = adapter.eval().probability(queries[block[0]], candidates, known)
    return probability


def _known(
    adapter: RetrieverAdapter,
    index: Index,
    queries: np.ndarray,
    rows: np.ndarray,
    features: DocumentFeatures | None,
    words: csr_array | None,
    block: slice,
) -> tuple[np.ndarray, CandidateFeatures | None]:
    """Return the embeddings of candidates of a block of queries, and what is known of them beside."""
    candidates = index.reconstruct(rows)
    if features is None or adapter.features is None:
        return candidates, None
    q = torch.from_numpy(np.array(queries[block], dtype=np.float32)).to(adapter.features.idf.device)
    asked = None if words is None else words[block]
    return candidates, features.of_candidates(adapter.features, F.normalize(q, dim=-1), asked, rows)


def _blocks(shape: tuple[int, ...], whole_rows: bool) -> Iterator[tuple[slice, slice]]:
    """Cut a matrix into blocks of at most `PAIRS` entries, or of whole rows for heads that compare them."""
    height, width = shape
    step = max(1, PAIRS // width)
    columns = width if whole_rows else PAIRS
    for top in range(0, height, step):
        for left in range(0, width, columns):
            yield slice(top, top + step), slice(left, left + columns)
