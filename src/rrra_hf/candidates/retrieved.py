"""What a search finds for labelled queries: the candidates that there are to rerank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..indexes import WordIndex, search_flat
from .hybrid import add_words, cosines_of, take_from
from .labelled import KnownPositives, LabelledQueries


@dataclass(frozen=True)
class RetrievedCandidates:
    """What the retriever ranks for labelled queries.

    Args:
        queries: `(n, dim)`.
        rows: Retrieved documents, best first, `(n, depth)`; -1 where there are none.
        cosines: Their cosines, `(n, depth)`; -inf where there are none.
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
    def retrieve(
        cls, labelled: LabelledQueries, documents: np.ndarray, depth: int, words: WordIndex | None = None
    ) -> RetrievedCandidates:
        """Search the documents for each query, by words too if they are given.

        Args:
            labelled: The queries.
            documents: Embeddings to search, `(m, dim)`.
            depth: Number of candidates per query.
            words: The documents' words.
        """
        cosines, rows = search_flat(labelled.embeddings, documents, min(depth, len(documents)))
        if words is not None and labelled.words is not None:
            rows = add_words(rows, words, labelled.words, depth)
            cosines = cosines_of(labelled.embeddings, rows, take_from(documents))
        known = KnownPositives(labelled.positives, len(documents))
        relevant = (rows >= 0) & known.contains(np.arange(len(rows))[:, None], rows)
        return cls(labelled.embeddings, rows, cosines, relevant, labelled.num_relevant, labelled.words)
