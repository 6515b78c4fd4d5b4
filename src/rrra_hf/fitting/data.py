"""What an adapter is fitted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from ..candidates.labelled import LabelledQueries, hold_out
from .arguments import AnyFitArguments


class FitData(NamedTuple):
    """Training queries, the corpus, and development queries.

    Args:
        training: Training queries.
        candidates: Rows of each training query's mined candidates, `(n, depth)`, -1 where none are left.
        documents: Embeddings of the documents, `(m, dim)`.
        development: Development queries.
        document_words: Counts of the documents' words, `(m, vocabulary)`; None if no words are read.
    """

    training: LabelledQueries
    candidates: np.ndarray
    documents: np.ndarray
    development: LabelledQueries
    document_words: csr_array | None = None


def fit_data(
    training: LabelledQueries,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: csr_array | None,
    development: LabelledQueries | None,
    arguments: AnyFitArguments,
) -> FitData:
    """Return what to fit on; without development queries, a part of the training queries is held out.

    Args:
        training: Labelled queries.
        candidates: Rows of their mined candidates, `(n, depth)`.
        documents: Embeddings of the documents, `(m, dim)`.
        words: Counts of the documents' words.
        development: Development queries; None to hold some out.
        arguments: `development_fraction` and `seed` are used.

    Raises:
        ValueError: If there are fewer than two queries to hold one out of.
    """
    if development is None:
        held_out, kept = hold_out(len(training.positives), arguments.development_fraction, arguments.seed)
        development, training, candidates = training.select(held_out), training.select(kept), candidates[kept]
    return FitData(training, candidates, documents, development, words)
