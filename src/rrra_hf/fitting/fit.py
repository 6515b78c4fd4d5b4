"""Fitting an adapter on embeddings that are already there, from any encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from ..candidates import CandidatePool, LabelledQueries, mine_embeddings
from ..candidates.labelled import RetrievedCandidates, hold_out
from ..embeddings import check_embeddings
from ..models.adapter_rrra import RetrieverAdapter
from .arguments import FitArguments
from .features import fit_features
from .maps import Maps, choose_maps
from .residual import fit_head
from .tuning import calibrate, choose_lambda


def fit_adapter(
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    positives: Sequence[Sequence[int] | np.ndarray] | None = None,
    *,
    pool: CandidatePool | None = None,
    development: LabelledQueries | None = None,
    arguments: FitArguments | None = None,
    query_words: csr_array | None = None,
    document_words: csr_array | None = None,
) -> RetrieverAdapter:
    """Fit an adapter on embeddings of any source; minutes on one core.

    The steps: maps of a frozen stage 1, if asked for; the head; calibration of its probabilities and
    choice of `lambda`, on development queries. A residual head learns from mined candidates, the step's
    other documents and random ones, and is stopped early on the development queries; a head that reads
    features (`arguments.features`) learns from what unseen training queries retrieve. The adapter never
    ranks the development queries worse than the retriever alone: 0 is among the choices for `lambda`.

    Args:
        query_embeddings: Embeddings of the training queries, `(n, dim)`, memory-mapped or not.
        document_embeddings: Embeddings of the whole corpus, `(m, dim)`, memory-mapped or not.
        positives: For each training query the rows of its relevant documents.
        pool: Candidates mined before, with the positives; given instead of `positives`.
        development: Development queries; if not given, a part of the training queries is held out.
        arguments: Settings; the defaults if not given.
        query_words: Counts of the training queries' words, `(n, vocabulary)`, by any tokenizer, for an
            adapter that reads words; the development queries then need theirs, too.
        document_words: Counts of the documents' words, `(m, vocabulary)`.

    Returns:
        The adapter, in evaluation mode. `adapter.config.fit` holds what was measured on the
        development queries.

    Raises:
        ValueError: If embeddings are not finite or of different dimensions, or a query has no
            positive, or fewer than two queries are given.

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
    training = LabelledQueries(query_embeddings, pool.positives, query_words)
    mined = pool.candidates
    if development is None:
        held_out, kept = hold_out(len(pool), arguments.development_fraction, arguments.seed)
        development, training = training.select(held_out), training.select(kept)
        mined = mined[kept]

    if arguments.features:
        adapter = fit_features(training, document_embeddings, development, arguments, document_words)
        return _recorded(adapter, training, len(document_embeddings), arguments)
    maps = None
    if arguments.stage1 != "none":
        maps, _ = choose_maps(training, document_embeddings, development, arguments)
        training, development, document_embeddings = _mapped(maps, training, development, document_embeddings)
        mined = mine_embeddings(
            training.embeddings, document_embeddings, training.positives, depth=arguments.depth
        ).candidates
    retrieved = RetrievedCandidates.retrieve(development, document_embeddings, arguments.depth)
    adapter = fit_head(training, mined, document_embeddings, retrieved, arguments)
    calibrate(adapter, retrieved, document_embeddings)
    choose_lambda(adapter, retrieved, document_embeddings)
    if maps is not None:
        maps.install(adapter)
    return _recorded(adapter, training, len(document_embeddings), arguments)


def _recorded(
    adapter: RetrieverAdapter, training: LabelledQueries, num_documents: int, arguments: FitArguments
) -> RetrieverAdapter:
    """Return the adapter with a record of what it was fitted on and how."""
    adapter.config.fit["data"] = {
        "queries": len(training.positives),
        "pairs": int(training.num_relevant.sum()),
        "documents": num_documents,
    }
    adapter.config.fit["arguments"] = arguments.to_dict()
    return adapter


def check_words(
    queries: csr_array | None,
    documents: csr_array | None,
    development: LabelledQueries | None,
    num_queries: int,
    num_documents: int,
) -> None:
    """Raise a ValueError unless all counts of words are there and of one vocabulary, or none are."""
    if (queries is None) != (documents is None):
        raise ValueError("Give both query_words and document_words, or neither.")
    if queries is None or documents is None:
        return
    for name, words, count in (
        ("query_words", queries, num_queries),
        ("document_words", documents, num_documents),
    ):
        if words.shape != (count, documents.shape[1]):
            raise ValueError(f"{name} must have shape {(count, documents.shape[1])}, got {words.shape}.")
    if development is None:
        return
    expected = (len(development.positives), documents.shape[1])
    if development.words is None or development.words.shape != expected:
        got = None if development.words is None else development.words.shape
        raise ValueError(f"development must have words of shape {expected}, got {got}.")


def check_pool(pool: CandidatePool, queries: np.ndarray, documents: np.ndarray) -> None:
    """Raise a ValueError unless the embeddings are finite and those of the pool's queries and documents."""
    check_embeddings(documents, "document_embeddings")
    check_embeddings(queries, "query_embeddings", documents.shape[1])
    for name, given, expected in (
        ("query_embeddings", len(queries), len(pool)),
        ("document_embeddings", len(documents), len(pool.document_ids)),
    ):
        if given != expected:
            raise ValueError(f"{name} must have the pool's {expected} rows, got {given}.")


def _mapped(
    maps: Maps, training: LabelledQueries, development: LabelledQueries, documents: np.ndarray
) -> tuple[LabelledQueries, LabelledQueries, np.ndarray]:
    return (
        LabelledQueries(maps.map_queries(training.embeddings), training.positives),
        LabelledQueries(maps.map_queries(development.embeddings), development.positives),
        maps.map_documents(documents),
    )
