"""BM25, and its fusion with the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ranking import RANKED, Rank, development_quality, system
from ..task import Queries
from ..trial import Trial
from .maps import encoder

# The constant of Cormack et al. 2009, and weights of BM25 to choose from.
FUSION_CONSTANT = 60
FUSION_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)


@system("bm25", "BM25 on the texts, by bm25s", seeded=False)
def bm25(trial: Trial) -> Rank:
    """Rank by BM25 with the defaults of bm25s: Lucene's form, English stop words, no stemming."""
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("bm25 and rrf need bm25s: pip install 'rrra-hf[compare]'.") from error

    def make() -> Any:
        index = bm25s.BM25()
        tokens = bm25s.tokenize(trial.task.collection.document_texts, show_progress=False)
        index.index(tokens, show_progress=False)
        return index

    index = trial.once("bm25", make)
    k = min(max(trial.arguments.fit.depth, RANKED), len(trial.task.collection.document_ids))

    def rank(queries: Queries) -> np.ndarray:
        tokens = bm25s.tokenize(queries.texts, return_ids=False, show_progress=False)
        return index.retrieve(tokens, k=k, show_progress=False).documents

    return rank


@system("rrf", "reciprocal rank fusion of the encoder and BM25")
def reciprocal_rank_fusion(trial: Trial) -> Rank:
    """Fuse the rankings of encoder and BM25. The weight of BM25 is chosen on development queries.

    Source:
        Cormack et al. 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
        methods".
    """
    by_encoder, by_words = encoder(trial), bm25(trial)

    def rank_with(weight: float) -> Rank:
        return lambda queries: fuse(by_encoder(queries), by_words(queries), weight)

    return max(map(rank_with, FUSION_WEIGHTS), key=lambda rank: development_quality(rank, trial))


def fuse(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Sort the rows of two rankings by the sum of their reciprocal ranks.

    Args:
        first: Row numbers, best first, `(n, k)`.
        second: Row numbers of the other ranking, `(n, j)`.
        weight: Weight of the other ranking.

    Returns:
        Row numbers, `(n, k)`. Ties keep the order of the first ranking.

    Example:
        >>> fuse(np.array([[1, 2, 3]]), np.array([[3, 9, 1]]), weight=2.0).tolist()
        [[3, 1, 9]]
    """
    gains = 1.0 / (FUSION_CONSTANT + 1 + np.arange(max(first.shape[1], second.shape[1])))
    fused = np.empty_like(first)
    for i, rankings in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        scores: dict[int, float] = {}
        for ranking, factor in zip(rankings, (1.0, weight), strict=True):
            for row, gain in zip(ranking, gains, strict=False):
                scores[row] = scores.get(row, 0.0) + factor * gain
        fused[i] = sorted(scores, key=lambda row: -scores[row])[: first.shape[1]]
    return fused
