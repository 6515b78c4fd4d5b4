"""What a search finds for labelled queries: the candidates that there are to rerank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..evaluation import membership
from ..indexes import WordIndex, search_flat
from .hybrid import cosines_of, merge_ranks, take_from
from .labelled import LabelledQueries


@dataclass(frozen=True)
class RetrievedCandidates:
    """What the retriever ranks for labelled queries.

    Args:
        queries: `(n, dim)`.
        rows: Retrieved documents, best first, `(n, depth)`; -1 where there are none.
        cosines: Their cosines, `(n, depth)`; -inf where there are none.
        relevant: Whether they are labelled relevant, `(n, depth)`.
        irrelevant: Whether they were judged and aren't relevant, `(n, depth)`.
        num_relevant: Labelled documents of each query in the whole corpus, `(n,)`.
        words: Counts of the queries' words, `(n, vocabulary)`.
    """

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray
    relevant: np.ndarray
    irrelevant: np.ndarray
    num_relevant: np.ndarray
    words: csr_array | None = None

    @classmethod
    def retrieve(
        cls, labelled: LabelledQueries, documents: np.ndarray, depth: int, words: WordIndex | None = None
    ) -> RetrievedCandidates:
        """Search the documents for each query, by words too if they are given, without those left out.

        Args:
            labelled: The queries.
            documents: Embeddings to search, `(m, dim)`.
            depth: Number of candidates per query.
            words: The documents' words.
        """
        embeddings, positives, counts, negatives, excluded = labelled
        cosines, rows = search_flat(embeddings, documents, min(depth, len(documents)), excluded=excluded)
        if words is not None and counts is not None:
            _, found = words.search(counts, depth)
            if excluded is not None:
                found = np.where(membership(found, excluded), -1, found)
            rows = merge_ranks(rows, found, depth)
            cosines = cosines_of(embeddings, rows, take_from(documents))
        relevant = membership(rows, positives)
        irrelevant = np.zeros_like(relevant) if negatives is None else membership(rows, negatives)
        return cls(embeddings, rows, cosines, relevant, irrelevant, labelled.num_relevant, counts)
