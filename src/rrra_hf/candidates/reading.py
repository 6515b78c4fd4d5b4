"""Reading candidates with an adapter, in blocks."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import expit
from torch.nn import functional as F

from ..models.adapter_rrra import Reading, RetrieverAdapter
from .document_features import DocumentFeatures
from .labelled import gather

# Pairs that pass through the adapter at a time: bounds memory at d = 384 to about 100 MB.
PAIRS_PER_BLOCK = 16_384


def read_candidates(
    adapter: RetrieverAdapter,
    queries: np.ndarray,
    rows: np.ndarray,
    documents: np.ndarray,
    features: DocumentFeatures | None = None,
    words: csr_array | None = None,
) -> Reading:
    """Return what the adapter makes of each query's candidates, in blocks.

    Args:
        adapter: The adapter.
        queries: Embeddings as searched with, `(n, dim)`.
        rows: Rows of the candidates among the documents, `(n, k)`; -1 is read as any document.
        documents: Embeddings as indexed, `(m, dim)`.
        features: Features of the documents, if the adapter reads features.
        words: Counts of the queries' words, if it reads words.

    Returns:
        Cosines, corrections and logits, `(n, k)` each, float32.
    """
    adapter.eval()
    block = max(1, PAIRS_PER_BLOCK // max(1, rows.shape[1]))
    parts = []
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        q, known = gather(queries, np.arange(len(queries))[part]), None
        if features is not None and adapter.features is not None:
            asked = None if words is None else words[part]
            known = features.of_candidates(adapter.features, F.normalize(q, dim=-1), asked, rows[part])
        parts.append(adapter.read(q, gather(documents, rows[part]), features=known))
    return Reading(*(torch.cat(values) for values in zip(*parts, strict=True)))


def candidate_probabilities(
    adapter: RetrieverAdapter,
    queries: np.ndarray,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: csr_array | None = None,
    document_words: csr_array | None = None,
) -> np.ndarray:
    """Return the probability of relevance of each query's candidates, after the adapter's maps.

    Args:
        adapter: The adapter.
        queries: `(n, dim)`, as the encoder makes them.
        candidates: Rows of the candidates among the documents, `(n, k)`; -1 where there is none.
        documents: `(m, dim)`, as the encoder makes them.
        words: Counts of the queries' words, if the adapter reads words.
        document_words: Counts of the documents' words, likewise.

    Returns:
        `(n, k)`, float32, NaN where there is no candidate.
    """
    mapped = adapter.map_documents(documents)
    features = None
    if adapter.features is not None:
        features = DocumentFeatures.of(adapter.features, [mapped], document_words)
    reading = read_candidates(adapter, adapter.map_queries(queries), candidates, mapped, features, words)
    return np.where(candidates >= 0, expit(reading.logits.numpy()), np.float32(np.nan))
