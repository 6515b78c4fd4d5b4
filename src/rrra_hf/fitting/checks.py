"""Checks of what an adapter is fitted on."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..candidates import CandidatePool, LabelledQueries
from ..embeddings import check_embeddings
from ..indexes import WordIndex


def check_words(
    queries: csr_array | None,
    documents: WordIndex | None,
    development: LabelledQueries | None,
    num_queries: int,
    num_documents: int,
) -> None:
    """Raise a ValueError unless all words are given, of one vocabulary, or none are."""
    if (queries is None) != (documents is None):
        raise ValueError("Give both query_words and document_words, or neither.")
    if queries is None or documents is None:
        return
    if len(documents) != num_documents:
        raise ValueError(f"document_words must be of {num_documents} documents, got {len(documents)}.")
    expected = (num_queries, len(documents.vocabulary))
    if queries.shape != expected:
        raise ValueError(f"query_words must have shape {expected}, got {queries.shape}.")
    if development is None:
        return
    expected = (len(development.positives), len(documents.vocabulary))
    if development.words is None or development.words.shape != expected:
        got = None if development.words is None else development.words.shape
        raise ValueError(f"development must have words of shape {expected}, got {got}.")


def check_pool(pool: CandidatePool, queries: np.ndarray, documents: np.ndarray) -> None:
    """Raise a ValueError unless the embeddings are finite and have the pool's numbers of rows."""
    check_embeddings(documents, "document_embeddings")
    check_embeddings(queries, "query_embeddings", documents.shape[1])
    for name, given, expected in (
        ("query_embeddings", len(queries), len(pool)),
        ("document_embeddings", len(documents), len(pool.document_ids)),
    ):
        if given != expected:
            raise ValueError(f"{name} must have the pool's {expected} rows, got {given}.")
