"""Pseudo-relevance feedback on embeddings."""

from __future__ import annotations

import numpy as np

from ..ranking import Rank, development_quality, searcher, system
from ..task import Queries
from ..trial import Trial

# Numbers of feedback documents and their weights. The first weight is no feedback.
DOCUMENTS = (1, 2, 3, 5, 10)
WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)


@system("prf", "pseudo-relevance feedback: the query plus the mean of its first documents")
def pseudo_relevance_feedback(trial: Trial) -> Rank:
    """Search, add the weighted mean of the first documents to the query, and search again.

    The number of documents and their weight are chosen on development queries.

    Source:
        Rocchio 1971, on embeddings as in Li et al. 2022, "Pseudo Relevance Feedback with Deep Language Models
        and Dense Retrievers".
    """
    documents = trial.task.documents
    search = searcher(documents, trial.arguments.fit.depth)

    def rank_with(count: int, weight: float) -> Rank:
        def rank(queries: Queries) -> np.ndarray:
            first = search(queries)
            if not weight:
                return first
            feedback = np.asarray(documents[first[:, :count]]).mean(axis=1)
            return search(queries._replace(embeddings=queries.embeddings + weight * feedback))

        return rank

    settings = [(count, weight) for count in DOCUMENTS for weight in WEIGHTS]
    ranks = (rank_with(*setting) for setting in settings)
    return max(ranks, key=lambda rank: development_quality(rank, trial))
