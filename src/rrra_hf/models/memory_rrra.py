"""What an adapter remembers of its training pairs."""

from __future__ import annotations

from typing import NamedTuple

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
# Documents, and labels, handled at a time.
BLOCK = 256
PAIRS = 65_536


class Recalled(NamedTuple):
    """The training queries that are most similar to each query.

    Args:
        weights: Their weights, which add up to 1, `(n, r)`.
        rows: Their rows in memory, `(n, r)`.
        nearest: The cosine of the most similar one, `(n,)`.
    """

    weights: Tensor
    rows: Tensor
    nearest: Tensor


class Memory(nn.Module):
    """The training queries and their labelled documents, without any trainable parameter.

    Embeddings are kept in half precision.

    Args:
        dim: Dimension of the embeddings.
        queries: Number of training queries.
        documents: Number of labelled documents.
        pairs: Number of labelled pairs.

    Raises:
        ValueError: If a number is negative or isn't whole.
    """

    queries: Tensor
    answers: Tensor
    documents: Tensor
    pairs: Tensor

    def __init__(self, dim: int, queries: int, documents: int, pairs: int):
        super().__init__()
        for name, size in (("queries", queries), ("documents", documents), ("pairs", pairs)):
            if type(size) is not int or size < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {size!r}.")
        buffers = {
            "queries": torch.zeros(queries, dim, dtype=torch.float16),
            # The mean of each query's labelled documents.
            "answers": torch.zeros(queries, dim, dtype=torch.float16),
            "documents": torch.zeros(documents, dim, dtype=torch.float16),
            # Rows of query and document of each label.
            "pairs": torch.zeros(pairs, 2, dtype=torch.int32),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self._single: tuple[Tensor, int, Tensor] | None = None

    def sizes(self) -> dict[str, int]:
        """Return the arguments that make a memory of this size, except `dim`."""
        return {"queries": len(self.queries), "documents": len(self.documents), "pairs": len(self.pairs)}

    @torch.no_grad()
    def remember(self, queries: Tensor, documents: Tensor, pairs: Tensor) -> None:
        """Store the training pairs.

        Args:
            queries: Embeddings of the training queries, as searched with, `(queries, dim)`.
            documents: Embeddings of the labelled documents, as indexed, `(documents, dim)`.
            pairs: Rows of query and document of each label, `(pairs, 2)`.
        """
        pairs = pairs.long()
        answers = torch.zeros_like(queries)
        # Not all at once: a document takes its memory for each of its labels.
        for some in pairs.split(PAIRS):
            answers.index_add_(0, some[:, 0], documents[some[:, 1]])
        self.queries.copy_(F.normalize(queries, dim=-1))
        self.answers.copy_(answers / torch.bincount(pairs[:, 0], minlength=len(queries))[:, None])
        self.documents.copy_(documents)
        self.pairs.copy_(pairs)

    def check(self) -> None:
        """Refuse pairs of queries and documents that are not remembered.

        Raises:
            ValueError: If there are any.
        """
        for column, size in enumerate((len(self.queries), len(self.documents))):
            check_rows(self.pairs[:, column], size, "pairs")

    @torch.no_grad()
    def recall(self, q: Tensor) -> Recalled:
        """Return the training queries that are most similar to each query.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.

        Returns:
            `NEIGHBOURS` training queries, or fewer if fewer are remembered.
        """
        cosines = self._probe(q) @ self._single_precision().T
        similar = cosines.topk(min(NEIGHBOURS, len(self.queries)))
        weights = (similar.values / MEMORY_TAU).softmax(-1)
        # Of nothing, 0.
        return Recalled(weights, similar.indices, similar.values[:, :1].sum(-1))

    @torch.no_grad()
    def hubness(self, documents: Tensor) -> Tensor:
        """Return the mean cosine of documents with the closest training queries, `(m, dim)` to `(m,)`.

        Training queries that a document is labelled for are left out.
        """
        queries, labelled = self._single_precision(), self.documents.float()
        asking, starts, counts = self._by_document()
        found = []
        for block in documents.split(BLOCK):
            cosines = queries @ block.T
            same, column = (labelled @ block.T > SAME).nonzero(as_tuple=True)
            # The places of the labels of the first document, of the second, ...
            times = counts[same]
            place = torch.arange(int(times.sum()), device=times.device)
            place += (starts[same] - times.cumsum(0) + times).repeat_interleave(times)
            cosines[asking[place], column.repeat_interleave(times)] = -torch.inf
            closest = cosines.topk(min(HUB_QUERIES, len(cosines)), dim=0).values
            others = closest.isfinite()
            found.append(closest.where(others, 0.0).sum(0) / others.sum(0).clamp_min(1))
        return torch.cat(found)

    def _by_document(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the query of each label, document by document, and where each document's labels start, and
        how many it has."""
        queries, documents = self.pairs.long().T
        counts = torch.bincount(documents, minlength=len(self.documents))
        return queries[documents.argsort()], counts.cumsum(0) - counts, counts

    def _probe(self, q: Tensor) -> Tensor:
        """Return the embeddings that training queries are compared with."""
        return q

    def _single_precision(self) -> Tensor:
        """Return the training queries in single precision. The conversion takes as long as a search."""
        half = self.queries
        version = -1 if half.is_inference() else half._version
        if self._single is None or self._single[0] is not half or self._single[1] != version:
            self._single = half, version, half.float()
        return self._single[2]


def check_rows(rows: Tensor, size: int, name: str) -> None:
    """Refuse rows that are not below a size.

    Raises:
        ValueError: If there are any; the message has the name.
    """
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < size:
        raise ValueError(f"memory.{name} must be in [0, {size}), got {int(rows.min())} to {int(rows.max())}.")
