"""Probabilities of training candidates, by heads that never saw the labels of their queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_array

from ..candidates import CandidatePool, LabelledQueries
from ..candidates.reading import Judged
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import AnyFitArguments, FitArguments, ResidualFitArguments
from .checks import check_pool, check_words
from .features import cross_fit_features
from .residual import cross_fit_residual

CROSS_FITS: dict[type, Callable[..., Judged]] = {
    FitArguments: cross_fit_features,
    ResidualFitArguments: cross_fit_residual,
}


def cross_fit(
    pool: CandidatePool,
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    *,
    development: LabelledQueries | None = None,
    arguments: AnyFitArguments | None = None,
    folds: int = 5,
    query_words: csr_array | None = None,
    document_words: WordIndex | None = None,
    adapter: RetrieverAdapter | None = None,
) -> CandidatePool:
    """Return the pool with the probability that each candidate is relevant.

    The queries are dealt into folds, and the labels of a fold tell nothing about its own queries. With
    `FitArguments`, the adapter that comes trained judges, at a level that the other folds tell. With
    `ResidualFitArguments`, the probabilities of a fold come from an adapter, maps included, that was fitted
    on the other folds: one that had seen the query would call every candidate but its labelled positives
    irrelevant, because it was taught so.

    Args:
        pool: Candidates of `n` queries. Known negatives among them get the probability 0.
        query_embeddings: Embeddings of the pool's queries, `(n, dim)`.
        document_embeddings: Embeddings of the corpus, `(m, dim)`.
        development: Development queries; if not given, some of the queries are held out.
        arguments: Settings of each fit, as in `fit_adapter`.
        folds: Number of folds, at least 2.
        query_words: Counts of the queries' words, see `fit_adapter`.
        document_words: The documents' words.
        adapter: Judges in place of the one that comes trained.

    Returns:
        A copy of the pool with `probability`; and with `ranking_scores` unless residual adapters are fitted.

    Raises:
        ValueError: If there are fewer queries than folds, or fewer than two folds.

    Source:
        Cross-fitting: Chernozhukov et al. 2018, "Double/debiased machine learning", definition 3.1.

    Example:
        >>> from rrra_hf import mine_embeddings
        >>> rng = np.random.default_rng(0)
        >>> documents = rng.normal(size=(50, 16)).astype(np.float32)
        >>> queries = documents[:20] + rng.normal(size=(20, 16)).astype(np.float32)
        >>> pool = mine_embeddings(queries, documents, [[row] for row in range(20)], depth=10)
        >>> cross_fit(pool, queries, documents, folds=2).probability.shape
        (20, 10)
    """
    arguments = arguments or FitArguments()
    if not 2 <= folds <= len(pool):
        raise ValueError(f"folds must lie between 2 and the number of queries, {len(pool)}; got {folds}.")
    check_pool(pool, query_embeddings, document_embeddings)
    check_words(query_words, document_words, development, len(query_embeddings), len(document_embeddings))
    training = LabelledQueries(query_embeddings, pool.positives, query_words, pool.negatives, pool.excluded)
    estimate = CROSS_FITS[type(arguments)]
    with torch.random.fork_rng(devices=[]):
        judged = estimate(
            training,
            pool.candidates,
            document_embeddings,
            document_words,
            development,
            arguments,
            folds,
            adapter,
        )
    return replace(pool, probability=judged.probability, ranking_scores=judged.ranking_scores)
