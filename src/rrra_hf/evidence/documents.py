"""What an adapter's evidence needs of each document of a corpus: made once, kept beside the index."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from ..embeddings.storage import atomic_path
from ..evidence_rrra import CandidateEvidence, EvidenceHead
from .words import overlap, weigh_words


@dataclass(frozen=True, eq=False)
class DocumentEvidence:
    """Static evidence and weighted words of each document.

    Args:
        statics: As `EvidenceHead.document_statics` makes it, `(m, 2)` float32.
        words: BM25 weights, `(m, vocabulary)`; None where the head reads no words.
        idf: Inverse document frequency of each word, `(vocabulary,)`.
    """

    statics: np.ndarray
    words: csr_array | None
    idf: np.ndarray

    @classmethod
    def of(
        cls, head: EvidenceHead, blocks: Iterable[np.ndarray], words: csr_array | None
    ) -> DocumentEvidence:
        """Make it for the documents of a corpus.

        Args:
            head: The adapter's head.
            blocks: The documents' embeddings as indexed, `(m, dim)` in blocks of rows.
            words: Counts of their words, `(m, vocabulary)`; needed if the head reads words.

        Raises:
            ValueError: If words are needed and not given, or of another vocabulary.
        """
        idf = head.idf.cpu().numpy()
        weights = None
        if head.reads_words:
            if words is None or words.shape[1] != len(idf):
                got = None if words is None else words.shape[1]
                raise ValueError(f"The adapter reads words of a vocabulary of {len(idf)}; got {got}.")
            weights = weigh_words(words, idf, float(head.mean_length))
        device = head.query_inverse.device
        statics = [
            head.document_statics(torch.from_numpy(np.array(block, dtype=np.float32)).to(device)).cpu()
            for block in blocks
        ]
        return cls(torch.cat(statics).numpy(), weights, idf)

    def of_candidates(self, queries: csr_array | None, rows: np.ndarray) -> CandidateEvidence:
        """Return what is known of each query's candidates.

        Args:
            queries: Counts of the queries' words, `(n, vocabulary)`; needed if the head reads words.
            rows: Rows of the candidates among the documents, `(n, k)`.

        Raises:
            ValueError: If words are needed and not given.
        """
        shared = None
        if self.words is not None:
            if queries is None:
                raise ValueError("The adapter reads words: give the queries' texts, not embeddings alone.")
            shared = torch.from_numpy(overlap(queries, self.words, self.idf, rows))
        return CandidateEvidence(torch.from_numpy(self.statics[rows]), shared)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, complete or not at all."""
        tensors = {"statics": self.statics, "idf": self.idf}
        if self.words is not None:
            tensors["words.weights"] = self.words.data
            tensors["words.indices"] = self.words.indices
            tensors["words.ends"] = self.words.indptr
        with atomic_path(path) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentEvidence:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        try:
            tensors = load_file(path)
            statics, idf = tensors["statics"], tensors["idf"]
            words = None
            if "words.weights" in tensors:
                parts = tuple(tensors[f"words.{name}"] for name in ("weights", "indices", "ends"))
                words = csr_array(parts, shape=(len(statics), len(idf)))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is missing or damaged: {error}") from error
        return cls(statics, words, idf)
