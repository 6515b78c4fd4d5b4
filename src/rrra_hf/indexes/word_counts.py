"""How often each word is in each text, and what BM25 makes of it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
from scipy.sparse import csr_array, get_index_dtype
from tqdm.auto import tqdm

from .tokenize import is_unspaced, runs_of, stems_of

# The defaults of Lucene.
K1 = 1.2
B = 0.75
# Runs of letters to remember the columns of, about 200 MB, and their greatest length.
MOST_KNOWN = 2**20
LONGEST_KNOWN = 64


class Columns(dict[str, tuple[int, ...]]):
    """The columns of the words of each run of letters. They are computed when a run is first asked for.

    Args:
        column_of: Returns the column of a word from its hash, or None if it has none.
        language: Language of the words.
    """

    def __init__(self, column_of: Callable[[int], int | None], language: str):
        super().__init__()
        self._column_of = column_of
        self._language = language

    def __missing__(self, run: str) -> tuple[int, ...]:
        found = (self._column_of(word_hash(stem)) for stem in stems_of(run, self._language))
        columns = tuple(column for column in found if column is not None)
        # In scripts without spaces, runs are whole sentences, which rarely come again.
        if len(run) <= LONGEST_KNOWN and not is_unspaced(run):
            if len(self) >= MOST_KNOWN:
                self.clear()
            self[run] = columns
        return columns


def word_hash(word: str) -> int:
    """Return the hash of a word, an integer of 64 bits with a sign. It is the same on every machine.

    Args:
        word: The word.

    Example:
        >>> word_hash("hors")
        7780978739057155353
    """
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def columns_of_texts(texts: Iterable[str], columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the words of all texts, and where each text ends.

    Args:
        texts: The texts.
        columns: The columns of each run of letters.

    Returns:
        `(words,)` int32 and `(n + 1,)` int64.
    """
    found, ends = array("i"), array("q", [0])
    for text in texts:
        found.extend(chain.from_iterable(map(columns.__getitem__, runs_of(text))))
        ends.append(len(found))
    return np.array(found, dtype=np.int32), np.array(ends, dtype=np.int64)


def count_columns(columns: np.ndarray, ends: np.ndarray, width: int) -> csr_array:
    """Count how often each text has each column.

    Args:
        columns: Columns of the words of all texts, `(words,)` int32. They may be overwritten.
        ends: Where each text ends, `(n + 1,)`.
        width: Number of columns.

    Returns:
        `(n, width)` float32, with sorted indices.
    """
    index = get_index_dtype(maxval=max(len(columns), width))
    ones = np.ones(len(columns), dtype=np.float32)
    parts = ones, columns.astype(index, copy=False), ends.astype(index)
    counts = csr_array(parts, shape=(len(ends) - 1, width))
    counts.sum_duplicates()
    return counts


def count_words(
    texts: Sequence[str], language: str, show_progress_bar: bool | None
) -> tuple[csr_array, np.ndarray]:
    """Count how often each text has each of their words.

    Args:
        texts: The texts.
        language: Language of the words.
        show_progress_bar: Show a progress bar; if None, only on a terminal.

    Returns:
        Counts, `(n, v)` float32, with sorted indices, and hashes of the words, ascending, `(v,)` int64.
    """
    numbers: dict[int, int] = {}
    columns = Columns(lambda word: numbers.setdefault(word, len(numbers)), language)
    disable = None if show_progress_bar is None else not show_progress_bar
    with tqdm(texts, desc="Counting words", unit="text", disable=disable) as bar:
        found, ends = columns_of_texts(bar, columns)
    # From the order in which words were found to the order of their hashes.
    hashes = np.fromiter(numbers, dtype=np.int64, count=len(numbers))
    order = np.argsort(hashes)
    counts = count_columns(np.argsort(order).astype(np.int32)[found], ends, len(hashes))
    return counts, hashes[order]


def stack_counts(parts: Sequence[tuple[csr_array, np.ndarray]], vocabulary: np.ndarray) -> csr_array:
    """Return the counts of several corpora, one below the other.

    Args:
        parts: Counts with sorted indices, and the words of their columns, ascending.
        vocabulary: The words of all, ascending, `(v,)`.

    Returns:
        `(n, v)` float32, with sorted indices.
    """
    entries = sum(counts.nnz for counts, _ in parts)
    index = get_index_dtype(maxval=max(entries, len(vocabulary)))
    columns = [np.searchsorted(vocabulary, words).astype(index)[counts.indices] for counts, words in parts]
    lengths = np.concatenate([np.diff(counts.indptr) for counts, _ in parts])
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
    data = np.concatenate([counts.data for counts, _ in parts])
    stacked = csr_array((data, np.concatenate(columns), ends), shape=(len(lengths), len(vocabulary)))
    stacked.has_canonical_format = True
    return stacked


def inverse_frequencies(counts: csr_array) -> np.ndarray:
    """Return the inverse document frequencies of a corpus.

    Args:
        counts: `(m, v)`.

    Returns:
        `(v,)` float32.
    """
    return inverse_frequency(np.bincount(counts.indices, minlength=counts.shape[1]), counts.shape[0])


def inverse_frequency(frequencies: np.ndarray, documents: int) -> np.ndarray:
    """Return inverse document frequencies, `log(1 + (m - df + .5) / (df + .5))`.

    Args:
        frequencies: Number of documents that have each word, `(v,)` integers.
        documents: Number of documents.

    Returns:
        `(v,)` float32.

    Source:
        Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with the 1 that
        Lucene adds, so that no word counts against a document.
    """
    return np.log1p((documents - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)


def weigh(
    counts: csr_array, idf: np.ndarray, lengths: np.ndarray, mean_length: float | None = None
) -> csr_array:
    """Compute the BM25 weight of each word in each document.

    Args:
        counts: `(m, v)` float32.
        idf: Inverse document frequencies, `(v,)` float32.
        lengths: Number of words per document, `(m,)` float32.
        mean_length: Mean number of words per document of the corpus; of these documents if not given.

    Returns:
        `(m, v)` float32.

    Source:
        Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15.
    """
    norms = np.repeat(_norms(lengths, mean_length), np.diff(counts.indptr))
    saturated = counts.data * np.float32(K1 + 1) / (counts.data + norms)
    weights = csr_array((saturated * idf[counts.indices], counts.indices, counts.indptr), shape=counts.shape)
    weights.has_canonical_format = True
    return weights


def unweigh(
    weights: csr_array, idf: np.ndarray, lengths: np.ndarray, mean_length: float | None = None
) -> csr_array:
    """Return the counts that `weigh` made weights of.

    Args:
        weights: `(m, v)` float32.
        idf: Inverse document frequencies, `(v,)` float32.
        lengths: Number of words per document, `(m,)` float32.
        mean_length: The mean number of words per document that they were computed with; of these documents if
            not given.

    Returns:
        `(m, v)` float32. Counts so large that one more makes no other weight may be off by that.

    Example:
        >>> counts = csr_array(np.array([[3.0, 0.0], [1.0, 7.0]], dtype=np.float32))
        >>> idf, lengths = inverse_frequencies(counts), counts.sum(axis=1)
        >>> unweigh(weigh(counts, idf, lengths), idf, lengths).toarray().tolist()
        [[3.0, 0.0], [1.0, 7.0]]
    """
    norms = np.repeat(_norms(lengths, mean_length), np.diff(weights.indptr))
    saturated = weights.data / idf[weights.indices]
    # A count without end has a weight of K1 + 1.
    left = np.maximum(np.float32(K1 + 1) - saturated, np.finfo(np.float32).eps)
    counts = np.rint(saturated * norms / left)
    found = csr_array((counts, weights.indices, weights.indptr), shape=weights.shape)
    found.has_canonical_format = True
    return found


def _norms(lengths: np.ndarray, mean_length: float | None) -> np.ndarray:
    """Return what BM25 adds to the count of a word in the denominator, per document, `(m,)` float32."""
    if mean_length is None:
        mean_length = max(1.0, float(lengths.sum(dtype=np.float64)) / max(1, len(lengths)))
    return (K1 * (1 - B + B * lengths / mean_length)).astype(np.float32)
