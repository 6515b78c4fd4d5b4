"""Words that query and document share, by BM25 over the encoder's own word pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer

# The constants of Lucene.
K1 = 1.2
B = 0.75
# Texts that are tokenized at a time.
BLOCK = 4096
# Queries whose words are laid out at a time: each takes a place for every word there is.
QUERIES = 16


def count_words(encoder: SentenceTransformer, texts: Sequence[str]) -> csr_array | None:
    """Return how often each text has each word piece of the encoder's tokenizer.

    Args:
        encoder: The encoder; what it cuts off isn't counted.
        texts: The texts.

    Returns:
        `(n, vocabulary)` float32; None if the encoder has no tokenizer of transformers.
    """
    tokenizer = encoder.tokenizer
    if not callable(tokenizer):
        return None
    longest = encoder.max_seq_length
    if longest is not None:
        longest = max(1, longest - tokenizer.num_special_tokens_to_add())
    ids: list[np.ndarray] = []
    for start in range(0, len(texts), BLOCK):
        tokens = tokenizer(
            list(texts[start : start + BLOCK]),
            add_special_tokens=False,
            truncation=longest is not None,
            max_length=longest,
            return_attention_mask=False,
        )
        ids += [np.asarray(row, dtype=np.int32) for row in tokens["input_ids"]]
    ends = np.cumsum([0, *map(len, ids)])
    columns = np.concatenate([np.empty(0, dtype=np.int32), *ids])
    counts = csr_array(
        (np.ones(len(columns), dtype=np.float32), columns, ends), shape=(len(texts), len(tokenizer))
    )
    counts.sum_duplicates()
    return counts


def word_statistics(documents: csr_array) -> tuple[np.ndarray, float]:
    """Return what BM25 knows of a corpus: each word's inverse document frequency, and the mean length.

    Args:
        documents: Counts, `(m, vocabulary)`.

    Returns:
        `log(1 + (m - df + .5) / (df + .5))`, `(vocabulary,)` float32, and the mean number of words.
    """
    frequency = np.bincount(documents.indices, minlength=documents.shape[1])
    idf = np.log1p((documents.shape[0] - frequency + 0.5) / (frequency + 0.5))
    return idf.astype(np.float32), max(1.0, float(documents.sum()) / documents.shape[0])


def weigh_words(documents: csr_array, idf: np.ndarray, mean_length: float) -> csr_array:
    """Return the BM25 weight of each word of each document.

    Args:
        documents: Counts, `(m, vocabulary)`.
        idf: Inverse document frequencies, `(vocabulary,)`.
        mean_length: Words of a mean document.

    Returns:
        `(m, vocabulary)` float32.

    Source:
        Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15.
    """
    lengths = np.repeat(documents.sum(axis=1), np.diff(documents.indptr))
    counts = documents.data
    saturated = counts * (K1 + 1) / (counts + K1 * (1 - B + B * lengths / mean_length))
    weights = (saturated * idf[documents.indices]).astype(np.float32)
    return csr_array((weights, documents.indices, documents.indptr), shape=documents.shape)


class SharedWords:
    """What candidates share with queries, and with what queries make a head remember.

    Args:
        documents: BM25 weights of the corpus, `(m, vocabulary)`.
        idf: Inverse document frequencies, `(vocabulary,)`.
        answers: For each training query remembered, the mean of its labelled documents' weights, each
            divided by its length, `(queries, vocabulary)`.

    Example:
        >>> counts = csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=np.float32))
        >>> idf = np.array([1.0, 3.0, 1.0], dtype=np.float32)
        >>> shared = SharedWords(weigh_words(counts, idf, 2.0), idf, counts[:1])
        >>> ones, first = np.ones((1, 1), dtype=np.float32), np.zeros((1, 1), dtype=int)
        >>> shared.with_candidates(counts[:1], ones, first, np.array([[0, 1]]))[0].tolist()
        [[1.0, 0.75]]
    """

    def __init__(self, documents: csr_array, idf: np.ndarray, answers: csr_array):
        self.documents = documents
        self.idf = idf
        self.answers = answers
        self._lengths = lengths(documents)

    def with_candidates(
        self, queries: csr_array, weights: np.ndarray, remembered: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what candidates share with their query, and with what it makes remember.

        Args:
            queries: Counts of the queries' words, `(n, vocabulary)`.
            weights: Weights of the training queries recalled, `(n, r)`.
            remembered: Their rows, `(n, r)`.
            rows: Rows of each query's candidates among the documents, `(n, k)`.

        Returns:
            Two arrays `(n, k)` float32. The BM25 score as a share of the query's inverse document
            frequencies: 0 where no word is shared, 1 where a document of mean length has each word once.
            And the cosine-like product of the candidate's weights with the mean of what is remembered.
        """
        shape = len(rows), self.answers.shape[0]
        recalled = csr_array(
            (weights.ravel(), remembered.ravel(), np.arange(len(rows) + 1) * weights.shape[1]), shape=shape
        )
        parts = [
            self._block(queries[block], recalled[block], rows[block])
            for block in (slice(start, start + QUERIES) for start in range(0, max(1, len(rows)), QUERIES))
        ]
        direct, expanded = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return direct, expanded

    def _block(
        self, queries: csr_array, recalled: csr_array, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        found = self.documents[rows.ravel()]
        query = np.repeat(np.repeat(np.arange(len(rows)), rows.shape[1]), np.diff(found.indptr))
        wanted = np.zeros((len(rows), found.shape[1]), dtype=np.float32)
        wanted[np.repeat(np.arange(len(rows)), np.diff(queries.indptr)), queries.indices] = 1.0
        total = np.maximum(wanted @ self.idf, 1e-6)
        expansion = (recalled @ self.answers).toarray()
        direct, expanded = (
            _row_sums(found.data * words[query, found.indices], found.indptr).reshape(rows.shape)
            for words in (wanted, expansion)
        )
        return direct / total[:, None], expanded / self._lengths[rows]


def _row_sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the sum of each row of a sparse matrix, given its values; rows may be empty."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (running[ends[1:]] - running[ends[:-1]]).astype(np.float32)


def lengths(weights: csr_array) -> np.ndarray:
    """Return the Euclidean length of each row, 1 for empty ones, `(m,)` float32."""
    found = np.sqrt(weights.multiply(weights).sum(axis=1)).astype(np.float32)
    return np.where(found > 0, found, np.float32(1.0))
