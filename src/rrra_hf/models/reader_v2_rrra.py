"""The reader of features that format version 2 and before had: adapters that were saved then keep it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .features_rrra import CandidateFeatures
from .heads_rrra import StandardizedLinear
from .memory_rrra import Memory, Recalled, check_rows

UNITS = {"ranking": 32, "relevance": 8}
AGREEMENT_TAU = 0.03
OF_WORDS = ("words", "expansion")
WITHOUT_WORDS = ("mapped", "base", "memory", "hubness", "agreement")
NAMES = (*WITHOUT_WORDS, *OF_WORDS)


class WordPieceMemory(Memory):
    """A memory that also has the word pieces of the labelled documents, and inverses of the linear maps.

    Args:
        dim: Dimension of the embeddings.
        queries: Number of training queries.
        documents: Number of labelled documents.
        pairs: Number of labelled pairs.
        vocabulary: Number of word pieces; 0 if none are read.
        entries: Number of distinct word pieces of all labelled documents, counted per document.
    """

    query_inverse: Tensor
    document_inverse: Tensor
    words: Tensor
    counts: Tensor
    ends: Tensor
    idf: Tensor
    mean_length: Tensor

    def __init__(self, dim: int, queries: int, documents: int, pairs: int, vocabulary: int, entries: int):
        super().__init__(dim, queries, documents, pairs)
        for name, size in (("vocabulary", vocabulary), ("entries", entries)):
            if type(size) is not int or size < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {size!r}.")
        buffers = {
            # They give back the embeddings that the encoder made.
            "query_inverse": torch.eye(dim),
            "document_inverse": torch.eye(dim),
            # The word pieces of the labelled documents, as a sparse matrix by row.
            "words": torch.zeros(entries, dtype=torch.int32),
            "counts": torch.zeros(entries, dtype=torch.float16),
            "ends": torch.zeros(documents + 1 if vocabulary else 0, dtype=torch.int32),
            "idf": torch.zeros(vocabulary),
            "mean_length": torch.ones(()),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def sizes(self) -> dict[str, int]:
        """Return the arguments that make a memory of this size, except `dim`."""
        return {**super().sizes(), "vocabulary": len(self.idf), "entries": len(self.words)}

    def check(self) -> None:
        """Refuse what no labelled documents give, see `Memory.check`."""
        super().check()
        check_rows(self.words, len(self.idf), "words")
        ends = self.ends.long()
        if len(ends) and (ends[0] != 0 or ends[-1] != len(self.words) or (ends.diff() < 0).any()):
            raise ValueError(f"memory.ends must ascend from 0 to {len(self.words)}.")

    def before_maps(self, q: Tensor) -> Tensor:
        """Return the normalised query embeddings as they were before the linear map, `(n, dim)`."""
        return F.normalize(q @ self.query_inverse.T, dim=-1)

    def document_scale(self, documents: Tensor) -> Tensor:
        """Return what makes up for the length of documents before the maps, `(m, dim)` to `(m,)`."""
        return 1 / torch.linalg.vector_norm(documents @ self.document_inverse.T, dim=-1).clamp_min(1e-6)

    def _probe(self, q: Tensor) -> Tensor:
        return F.normalize(q + self.before_maps(q), dim=-1)


class ContextHead(StandardizedLinear):
    """A linear layer over standardised features, plus a small network that compares the candidates.

    Args:
        inputs: Number of features.
        units: Number of hidden units.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs)
        self.hidden = nn.Linear(3 * inputs + 1, units)
        self.output = nn.Linear(units, 1, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Read the features of each query's candidates: `(n, k, inputs)` to `(n, k)`."""
        x = self.standardized(features)
        hidden = torch.relu(self.hidden(in_context(x)))
        return (self.linear(x) + self.output(hidden)).squeeze(-1)


def in_context(x: Tensor) -> Tensor:
    """Return the features of each candidate and how they compare to those of the query's other candidates.

    Args:
        x: Features, `(n, k, inputs)`. The first is the score that the candidates were retrieved by.

    Returns:
        For each candidate its features, their differences from the maximum and from the mean of the other
        candidates, and the share of the candidates with a higher first feature, `(n, k, 3 * inputs + 1)`.

    Example:
        >>> in_context(torch.tensor([[[3.0], [1.0], [2.0]]]))[0, 0].tolist()
        [3.0, 1.0, 1.5, 0.0]
    """
    k = x.shape[-2]
    if k < 2:
        zeros = torch.zeros_like(x)
        return torch.cat([x, zeros, zeros, zeros[..., :1]], dim=-1)
    two = x.topk(2, dim=-2)
    first = torch.arange(k, device=x.device)[:, None] == two.indices[..., :1, :]
    greatest = torch.where(first, two.values[..., 1:, :], two.values[..., :1, :])
    mean = (x.sum(-2, keepdim=True) - x) / (k - 1)
    score = x[..., 0]
    above = (score[..., None, :] > score[..., :, None]).to(x.dtype).mean(-1, keepdim=True)
    return torch.cat([x, x - greatest, x - mean, above], dim=-1)


class Version2Reader(nn.Module):
    """Reads raw features of a query's candidates, those of words from the encoder's word pieces.

    Args:
        dim: Dimension of the embeddings.
        tau: Temperature of the retriever's cosines; not used by this reader.
        names: Names of the features to read, among `NAMES`.
        queries: Number of training queries in memory.
        documents: Number of labelled documents in memory.
        pairs: Number of labelled pairs in memory.
        vocabulary: Number of word pieces; 0 if none are read.
        entries: Number of distinct word pieces of all labelled documents, counted per document.

    Raises:
        ValueError: If a name is unknown, or `names` and `vocabulary` disagree about words.
    """

    reads_pairs = False
    reads_words = False
    remembers = True
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)

    def __init__(
        self,
        dim: int,
        tau: float,
        names: Sequence[str] = WITHOUT_WORDS,
        queries: int = 0,
        documents: int = 0,
        pairs: int = 0,
        vocabulary: int = 0,
        entries: int = 0,
    ):
        super().__init__()
        unknown = sorted(set(names) - set(NAMES))
        if unknown or not names:
            raise ValueError(f"features must be among {', '.join(NAMES)}; got {', '.join(unknown) or None}.")
        if any(name in OF_WORDS for name in names) != bool(vocabulary):
            raise ValueError(f"vocabulary must be positive with words and 0 without, got {vocabulary}.")
        self.names = list(names)
        self.memory = WordPieceMemory(dim, queries, documents, pairs, vocabulary, entries)
        self.ranking_head = ContextHead(len(names), UNITS["ranking"])
        self.relevance_head = ContextHead(len(names), UNITS["relevance"])

    @property
    def reads_word_pieces(self) -> bool:
        """Whether word pieces are among the features."""
        return any(name in OF_WORDS for name in self.names)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a reader of this size, except `dim` and `tau`."""
        return {"names": self.names, **self.memory.sizes()}

    def document_statics(self, documents: Tensor) -> Tensor:
        """Return hubness, and the scale of the cosine before the maps: `(m, dim)` to `(m, 2)`."""
        return torch.stack([self.memory.hubness(documents), self.memory.document_scale(documents)], dim=-1)

    @torch.no_grad()
    def features(self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures) -> Tensor:
        """Return the features of each candidate, `(n, k, len(names))`.

        Raises:
            ValueError: If word pieces are read and none are given.
        """
        statics = given.statics
        if statics is None:
            statics = self.document_statics(c.flatten(0, 1)).unflatten(0, c.shape[:2])
        found = {
            "mapped": cosines,
            "hubness": statics.to(q)[..., 0],
            "words": given.words,
            "expansion": given.expansion,
        }
        recalled = self.memory.recall(q) if given.recalled is None else given.recalled
        found |= self._views(q, c, cosines, statics.to(q)[..., 1], recalled)
        values = []
        for name in self.names:
            value = found[name]
            if value is None:
                raise ValueError("The adapter reads word pieces: give the queries' texts, too.")
            values.append(value.to(q))
        return torch.stack(values, dim=-1)

    def _views(
        self, q: Tensor, c: Tensor, cosines: Tensor, scale: Tensor, recalled: Recalled
    ) -> dict[str, Tensor | None]:
        """Return the products with the query before the maps, with answers, and with the consensus."""
        memory = self.memory
        remembered = torch.einsum("nm,nmd->nd", recalled.weights, memory.answers[recalled.rows].to(q))
        share = (cosines / AGREEMENT_TAU).softmax(-1)
        consensus = torch.einsum("nk,nkd->nd", share, c)
        base = memory.before_maps(q) @ memory.document_inverse
        # One product for all three: it takes most of the time.
        views = torch.einsum("nvd,nkd->nkv", torch.stack([base, remembered, consensus], dim=1), c)
        return {"base": views[..., 0] * scale, "memory": views[..., 1], "agreement": views[..., 2] - share}

    def read(
        self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return what the ranking adds to the retriever's score, and the log-odds of relevance."""
        found = self.features(q, c, cosines, given)
        return self.ranking_head(found), self.relevance_head(found) / temperature

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Refuse to read a pair by itself.

        Raises:
            ValueError: Always. Features compare a query's candidates.
        """
        raise ValueError("An adapter that reads features needs all candidates of a query.")

    def score(self, cosines: Tensor, ranking: Tensor, tau: float, weight: float) -> Tensor:
        """Return the reranking scores, `cosines / tau + weight * ranking`, of any shape."""
        return cosines / tau + weight * ranking
