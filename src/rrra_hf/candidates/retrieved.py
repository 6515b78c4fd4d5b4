"""What a search finds for labelled queries: the candidates that there are to rerank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..indexes import search_flat
from .labelled import KnownPositives, LabelledQueries


@dataclass(frozen=True)
class RetrievedCandidates:
    """What the retriever ranks for labelled queries.

    Args:
        queries: `(n, dim)`.
        rows: Retrieved documents, best first, `(n, depth)`.
        cosines: Their cosines, `(n, depth)`.
        relevant: Whether they are labelled relevant, `(n, depth)`.
        num_relevant: Labelled documents of each query in the whole corpus, `(n,)`.
        words: Counts of the queries' words, `(n, vocabulary)`.
    """

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray
    relevant: np.ndarray
    num_relevant: np.ndarray
    words: csr_array | None = None

    @classmethod
    def retrieve(cls, labelled: LabelledQueries, documents: np.ndarray, depth: int) -> RetrievedCandidates:
        """Search the documents for each query."""
        cosines, rows = search_flat(labelled.embeddings, documents, min(depth, len(documents)))
        known = KnownPositives(labelled.positives, len(documents))
        relevant = known.contains(np.arange(len(rows))[:, None], rows)
        return cls(labelled.embeddings, rows, cosines, relevant, labelled.num_relevant, labelled.words)
