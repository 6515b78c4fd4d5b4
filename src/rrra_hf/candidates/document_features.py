"""Features of documents that don't depend on the query, computed once and saved with the index."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from ..models.adapter_rrra import Reader
from ..models.features_rrra import CandidateFeatures
from ..models.files_rrra import write_aside
from ..models.memory_rrra import Memory
from ..models.reader_rrra import FeatureReader
from .words import SharedWords, lengths, weigh_words


@dataclass(eq=False)
class DocumentFeatures:
    """Features of each document alone, and its weighted words.

    Args:
        statics: What the reader's `document_statics` returns, `(m, features)` float32; of a reader without
            such features, `(m, 0)`.
        words: BM25 weights, `(m, vocabulary)`; None if the reader reads no words.
    """

    statics: np.ndarray
    words: csr_array | None = None
    _shared: SharedWords | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, reader: Reader, blocks: Iterable[np.ndarray], words: csr_array | None) -> DocumentFeatures:
        """Compute the features of the documents of a corpus.

        Args:
            reader: The adapter's reader.
            blocks: The documents' embeddings as indexed, `(m, dim)`, in blocks of rows.
            words: Counts of the documents' words, `(m, vocabulary)`; needed if the reader reads words.

        Raises:
            ValueError: If words are needed and not given, or have another vocabulary.
        """
        weights = None
        if reader.reads_words:
            memory = _memory(reader)
            if words is None or words.shape[1] != len(memory.idf):
                got = None if words is None else words.shape[1]
                raise ValueError(f"The adapter reads words of a vocabulary of {len(memory.idf)}; got {got}.")
            weights = weigh_words(words, memory.idf.cpu().numpy(), float(memory.mean_length))
        device = next(reader.parameters()).device
        statics = [
            reader.document_statics(torch.from_numpy(np.array(block, dtype=np.float32)).to(device)).cpu()
            for block in blocks
        ]
        return cls(torch.cat(statics).numpy(), weights)

    def of_candidates(
        self, reader: Reader, q: Tensor, queries: csr_array | None, rows: np.ndarray
    ) -> CandidateFeatures:
        """Return what is known about each query's candidates.

        Args:
            reader: The reader that the features were computed for.
            q: Normalised embeddings of the queries, as searched with, `(n, dim)`.
            queries: Counts of the queries' words, `(n, vocabulary)`; needed if the reader reads words.
            rows: Rows of the candidates among the documents, `(n, k)`.

        Raises:
            ValueError: If words are needed and not given.
        """
        statics = torch.from_numpy(self.statics[rows])
        if self.words is None:
            return CandidateFeatures(statics)
        if queries is None:
            raise ValueError("The adapter reads words: give the queries' texts, not embeddings alone.")
        memory = _memory(reader)
        if self._shared is None:
            idf = memory.idf.cpu().numpy()
            self._shared = SharedWords(self.words, idf, _answers(memory, idf))
        recalled = memory.recall(q)
        weights, remembered = (values.cpu().numpy() for values in recalled)
        direct, expanded = self._shared.with_candidates(queries, weights, remembered, rows)
        return CandidateFeatures(statics, torch.from_numpy(direct), torch.from_numpy(expanded), recalled)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the features to a safetensors file. A partial file is never left."""
        tensors = {"statics": self.statics}
        if self.words is not None:
            tensors["words.vocabulary"] = np.array([self.words.shape[1]], dtype=np.int64)
            tensors["words.weights"] = self.words.data
            tensors["words.indices"] = self.words.indices
            tensors["words.ends"] = self.words.indptr
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
            words = None
            if "words.weights" in tensors:
                parts = tuple(tensors[f"words.{name}"] for name in ("weights", "indices", "ends"))
                words = csr_array(parts, shape=(len(statics), int(tensors["words.vocabulary"][0])))
                words.check_format()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is missing or damaged: {error}") from error
        return cls(statics, words)


def _memory(reader: Reader) -> Memory:
    assert isinstance(reader, FeatureReader), "only features are read from words"
    return reader.memory


def _answers(memory: Memory, idf: np.ndarray) -> csr_array:
    """Return the mean of the normalised weights of the documents of each remembered query."""
    parts = (memory.counts.float(), memory.words, memory.ends)
    counts = csr_array(tuple(part.cpu().numpy() for part in parts), shape=(len(memory.documents), len(idf)))
    weights = weigh_words(counts, idf, float(memory.mean_length))
    scaled = diags_array(1 / lengths(weights)) @ weights
    queries, documents = memory.pairs.cpu().numpy().T
    share = 1 / np.bincount(queries, minlength=len(memory.queries))[queries].astype(np.float32)
    pairs = csr_array((share, (queries, documents)), shape=(len(memory.queries), scaled.shape[0]))
    return csr_array(pairs @ scaled)
