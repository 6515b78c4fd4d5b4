"""Reranking with a cross-encoder."""

from __future__ import annotations

import numpy as np

from ...evaluation import reorder
from ..cross_encoder import cross_encoder_scores
from ..ranking import Rank, system
from ..task import Queries
from ..trial import Trial
from .maps import encoder


@system(
    "cross-encoder",
    "cross-encoder on the encoder's candidates",
    settings=("fit", "cross_encoder"),
    seeded=False,
    needs="cross_encoder",
)
def cross_encoder(trial: Trial) -> Rank:
    """Rerank the encoder's candidates with a model that reads both texts."""
    search, depth = encoder(trial), trial.arguments.fit.depth

    def rank(queries: Queries) -> np.ndarray:
        rows = search(queries).copy()
        documents = trial.task.collection.document_texts
        scores = cross_encoder_scores(trial, queries.texts, documents, rows[:, :depth])
        rows[:, :depth] = reorder(rows[:, :depth], scores)
        return rows

    return rank
