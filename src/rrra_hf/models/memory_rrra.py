"""What an adapter remembers of its training pairs, and of the words of the corpus."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Number of similar training queries that are recalled for a query, and the temperature of their weights.
NEIGHBOURS = 30
MEMORY_TAU = 0.05
# Number of training queries that the hubness of a document is averaged over.
HUB_QUERIES = 10
# Cosine above which two documents count as the same; half precision preserves that much.
SAME = 0.9995
# Documents handled at a time.
BLOCK = 256


class Memory(nn.Module):
    """The training queries and their labelled documents, without any trainable parameter.

    Embeddings are kept in half precision.

    Args:
        dim: Dimension of the embeddings.
        queries: Number of training queries.
        documents: Number of labelled documents.
        pairs: Number of labelled pairs.
        vocabulary: Number of words; 0 if no words are read.
        entries: Number of distinct words of all labelled documents, counted per document.
    """

    queries: Tensor
    answers: Tensor
    documents: Tensor
    pairs: Tensor
    query_inverse: Tensor
    document_inverse: Tensor
    words: Tensor
    counts: Tensor
    ends: Tensor
    idf: Tensor
    mean_length: Tensor

    def __init__(self, dim: int, queries: int, documents: int, pairs: int, vocabulary: int, entries: int):
        super().__init__()
        buffers = {
            "queries": torch.zeros(queries, dim, dtype=torch.float16),
            # The mean of each query's labelled documents.
            "answers": torch.zeros(queries, dim, dtype=torch.float16),
            "documents": torch.zeros(documents, dim, dtype=torch.float16),
            # Rows of query and document of each label.
            "pairs": torch.zeros(pairs, 2, dtype=torch.int32),
            # Inverses of the linear maps: they give back the embeddings that the encoder made.
            "query_inverse": torch.eye(dim),
            "document_inverse": torch.eye(dim),
            # The words of the labelled documents, as a sparse matrix by row.
            "words": torch.zeros(entries, dtype=torch.int32),
            "counts": torch.zeros(entries, dtype=torch.float16),
            "ends": torch.zeros(documents + 1 if vocabulary else 0, dtype=torch.int32),
            "idf": torch.zeros(vocabulary),
            "mean_length": torch.ones(()),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self._single: tuple[Tensor, int, Tensor] | None = None

    def sizes(self) -> dict[str, int]:
        """Return the arguments that make a memory of this size, except `dim`."""
        return {
            "queries": len(self.queries),
            "documents": len(self.documents),
            "pairs": len(self.pairs),
            "vocabulary": len(self.idf),
            "entries": len(self.words),
        }

    @torch.no_grad()
    def remember(self, queries: Tensor, documents: Tensor, pairs: Tensor) -> None:
        """Store the training pairs.

        Args:
            queries: Embeddings of the training queries, as searched with, `(queries, dim)`.
            documents: Embeddings of the labelled documents, as indexed, `(documents, dim)`.
            pairs: Rows of query and document of each label, `(pairs, 2)`.
        """
        pairs = pairs.long()
        answers = torch.zeros_like(queries).index_add_(0, pairs[:, 0], documents[pairs[:, 1]])
        self.queries.copy_(self._both(queries))
        self.answers.copy_(answers / torch.bincount(pairs[:, 0], minlength=len(queries))[:, None])
        self.documents.copy_(documents)
        self.pairs.copy_(pairs)

    @torch.no_grad()
    def recall(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and rows of the training queries that are most similar to each query.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.

        Returns:
            Weights that add up to 1, and rows, each `(n, NEIGHBOURS)`, or fewer if fewer are remembered.
        """
        cosines = self._both(q) @ self._single_precision().T
        similar = cosines.topk(min(NEIGHBOURS, len(self.queries)))
        return (similar.values / MEMORY_TAU).softmax(-1), similar.indices

    @torch.no_grad()
    def document_statics(self, documents: Tensor) -> Tensor:
        """Return the features that depend on the document alone: its hubness, and the scale of `base`.

        Hubness is the mean cosine with the `HUB_QUERIES` closest training queries, except those that the
        document is labelled for.

        Args:
            documents: Embeddings as indexed, `(m, dim)`.

        Returns:
            `(m, 2)`.
        """
        queries, labelled = self._single_precision(), self.documents.float()
        pairs = self.pairs.long()
        statics = []
        for block in documents.split(BLOCK):
            cosines = queries @ block.T
            label, column = (labelled @ block.T > SAME)[pairs[:, 1]].nonzero(as_tuple=True)
            cosines[pairs[label, 0], column] = -torch.inf
            closest = cosines.topk(min(HUB_QUERIES, len(cosines)), dim=0).values
            others = closest.isfinite()
            hubness = closest.where(others, 0.0).sum(0) / others.sum(0).clamp_min(1)
            length = torch.linalg.vector_norm(block @ self.document_inverse.T, dim=-1)
            statics.append(torch.stack([hubness, 1 / length.clamp_min(1e-6)], dim=-1))
        return torch.cat(statics)

    def before_maps(self, q: Tensor) -> Tensor:
        """Return the normalised query embeddings as they were before the linear map, `(n, dim)`."""
        return F.normalize(q @ self.query_inverse.T, dim=-1)

    def _both(self, q: Tensor) -> Tensor:
        return F.normalize(q + self.before_maps(q), dim=-1)

    def _single_precision(self) -> Tensor:
        """Return the training queries in single precision. The conversion takes as long as a search."""
        half = self.queries
        version = -1 if half.is_inference() else half._version
        if self._single is None or self._single[0] is not half or self._single[1] != version:
            self._single = half, version, half.float()
        return self._single[2]
