"""What an adapter's features needs of each document of a corpus: made once, kept beside the index."""

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

from ..embeddings.storage import atomic_path
from ..models.features_rrra import CandidateFeatures, FeatureReader
from .words import SharedWords, lengths, weigh_words


@dataclass(eq=False)
class DocumentFeatures:
    """Static features and weighted words of each document.

    Args:
        statics: As `FeatureReader.document_statics` makes it, `(m, 2)` float32.
        words: BM25 weights, `(m, vocabulary)`; None where the head reads no words.
    """

    statics: np.ndarray
    words: csr_array | None = None
    _shared: SharedWords | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(
        cls, head: FeatureReader, blocks: Iterable[np.ndarray], words: csr_array | None
    ) -> DocumentFeatures:
        """Make it for the documents of a corpus.

        Args:
            head: The adapter's head.
            blocks: The documents' embeddings as indexed, `(m, dim)` in blocks of rows.
            words: Counts of their words, `(m, vocabulary)`; needed if the head reads words.

        Raises:
            ValueError: If words are needed and not given, or of another vocabulary.
        """
        weights = None
        if head.reads_words:
            if words is None or words.shape[1] != len(head.idf):
                got = None if words is None else words.shape[1]
                raise ValueError(f"The adapter reads words of a vocabulary of {len(head.idf)}; got {got}.")
            weights = weigh_words(words, head.idf.cpu().numpy(), float(head.mean_length))
        device = head.query_inverse.device
        statics = [
            head.document_statics(torch.from_numpy(np.array(block, dtype=np.float32)).to(device)).cpu()
            for block in blocks
        ]
        return cls(torch.cat(statics).numpy(), weights)

    def of_candidates(
        self, head: FeatureReader, q: Tensor, queries: csr_array | None, rows: np.ndarray
    ) -> CandidateFeatures:
        """Return what is known of each query's candidates.

        Args:
            head: The head that this was made for.
            q: Normalised embeddings of the queries, as searched with, `(n, dim)`.
            queries: Counts of the queries' words, `(n, vocabulary)`; needed if the head reads words.
            rows: Rows of the candidates among the documents, `(n, k)`.

        Raises:
            ValueError: If words are needed and not given.
        """
        statics = torch.from_numpy(self.statics[rows])
        if self.words is None:
            return CandidateFeatures(statics)
        if queries is None:
            raise ValueError("The adapter reads words: give the queries' texts, not embeddings alone.")
        if self._shared is None:
            idf = head.idf.cpu().numpy()
            self._shared = SharedWords(self.words, idf, _answers(head, idf))
        recalled = head.recall(q)
        weights, remembered = (values.cpu().numpy() for values in recalled)
        direct, expanded = self._shared.with_candidates(queries, weights, remembered, rows)
        return CandidateFeatures(statics, torch.from_numpy(direct), torch.from_numpy(expanded), recalled)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, complete or not at all."""
        tensors = {"statics": self.statics}
        if self.words is not None:
            tensors["words.vocabulary"] = np.array([self.words.shape[1]], dtype=np.int64)
            tensors["words.weights"] = self.words.data
            tensors["words.indices"] = self.words.indices
            tensors["words.ends"] = self.words.indptr
        with atomic_path(path) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentFeatures:
        """Read what `save` wrote.

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


def _answers(head: FeatureReader, idf: np.ndarray) -> csr_array:
    """Return the mean of the weights of each remembered query's documents, each divided by its length."""
    parts = (head.memory_counts.float(), head.memory_words, head.memory_ends)
    counts = csr_array(
        tuple(part.cpu().numpy() for part in parts), shape=(len(head.memory_documents), len(idf))
    )
    weights = weigh_words(counts, idf, float(head.mean_length))
    scaled = diags_array(1 / lengths(weights)) @ weights
    queries, documents = head.memory_pairs.cpu().numpy().T
    share = 1 / np.bincount(queries, minlength=len(head.memory_queries))[queries].astype(np.float32)
    pairs = csr_array((share, (queries, documents)), shape=(len(head.memory_queries), scaled.shape[0]))
    return csr_array(pairs @ scaled)
