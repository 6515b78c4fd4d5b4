"""False-negative probabilities of training candidates, by heads that never saw the query's labels."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from ..candidates import CandidatePool, LabelledQueries
from ..candidates.reading import candidate_probabilities
from .arguments import FitArguments
from .features import cross_fit_features
from .fit import check_pool, check_words, fit_adapter

logger = logging.getLogger(__name__)


def cross_fit(
    pool: CandidatePool,
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    *,
    development: LabelledQueries | None = None,
    arguments: FitArguments | None = None,
    folds: int = 5,
    query_words: csr_array | None = None,
    document_words: csr_array | None = None,
) -> CandidatePool:
    """Return the pool with the false-negative probability of every candidate.

    The queries are dealt into folds; the candidates of a fold are judged by an adapter (maps
    included) fitted on the other folds. A head that had seen the query would call every candidate
    that is not its labelled positive irrelevant, for that is what it was taught.

    Args:
        pool: Candidates, `n` queries.
        query_embeddings: Embeddings of the pool's queries, `(n, dim)`.
        document_embeddings: Embeddings of the corpus, `(m, dim)`.
        development: Development queries; if not given, each fold's fit holds out some of its own.
        arguments: Settings of each fit.
        folds: Number of folds, at least 2.
        query_words: Counts of the queries' words, see `fit_adapter`.
        document_words: Counts of the documents' words.

    Returns:
        A copy of the pool with `probability`.

    Raises:
        ValueError: If there are fewer queries than folds, or fewer than two folds.

    Source:
        Cross-fitting: Chernozhukov et al. 2018, "Double/debiased machine learning", definition 3.1.
    """
    arguments = arguments or FitArguments()
    if not 2 <= folds <= len(pool):
        raise ValueError(f"folds must lie between 2 and the number of queries, {len(pool)}; got {folds}.")
    if arguments.features:
        check_pool(pool, query_embeddings, document_embeddings)
        check_words(query_words, document_words, development, len(query_embeddings), len(document_embeddings))
        training = LabelledQueries(query_embeddings, pool.positives, query_words)
        judged_by_features = cross_fit_features(
            training, pool.candidates, document_embeddings, development, arguments, document_words, folds
        )
        return replace(pool, probability=judged_by_features)
    probabilities = np.empty(pool.candidates.shape, dtype=np.float32)
    dealt = np.random.default_rng(arguments.seed).permutation(len(pool)) % folds
    for fold in range(folds):
        judged, taught = np.flatnonzero(dealt == fold), np.flatnonzero(dealt != fold)
        adapter = fit_adapter(
            query_embeddings[taught],
            document_embeddings,
            pool=pool.select(taught),
            development=development,
            arguments=arguments,
        )
        probabilities[judged] = candidate_probabilities(
            adapter, query_embeddings[judged], pool.candidates[judged], document_embeddings
        )
        logger.info("Cross-fitted fold %d of %d", fold + 1, folds)
    return replace(pool, probability=probabilities)
