"""Features of documents that don't depend on the query, computed once and saved with the index."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor

from ..indexes import WordIndex
from ..models.adapter_rrra import Reader
from ..models.features_rrra import CandidateFeatures
from ..models.files_rrra import write_aside
from ..models.reader_v2_rrra import Version2Reader, WordPieceMemory
from ..models.residual_rrra import ResidualReader
from .word_pieces import SharedWordPieces, WordPieces, answer_pieces, weigh_pieces
from .words import shared_words

Words = WordIndex | WordPieces
"""The words of a corpus; word pieces for adapters of format version 2 and before."""


@dataclass(eq=False)
class DocumentFeatures:
    """What an adapter reads of documents, apart from their embeddings.

    Args:
        statics: What the reader's `document_statics` returns, `(m, features)` float32; of a reader without
            such features, `(m, 0)`.
        words: The words of the corpus; None if there are only embeddings, or the reader reads no words.
        pieces: BM25 weights of the documents' word pieces, `(m, vocabulary)`, for adapters of format version
            2 and before.
    """

    statics: np.ndarray
    words: WordIndex | None = None
    pieces: csr_array | None = None
    _shared: SharedWordPieces | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, reader: Reader, blocks: Iterable[np.ndarray], words: Words | None = None) -> DocumentFeatures:
        """Compute the features of the documents of a corpus.

        Args:
            reader: The adapter's reader.
            blocks: The documents' embeddings as indexed, `(m, dim)`, in blocks of rows.
            words: The documents' words.

        Raises:
            ValueError: If the reader reads word pieces and they are not given, or have another vocabulary.
        """
        device = next(reader.parameters()).device
        statics = [
            reader.document_statics(torch.from_numpy(np.array(block, dtype=np.float32)).to(device)).cpu()
            for block in blocks
        ]
        found = torch.cat(statics).numpy()
        if isinstance(reader, Version2Reader) and reader.reads_word_pieces:
            return cls(found, pieces=_weighed(reader.memory, words))
        return cls(found, words if reader.reads_words and isinstance(words, WordIndex) else None)

    def of_candidates(
        self, reader: Reader, q: Tensor, queries: csr_array | None, rows: np.ndarray
    ) -> CandidateFeatures:
        """Return what is known about each query's candidates.

        Args:
            reader: The reader that the features were computed for.
            q: Normalised embeddings of the queries, as searched with, `(n, dim)`.
            queries: Counts of the queries' words, `(n, vocabulary)`, of the vocabulary of the documents'.
            rows: Rows of the candidates among the documents, `(n, k)`; those of -1 mean nothing.

        Raises:
            ValueError: If the reader reads word pieces and none are given.
        """
        known = CandidateFeatures(torch.from_numpy(self.statics[rows]), present=torch.from_numpy(rows >= 0))
        if not isinstance(reader, ResidualReader) and reader.remembers:
            known = known._replace(recalled=reader.memory.recall(q))
        if isinstance(reader, Version2Reader) and reader.reads_word_pieces:
            return self._with_pieces(reader, known, queries, rows)
        if self.words is None or queries is None:
            return known
        scores, coverage = shared_words(self.words, queries, rows)
        return known._replace(
            words=torch.from_numpy(scores),
            coverage=torch.from_numpy(coverage),
            length=torch.from_numpy(self.words.relative_lengths[rows]),
            query_words=torch.from_numpy(np.diff(queries.indptr).astype(np.float32)),
        )

    def _with_pieces(
        self, reader: Version2Reader, known: CandidateFeatures, queries: csr_array | None, rows: np.ndarray
    ) -> CandidateFeatures:
        if queries is None or self.pieces is None or known.recalled is None:
            raise ValueError("The adapter reads word pieces: give the queries' texts, not embeddings alone.")
        if self._shared is None:
            answers = answer_pieces(reader.memory)
            self._shared = SharedWordPieces(self.pieces, reader.memory.idf.cpu().numpy(), answers)
        weights, remembered, _ = (values.cpu().numpy() for values in known.recalled)
        direct, expanded = self._shared.with_candidates(queries, weights, remembered, rows)
        return known._replace(words=torch.from_numpy(direct), expansion=torch.from_numpy(expanded))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the features to a safetensors file, except the word index. A partial file is never left."""
        tensors = {"statics": self.statics}
        if self.pieces is not None:
            tensors["words.vocabulary"] = np.array([self.pieces.shape[1]], dtype=np.int64)
            tensors["words.weights"] = self.pieces.data
            tensors["words.indices"] = self.pieces.indices
            tensors["words.ends"] = self.pieces.indptr
        with write_aside(path) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentFeatures:
        """Read features written by `save`.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        try:
            tensors = load_file(path)
            statics = tensors["statics"]
            if statics.ndim != 2 or statics.dtype != np.float32 or not np.isfinite(statics).all():
                raise ValueError(
                    f"statics must be finite float32 (m, n), got {statics.dtype} {statics.shape}"
                )
            pieces = _pieces(tensors, len(statics)) if "words.weights" in tensors else None
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is missing or damaged: {error}") from error
        return cls(statics, pieces=pieces)


def _pieces(tensors: dict[str, np.ndarray], documents: int) -> csr_array:
    parts = tuple(tensors[f"words.{name}"] for name in ("weights", "indices", "ends"))
    pieces = csr_array(parts, shape=(documents, int(tensors["words.vocabulary"][0])))
    pieces.check_format()
    if not np.isfinite(pieces.data).all():
        raise ValueError("words.weights must be finite")
    return pieces


def _weighed(memory: WordPieceMemory, words: Words | None) -> csr_array:
    if not isinstance(words, WordPieces) or words.counts.shape[1] != len(memory.idf):
        got = f"{words.counts.shape[1]}" if isinstance(words, WordPieces) else type(words).__name__
        raise ValueError(f"The adapter reads word pieces of a vocabulary of {len(memory.idf)}; got {got}.")
    return weigh_pieces(words.counts, memory.idf.cpu().numpy(), float(memory.mean_length))
