"""Fitting an adapter on embeddings that are already there, from any encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from ..candidates import CandidatePool, LabelledQueries, mine_embeddings
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import AnyFitArguments, FitArguments, ResidualFitArguments
from .checks import check_pool, check_words
from .data import FitData, trained_reader
from .features import fit_features
from .residual import fit_residual

FITS: dict[type, Callable[..., RetrieverAdapter]] = {
    FitArguments: fit_features,
    ResidualFitArguments: fit_residual,
}


def fit_adapter(
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray] | None = None,
    *,
    pool: CandidatePool | None = None,
    development: LabelledQueries | None = None,
    arguments: AnyFitArguments | None = None,
    start: RetrieverAdapter | None = None,
    query_words: csr_array | None = None,
    document_words: WordIndex | None = None,
) -> RetrieverAdapter:
    """Fit an adapter on embeddings from any encoder. It takes a minute or two on one core.

    By default, the fit starts from the adapter that comes trained, and keeps of what it fits only what ranks
    unseen queries clearly better: linear maps, a memory of the training queries, and a head that weighs
    features. Every training query is ranked by what was fitted without it. So a few labels change nothing,
    and many change all. The kind of `arguments` decides what is fitted.

    Args:
        query_embeddings: Embeddings of the training queries, `(n, dim)`, memory-mapped or not.
        document_embeddings: Embeddings of the whole corpus, `(m, dim)`, memory-mapped or not.
        positives: Rows of the relevant documents of each training query.
        pool: Candidates mined before, with the positives; given instead of `positives`. Its known negatives
            and excluded documents count too. Where queries are documents themselves, exclude each query's
            own, or the query is taught to avoid itself.
        development: Development queries, which count in the choices and are not fitted on.
        arguments: Settings, `FitArguments` or `ResidualFitArguments`; `FitArguments()` if not given.
        start: The adapter that a fit of features starts from, from `pretrain`; that of the package if not
            given.
        query_words: Counts of the training queries' words, `document_words.count(texts)`. With words, the
            development queries need theirs, too; without them, no words are read.
        document_words: The documents' words, `WordIndex.of(texts)`.

    Returns:
        The adapter, in evaluation mode. `adapter.config.fit` holds what was measured on unseen queries.

    Raises:
        ValueError: If embeddings aren't finite or have different dimensions, a query has no positive, or
            fewer than two queries are given.

    Source:
        RRRA, arXiv 2508.11670, stage 2.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> documents = rng.normal(size=(50, 16)).astype(np.float32)
        >>> queries = documents[:40] + rng.normal(size=(40, 16)).astype(np.float32)
        >>> adapter = fit_adapter(queries, documents, [[row] for row in range(40)])
        >>> adapter.probability(queries[:1], documents[None, :3]).shape
        (1, 3)
    """
    arguments = arguments or FitArguments()
    if (pool is None) == (positives is None):
        raise ValueError("Give either positives or a pool, and not both.")
    if pool is None:
        pool = mine_embeddings(query_embeddings, document_embeddings, positives or [], depth=arguments.depth)
    else:
        check_pool(pool, query_embeddings, document_embeddings)
    check_words(query_words, document_words, development, len(query_embeddings), len(document_embeddings))
    training = LabelledQueries(query_embeddings, pool.positives, query_words, pool.negatives, pool.excluded)
    data = FitData(training, pool.candidates, document_embeddings, development, document_words)
    if start is not None:
        data = data._replace(given_start=trained_reader(start))
    # Networks start at random, also those whose weights are replaced.
    with torch.random.fork_rng(devices=[]):
        adapter = FITS[type(arguments)](data, arguments)
    adapter.config.fit.update(_record(training, len(document_embeddings), arguments))
    return adapter


def _record(training: LabelledQueries, num_documents: int, arguments: AnyFitArguments) -> dict[str, Any]:
    """Return what the adapter was fitted on, and how."""
    data = {
        "queries": len(training.positives),
        "pairs": int(training.num_relevant.sum()),
        "documents": num_documents,
    }
    return {"data": data, "arguments": arguments.to_dict()}
