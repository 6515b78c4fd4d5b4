"""Words that candidates share with their queries."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from ..indexes import WordIndex

# Queries to expand to dense vectors over the vocabulary at a time.
QUERIES = 16


def shared_words(words: WordIndex, queries: csr_array, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the word overlap of candidates with their queries.

    Args:
        words: The words of the corpus, `m` documents.
        queries: Counts of the queries' words, `(n, v)`.
        rows: Rows of the candidates among the documents, `(n, k)`.

    Returns:
        Two arrays, `(n, k)` float32. The first is the BM25 score divided by the sum of the inverse document
        frequencies of the query's words: 0 without shared words, 1 for a document of mean length with each
        word once. The second is the share of that sum that comes from words of the candidate.

    Example:
        >>> words = WordIndex.of(["red herring", "red fish", "blue whale"], language="none")
        >>> scores, coverage = shared_words(words, words.count(["red herring"]), np.array([[0, 1, 2]]))
        >>> (100 * scores).round().tolist(), (100 * coverage).round().tolist()
        ([[100.0, 32.0, 0.0]], [[100.0, 32.0, 0.0]])
    """
    if len(rows) <= QUERIES:
        return _shared(words, queries, rows)
    blocks = [
        _shared(words, queries[start : start + QUERIES], rows[start : start + QUERIES])
        for start in range(0, len(rows), QUERIES)
    ]
    scores, coverage = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    return scores, coverage


def _shared(words: WordIndex, queries: csr_array, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    documents, vocabulary = words.documents, words.documents.shape[1]
    # Selecting rows of a sparse matrix would copy the weights, too, and takes longer.
    flat = np.maximum(rows.ravel(), 0)
    starts, stops = documents.indptr[flat], documents.indptr[flat + 1]
    lengths = stops - starts
    ends = np.cumsum(lengths)
    pair = np.repeat(np.arange(rows.size), lengths)
    entries = np.arange(len(pair)) + np.repeat(starts - ends + lengths, lengths)
    found = documents.indices[entries]
    wanted = np.zeros(len(rows) * vocabulary, dtype=bool)
    wanted[np.repeat(np.arange(len(rows)), np.diff(queries.indptr)) * vocabulary + queries.indices] = True
    total = np.maximum(row_sums(words.idf[queries.indices], queries.indptr), 1e-6)[:, None]
    # Most words of a document are not the query's.
    of_query = found if len(rows) == 1 else found + pair // rows.shape[1] * vocabulary
    shared = np.flatnonzero(wanted[of_query])
    pair = pair[shared]

    def summed(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(pair, values, minlength=rows.size)
        return (sums.reshape(rows.shape) / total).astype(np.float32)

    return summed(documents.data[entries[shared]]), summed(words.idf[found[shared]])


def row_sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the sums of the rows of a sparse matrix. Rows may be empty."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (running[ends[1:]] - running[ends[:-1]]).astype(np.float32)
