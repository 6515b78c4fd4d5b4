"""Word pieces of an encoder's tokenizer, which adapters of format version 2 and before read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array, diags_array
from sentence_transformers import SentenceTransformer

from ..data.surrogates import check_unicode
from ..indexes.word_counts import count_columns, weigh
from ..models.reader_v2_rrra import WordPieceMemory
from .words import row_sums

# Texts to tokenize at a time.
BLOCK = 4096
# Queries to expand to dense vectors over the vocabulary at a time.
QUERIES = 16


class WordPieces:
    """The word pieces of a corpus.

    Args:
        encoder: The encoder. Its tokenizer splits and truncates the texts.
        texts: The documents.

    Attributes:
        counts: Counts of the documents' word pieces, `(m, vocabulary)` float32.

    Raises:
        ValueError: If the encoder has no tokenizer of transformers.
    """

    def __init__(self, encoder: SentenceTransformer, texts: Sequence[str]):
        self._encoder = encoder
        self.counts = self.count(texts)

    def count(self, texts: Sequence[str]) -> csr_array:
        """Count the word pieces of each text, `(n, vocabulary)` float32."""
        return count_pieces(self._encoder, texts)


def count_pieces(encoder: SentenceTransformer, texts: Sequence[str]) -> csr_array:
    """Count the word pieces of each text.

    Args:
        encoder: The encoder. Its tokenizer splits and truncates the texts.
        texts: The texts.

    Returns:
        Counts, `(n, vocabulary)` float32.

    Raises:
        ValueError: If the encoder has no tokenizer of transformers, or a text has a lone surrogate.
    """
    check_unicode("text", texts)
    tokenizer = encoder.tokenizer
    if not callable(tokenizer):
        raise ValueError("The adapter reads word pieces; the encoder has no tokenizer of transformers.")
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
    columns = np.concatenate([np.empty(0, dtype=np.int32), *ids])
    return count_columns(columns, np.cumsum([0, *map(len, ids)]), len(tokenizer))


def weigh_pieces(documents: csr_array, idf: np.ndarray, mean_length: float) -> csr_array:
    """Compute the BM25 weight of each word piece in each document.

    Args:
        documents: Counts, `(m, vocabulary)`.
        idf: Inverse document frequencies, `(vocabulary,)`.
        mean_length: Mean number of word pieces per document.

    Returns:
        `(m, vocabulary)` float32.
    """
    return weigh(documents, idf, documents.sum(axis=1), mean_length)


class SharedWordPieces:
    """Word pieces shared by candidates with queries, and with the answers to similar training queries.

    Args:
        documents: BM25 weights of the corpus, `(m, vocabulary)`.
        idf: Inverse document frequencies, `(vocabulary,)`.
        answers: For each training query, the mean of the normalised weights of its labelled documents,
            `(queries, vocabulary)`.

    Example:
        >>> counts = csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], dtype=np.float32))
        >>> idf = np.array([1.0, 3.0, 1.0], dtype=np.float32)
        >>> shared = SharedWordPieces(weigh_pieces(counts, idf, 2.0), idf, counts[:1])
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
        """Compute the overlap of candidates with their query, and with the answers to similar queries.

        Args:
            queries: Word counts of the queries, `(n, vocabulary)`.
            weights: Weights of the similar training queries, `(n, r)`.
            remembered: Rows of the similar training queries, `(n, r)`.
            rows: Rows of the candidates among the documents, `(n, k)`.

        Returns:
            Two arrays, `(n, k)` float32. The first is the BM25 score divided by the sum of the query's
            inverse document frequencies: 0 without shared words, 1 for a document of mean length with each
            word once. The second is the product of the candidate's normalised weights with the weighted
            answers.
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
            row_sums(found.data * words[query, found.indices], found.indptr).reshape(rows.shape)
            for words in (wanted, expansion)
        )
        return direct / total[:, None], expanded / self._lengths[rows]


def answer_pieces(memory: WordPieceMemory) -> csr_array:
    """Return the mean of the normalised weights of the documents of each remembered query."""
    parts = (memory.counts.float(), memory.words, memory.ends)
    idf = memory.idf.cpu().numpy()
    counts = csr_array(tuple(part.cpu().numpy() for part in parts), shape=(len(memory.documents), len(idf)))
    weights = weigh_pieces(counts, idf, float(memory.mean_length))
    scaled = diags_array(1 / lengths(weights)) @ weights
    queries, documents = memory.pairs.cpu().numpy().T
    share = 1 / np.bincount(queries, minlength=len(memory.queries))[queries].astype(np.float32)
    pairs = csr_array((share, (queries, documents)), shape=(len(memory.queries), scaled.shape[0]))
    return csr_array(pairs @ scaled)


def lengths(weights: csr_array) -> np.ndarray:
    """Return the Euclidean length of each row, 1 for empty rows, `(m,)` float32."""
    found = np.sqrt(weights.multiply(weights).sum(axis=1)).astype(np.float32)
    return np.where(found > 0, found, np.float32(1.0))
