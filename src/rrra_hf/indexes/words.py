"""BM25 over the words of a corpus."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, get_index_dtype

from ..models.files_rrra import read_meta
from .checksums import check_files
from .language import language_of
from .postings import Postings
from .stop_lists import AUTO, LANGUAGES, check_language
from .word_counts import (
    Columns,
    columns_of_texts,
    count_columns,
    count_words,
    inverse_frequencies,
    stack_counts,
    unweigh,
    weigh,
)
from .word_files import FORMAT_VERSION, META_NAME, load_array, load_ends, load_numbers, load_rows, save_arrays

# Its arrays, each of which is saved as a file.
ARRAYS = (
    *("vocabulary", "idf", "lengths", "document_ends", "document_words", "document_weights"),
    *("word_ends", "word_documents", "word_weights"),
)


class WordIndex:
    """BM25 over the words of a corpus. Make one with `of` or `load`.

    Words are stems of Snowball, without stop words. Only hashes of them are kept. Several threads may use an
    index at once.

    Args:
        language: Language of the words, such as "english", or "none".
        vocabulary: Hashes of the words of the corpus, ascending, `(v,)` int64.
        idf: Inverse document frequencies, `(v,)` float32.
        lengths: Number of words per document, `(m,)` float32.
        documents: BM25 weights of the words in each document, `(m, v)` float32.
        postings: The same weights by word.
        mean_logarithm: Mean logarithm of 1 + the number of words in the corpus that these documents are from;
            by default, in these documents.

    Example:
        >>> index = WordIndex.of(["A dog barks.", "Dogs and cats", "The house"], language="english")
        >>> scores, rows = index.search(index.count(["Which dog is it?", "the"]), k=2)
        >>> rows.tolist(), (scores > 0).tolist()
        ([[0, 1], [-1, -1]], [[True, True], [False, False]])
    """

    def __init__(
        self,
        language: str,
        vocabulary: np.ndarray,
        idf: np.ndarray,
        lengths: np.ndarray,
        documents: csr_array,
        postings: Postings,
        mean_logarithm: float | None = None,
    ):
        self.language = language
        self.vocabulary = vocabulary
        self.idf = idf
        self.lengths = lengths
        self.documents = documents
        self._postings = postings
        self._mean_logarithm = mean_logarithm
        self._columns = Columns(self._column_of, language)

    @classmethod
    def of(
        cls, texts: Sequence[str], language: str = AUTO, *, show_progress_bar: bool | None = None
    ) -> WordIndex:
        """Index the words of texts.

        Args:
            texts: The documents.
            language: Language of the texts, for stop words and stems. "auto" looks for stop words in them,
                "none" does without.
            show_progress_bar: Show a progress bar; by default, only on a terminal.

        Raises:
            ValueError: If the language isn't known.
        """
        check_language(language)
        language = language_of(texts) if language == AUTO else language
        return cls.of_counts(*count_words(texts, language, show_progress_bar), language)

    @classmethod
    def of_counts(cls, counts: csr_array, vocabulary: np.ndarray, language: str) -> WordIndex:
        """Index how often each document has each word.

        Args:
            counts: `(m, v)` float32, with sorted indices. Each word is in a document.
            vocabulary: Hashes of the words, ascending, `(v,)` int64.
            language: Language of the words.
        """
        idf, lengths = inverse_frequencies(counts), counts.sum(axis=1)
        documents = weigh(counts, idf, lengths)
        return cls(language, vocabulary, idf, lengths, documents, Postings.of(documents))

    def updated(
        self, kept: np.ndarray, texts: Sequence[str], *, show_progress_bar: bool | None = None
    ) -> WordIndex:
        """Return an index of some of the documents and, after them, of others. This one stays as it is.

        It is the same as that of all these documents, made anew, in this language.

        Args:
            kept: Rows of the documents to keep, ascending, `(m,)`.
            texts: The others, `n`.
            show_progress_bar: Show a progress bar; by default, only on a terminal.
        """
        counts = unweigh(self.documents, self.idf, self.lengths)
        counts = counts if len(kept) == len(self) else counts[kept]
        # Words that only documents had which aren't kept are gone.
        present = np.zeros(len(self.vocabulary), dtype=bool)
        present[counts.indices] = True
        added, vocabulary = count_words(texts, self.language, show_progress_bar)
        merged = np.union1d(self.vocabulary[present], vocabulary)
        parts = [(counts, self.vocabulary), (added, vocabulary)]
        return self.of_counts(stack_counts(parts, merged), merged, self.language)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def relative_lengths(self) -> np.ndarray:
        """Logarithms of the documents' numbers of words, less their mean in the corpus, `(m,)` float32."""
        logarithms = np.log1p(self.lengths)
        mean = logarithms.mean() if self._mean_logarithm is None else np.float32(self._mean_logarithm)
        return logarithms - mean

    def count(self, texts: Sequence[str]) -> csr_array:
        """Count the words of texts. Words that the corpus doesn't have are left out.

        Args:
            texts: The texts, for example queries.

        Returns:
            `(n, v)` float32, with sorted indices.
        """
        return count_columns(*columns_of_texts(texts, self._columns), len(self.vocabulary))

    def search(
        self, queries: csr_array, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` documents with the highest BM25 scores for each query, by exact search.

        Each word of a query counts once.

        Args:
            queries: Counts from `count`, `(n, v)`.
            k: Number of documents per query.
            allowed: Rows of the documents to search among; all by default.

        Returns:
            Scores `(n, k)` float32, descending, and rows `(n, k)` int64. Ties are sorted by row. If fewer
            than `k` documents share a word with the query, they end with -inf and -1.

        Raises:
            ValueError: If `queries` has a wrong width or `k` is less than 1.
        """
        if queries.shape[1] != len(self.vocabulary):
            raise ValueError(f"queries must have {len(self.vocabulary)} columns, got {queries.shape[1]}.")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        scores = np.full((queries.shape[0], k), -np.inf, dtype=np.float32)
        rows = np.full(scores.shape, -1, dtype=np.int64)
        may_be_found = None
        if allowed is not None:
            may_be_found = np.zeros(len(self), dtype=bool)
            may_be_found[allowed] = True
        for query, (start, stop) in enumerate(pairwise(queries.indptr)):
            found, at = self._postings.search(np.unique(queries.indices[start:stop]), k, may_be_found)
            scores[query, : len(at)], rows[query, : len(at)] = found, at
        return scores, rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder, complete or not at all.

        Args:
            path: The folder. An index that was saved there before is replaced.

        Raises:
            ValueError: If the folder holds other files.
        """
        m, v, entries = len(self), len(self.vocabulary), self.documents.nnz
        index = _index_type(m, v, entries)
        arrays = (
            *(self.vocabulary, self.idf, self.lengths),
            self.documents.indptr.astype(index, copy=False),
            self.documents.indices.astype(index, copy=False),
            self.documents.data,
            self._postings.ends.astype(index, copy=False),
            *(self._postings.rows, self._postings.weights),
        )
        meta = {"language": self.language, "documents": m, "words": v, "entries": entries}
        save_arrays(path, dict(zip(ARRAYS, arrays, strict=True)), meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WordIndex:
        """Open a folder written by `save`. Arrays are memory-mapped: they are read from disk on access.

        Args:
            path: The folder.

        Raises:
            ValueError: If a file is missing or damaged; the message names it.
        """
        file = Path(path) / META_NAME
        meta = read_meta(file, {FORMAT_VERSION}, ("language", "documents", "words", "entries"))
        language, *sizes = meta.values()
        if (
            not isinstance(language, str)
            or language not in LANGUAGES
            or not all(type(size) is int and 0 <= size < 2**63 for size in sizes)
        ):
            raise ValueError(f"{file} is damaged or of another version: {meta}.")
        check_files(file)
        m, v, entries = sizes
        index = _index_type(m, v, entries)
        ends = load_ends(path, "document_ends", index, m + 1, entries)
        words = load_rows(path, "document_words", index, ends, v)
        documents = csr_array((load_numbers(path, "document_weights", entries), words, ends), shape=(m, v))
        documents.has_canonical_format = True
        ends = load_ends(path, "word_ends", index, v + 1, entries)
        rows = load_rows(path, "word_documents", np.int32, ends, m)
        postings = Postings(ends, rows, load_numbers(path, "word_weights", entries), m)
        vocabulary = load_array(path, "vocabulary", np.int64, v)
        if (vocabulary[1:] <= vocabulary[:-1]).any():
            raise ValueError(f"{Path(path) / 'vocabulary.npy'} is damaged: its values must ascend.")
        idf, lengths = load_numbers(path, "idf", v), load_numbers(path, "lengths", m)
        return cls(language, vocabulary, idf, lengths, documents, postings)

    def _column_of(self, word: int) -> int | None:
        column = int(np.searchsorted(self.vocabulary, word))
        found = column < len(self.vocabulary) and self.vocabulary[column] == word
        return column if found else None


def _index_type(*sizes: int) -> type[np.generic]:
    """Return the type that scipy chooses for the indices of a matrix of these sizes."""
    return get_index_dtype(maxval=max(sizes))
