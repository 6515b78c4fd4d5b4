"""The texts of the pairs of a pool."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...candidates import CandidatePool
from ...data import Collection
from ..judges.base import Texts


class Suspect(NamedTuple):
    """An unlabelled document that may be relevant to a query.

    Args:
        query_id: Id of the query.
        document_id: Id of the document.
        query: Text of the query.
        document: Title and text of the document.
        labelled: Titles and texts of the documents that are labelled as relevant.
        probability: Probability that the document is relevant.
    """

    query_id: str
    document_id: str
    query: str
    document: str
    labelled: list[str]
    probability: float


class PairTexts:
    """Texts of the queries of a pool and of their candidates.

    Args:
        collection: The collection.
        pool: Candidates of some of its queries.

    Raises:
        ValueError: If the pool has other documents than the collection, or other queries.

    Example:
        >>> from rrra_hf import load_collection
        >>> collection = load_collection([{"query": "what swims", "answer": "A fish."}])
        >>> pool = CandidatePool(
        ...     query_ids=collection.query_ids, document_ids=collection.document_ids,
        ...     positives=[np.array([], int)], candidates=np.array([[0]]), scores=np.array([[0.5]]),
        ... )
        >>> PairTexts(collection, pool).texts(np.array([[0, 0]]))
        [('what swims', 'A fish.')]
    """

    def __init__(self, collection: Collection, pool: CandidatePool):
        if pool.document_ids != collection.document_ids:
            raise ValueError("pool must have the documents of the collection; mine it again.")
        row_of = {query_id: row for row, query_id in enumerate(collection.query_ids)}
        missing = [query_id for query_id in pool.query_ids if query_id not in row_of]
        if missing:
            raise ValueError(f"pool must have queries of the collection, {missing[0]!r} isn't one.")
        self._pool = pool
        self._documents = collection.document_texts
        self._queries = [collection.query_texts[row_of[query_id]] for query_id in pool.query_ids]

    def texts(self, pairs: np.ndarray) -> list[Texts]:
        """Return the texts of query and document of each pair.

        Args:
            pairs: Rows of queries and places of candidates, `(n, 2)`.
        """
        candidates = self._pool.candidates
        return [(self._queries[row], self._documents[candidates[row, place]]) for row, place in pairs]

    def ids(self, row: int, place: int) -> tuple[str, str]:
        """Return the ids of query and document."""
        return self._pool.query_ids[row], self._pool.document_ids[self._pool.candidates[row, place]]

    def suspect(self, row: int, place: int, probability: float) -> Suspect:
        """Return a pair with all that is shown of it."""
        ((query, document),) = self.texts(np.array([[row, place]]))
        labelled = [self._documents[positive] for positive in self._pool.positives[row]]
        return Suspect(*self.ids(row, place), query, document, labelled, probability)
