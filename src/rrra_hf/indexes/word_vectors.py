"""Words as sparse vectors, whose inner products are BM25, for a database that stores documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from .postings import Postings
from .word_counts import count_words, unweigh, weigh
from .word_statistics import NO_WORD, WordStatistics, dimensions_of
from .words import WordIndex

# Milvus stores no empty vectors.
WITHOUT_WORDS = {NO_WORD: 1.0}


def document_vectors(
    counts: csr_array, vocabulary: np.ndarray, mean_length: float
) -> Iterator[dict[int, float]]:
    """Yield BM25 weights of the words in each document, without the inverse document frequencies.

    Those are in the vectors of queries, so that a document's vector stays as it is when others come and go.

    Args:
        counts: Counts of the words, `(m, v)` float32.
        vocabulary: Hashes of the words, `(v,)` int64.
        mean_length: Mean number of words per document, `WordStatistics.stored_length` of the corpus.
    """
    ones = np.ones(len(vocabulary), dtype=np.float32)
    weights = weigh(counts, ones, counts.sum(axis=1), mean_length)
    dimensions = dimensions_of(vocabulary)
    for start, stop in pairwise(weights.indptr):
        words = dimensions[weights.indices[start:stop]].tolist()
        yield dict(zip(words, weights.data[start:stop].tolist(), strict=True)) or WITHOUT_WORDS


class QueryWords(NamedTuple):
    """The words of some queries, those that documents of a corpus have.

    Args:
        counts: Their counts in each query, `(n, v)` float32.
        vocabulary: Hashes of the words, ascending, `(v,)` int64.
        dimensions: Their dimensions in sparse vectors, `(v,)` uint32.
        idf: Their inverse document frequencies, `(v,)` float32.
        statistics: Those of the corpus.
    """

    counts: csr_array
    vocabulary: np.ndarray
    dimensions: np.ndarray
    idf: np.ndarray
    statistics: WordStatistics

    @classmethod
    def of(cls, texts: Sequence[str], statistics: WordStatistics) -> QueryWords:
        """Return the words of queries.

        Args:
            texts: The queries.
            statistics: Statistics of the corpus.
        """
        counts, vocabulary = count_words(texts, statistics.language, show_progress_bar=False)
        dimensions = dimensions_of(vocabulary)
        idf = statistics.idf(dimensions)
        known = np.flatnonzero(idf)
        return cls(counts[:, known], vocabulary[known], dimensions[known], idf[known], statistics)

    def vectors(self) -> list[dict[int, float]]:
        """Return a sparse vector per query. Each word counts once."""
        dimensions, idf = self.dimensions.tolist(), self.idf.tolist()
        return [
            {dimensions[word]: idf[word] for word in self.counts.indices[start:stop]}
            for start, stop in pairwise(self.counts.indptr)
        ]

    def word_index(self, vectors: Sequence[Mapping[int, float]], lengths: np.ndarray) -> WordIndex:
        """Return an index of these words in some documents of the corpus.

        Args:
            vectors: Sparse vectors of the documents, see `document_vectors`.
            lengths: Their numbers of words, `(m,)` float32.
        """
        column_of = {dimension: column for column, dimension in enumerate(self.dimensions.tolist())}
        found = [
            sorted((column_of[word], weight) for word, weight in vector.items() if word in column_of)
            for vector in vectors
        ]
        ends = np.cumsum([0, *map(len, found)])
        columns = np.array([column for pairs in found for column, _ in pairs], dtype=np.int32)
        data = np.array([weight for pairs in found for _, weight in pairs], dtype=np.float32)
        stored = csr_array((data, columns, ends), shape=(len(vectors), len(self.vocabulary)))
        stored.has_canonical_format = True
        statistics, ones = self.statistics, np.ones_like(self.idf)
        # The mean length may be another than when the weights were stored.
        counts = unweigh(stored, ones, lengths, statistics.stored_length)
        documents = weigh(counts, self.idf, lengths, statistics.mean_length)
        return WordIndex(
            statistics.language,
            self.vocabulary,
            self.idf,
            lengths,
            documents,
            Postings.of(documents),
            statistics.mean_logarithm,
        )
