"""BM25, and what joins it to the encoder without any label."""

from __future__ import annotations

import numpy as np
import torch

from ...candidates import add_words
from ...candidates.hybrid import cosines_of, take_from
from ...candidates.words import shared_words
from ...evaluation import reorder
from ...models.features_rrra import standard_scores
from ..ranking import RANKED, Rank, searcher, system
from ..task import Queries
from ..trial import Trial
from .maps import encoder


@system("bm25", "BM25 on the stems of the texts' words", seeded=False)
def bm25(trial: Trial) -> Rank:
    """Rank by BM25."""
    words, k = trial.task.words, max(trial.arguments.fit.depth, RANKED)
    return lambda queries: words.search(words.count(queries.texts), k)[1]


@system("rrf", "reciprocal rank fusion of the encoder and BM25", seeded=False)
def reciprocal_rank_fusion(trial: Trial) -> Rank:
    """Fuse the rankings of encoder and BM25."""
    return searcher(trial.task.documents, trial.arguments.fit.depth, words=trial.task.words)


@system("mix", "sum of the standard scores of the encoder and BM25, among the best of both", seeded=False)
def mix(trial: Trial) -> Rank:
    """Rank hybrid candidates by the sum of their standard scores."""
    words, documents, search = trial.task.words, trial.task.documents, encoder(trial)

    def rank(queries: Queries) -> np.ndarray:
        found, counts = search(queries), words.count(queries.texts)
        rows = add_words(found, words, counts, max(trial.arguments.fit.depth, RANKED))
        cosines = cosines_of(queries.embeddings, rows, take_from(documents))
        return reorder(rows, summed(cosines, shared_words(words, counts, rows)[0], rows))

    return rank


def summed(cosines: np.ndarray, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Add up the standard scores of cosines and of BM25 among each query's candidates.

    Args:
        cosines: `(n, k)`.
        words: BM25 scores, `(n, k)`.
        rows: Rows of the candidates, `(n, k)`; -1 where there is none.

    Returns:
        `(n, k)`; -inf where there is no candidate.

    Example:
        >>> summed(np.array([[0.6, 0.4]]), np.array([[2.0, 0.0]]), np.array([[0, 1]])).round(3).tolist()
        [[2.0, -2.0]]
    """
    present = torch.from_numpy(rows >= 0)
    by_encoder, by_words = (standard_scores(torch.from_numpy(x), present) for x in (cosines, words))
    return (by_encoder + by_words).masked_fill(~present, -torch.inf).numpy()
