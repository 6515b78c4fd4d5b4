"""For each word, the documents that have it and its weight in each: exact search by sums of weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from .best import best

# Documents whose scores tell what the best must reach: per result, and at least.
SAMPLE_PER_RESULT = 2
MIN_SAMPLE = 512


class Postings(NamedTuple):
    """The documents of each word, and its weight in each.

    Args:
        ends: Where the documents of each word start and end in `rows` and `weights`, `(v + 1,)` integers.
        rows: Rows of documents, ascending for each word, `(entries,)` int32.
        weights: Weights above 0, `(entries,)` float32.
        size: Number of documents.

    Example:
        >>> documents = np.array([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]], dtype=np.float32)
        >>> scores, rows = Postings.of(csr_array(documents)).search(np.array([0, 1]), k=2)
        >>> rows.tolist(), scores.tolist()
        ([1, 0], [2.5, 1.0])
    """

    ends: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    size: int

    @classmethod
    def of(cls, documents: csr_array) -> Postings:
        """Return the postings of a corpus from the weights of words in each document, `(m, v)` float32."""
        by_word = documents.tocsc()
        rows = by_word.indices.astype(np.int32, copy=False)
        return cls(by_word.indptr, rows, by_word.data, documents.shape[0])

    def search(
        self, words: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the `k` documents with the highest sums of weights.

        Sorting all scores would take longer than adding them up. So the scores of a sample of documents with
        rare words tell what the best must reach, and only the few documents that do are sorted.

        Args:
            words: Distinct words, `(w,)` integers.
            k: Number of documents.
            allowed: Whether each document may be found, `(size,)`; all may by default.

        Returns:
            Scores, descending, and rows: at most `k`, of documents that have one of the words. Ties are
            sorted by row.
        """
        # Rare words first. In the same order everywhere, because float32 sums depend on it.
        words = words[np.lexsort((words, self.ends[words + 1] - self.ends[words]))]
        scores = np.zeros(self.size, dtype=np.float32)
        sample, wanted = [np.empty(0, dtype=np.int32)], max(SAMPLE_PER_RESULT * k, MIN_SAMPLE)
        for start, stop in zip(self.ends[words], self.ends[words + 1], strict=True):
            np.add.at(scores, self.rows[start:stop], self.weights[start:stop])
            if sum(map(len, sample)) < wanted:
                sample.append(self.rows[start : stop : max(1, (stop - start) // wanted)])
        if allowed is not None:
            scores[~allowed] = 0
        lowest = _kth(scores[np.unique(np.concatenate(sample))], k)
        rows = np.flatnonzero((scores >= lowest) if lowest else scores)
        found = best(scores[rows][None], rows[None], min(k, len(rows)))
        return found[0][0], found[1][0]


def _kth(scores: np.ndarray, k: int) -> float:
    """Return the score that `k` of the scores reach, 0 if there are fewer."""
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) >= k else 0.0
