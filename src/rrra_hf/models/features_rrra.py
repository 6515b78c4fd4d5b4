"""Features of relevance beyond one cosine: what training pairs, words and the other candidates say."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = ("mapped", "base", "memory", "hubness", "agreement", "words", "expansion")
# What needs the words of queries and documents.
OF_WORDS = ("words", "expansion")
# Training queries that are remembered for a query, and the temperature of their weights.
NEIGHBOURS = 30
MEMORY_TAU = 0.05
AGREEMENT_TAU = 0.03
# Training queries that make a document's hubness.
HUB_QUERIES = 10
# Cosine from which on a document is taken for a labelled one: half precision keeps that much.
SAME = 0.9995
RANKING_UNITS = 32
RELEVANCE_UNITS = 8
# Documents whose static features is computed at a time.
BLOCK = 256


class CandidateFeatures(NamedTuple):
    """What is known of candidates beside their embeddings.

    Args:
        statics: Static features of each candidate, `(n, k, 2)`, as `FeatureReader.document_statics` makes
            it; None to compute it, which takes long.
        words: Words shared with the query, `(n, k)`; None where the head reads no words.
        expansion: Words shared with what the query makes remember, `(n, k)`; likewise.
        recalled: What `FeatureReader.recall` returns for the queries; None to compute it.
    """

    statics: Tensor | None = None
    words: Tensor | None = None
    expansion: Tensor | None = None
    recalled: tuple[Tensor, Tensor] | None = None


class FeatureReader(nn.Module):
    """Ranks candidates, and estimates their relevance, by several pieces of cheap features.

    All of it is read from the embeddings that were searched with, a memory of the training pairs, and the
    words (if given):

    * `mapped`: the cosine of the search;
    * `base`: the cosine before the linear maps of stage 1, which the maps' inverses give back;
    * `memory`: the cosine of the document with what was relevant to the most similar training queries;
    * `hubness`: how close the document is to training queries that it does not answer;
    * `agreement`: how close it is to the other candidates;
    * `words`: the query's share of rare words that the document has, by BM25;
    * `expansion`: the words it shares with what was relevant to the most similar training queries.

    Two small networks read the features, and how each piece stands to that of the other candidates. The
    *ranker* gives what to add to the retriever's `cosine / tau`, the *judge* the log-odds of relevance: the
    first is best fitted by listwise, the second by pointwise loss. Both start at zero.

    Args:
        dim: Dimension of the embeddings.
        tau: Temperature of the retriever's cosines.
        names: Pieces of features to read, of `FEATURES`.
        queries: Training queries remembered.
        documents: Labelled documents remembered.
        pairs: Labelled pairs of them.
        vocabulary: Number of words; 0 where none are read.
        entries: Distinct words of all labelled documents remembered, counted by document.

    Raises:
        ValueError: If a name is unknown or none is given, or `words` and `vocabulary` disagree.
    """

    memory_queries: Tensor
    memory_answers: Tensor
    memory_documents: Tensor
    memory_pairs: Tensor
    query_inverse: Tensor
    document_inverse: Tensor
    memory_words: Tensor
    memory_counts: Tensor
    memory_ends: Tensor
    idf: Tensor
    mean_length: Tensor

    def __init__(
        self,
        dim: int,
        tau: float,
        names: list[str],
        queries: int,
        documents: int,
        pairs: int,
        vocabulary: int = 0,
        entries: int = 0,
    ):
        super().__init__()
        unknown = sorted(set(names) - set(FEATURES))
        if unknown or not names:
            raise ValueError(f"features must be among {', '.join(FEATURES)}; got {', '.join(names) or None}.")
        if any(name in OF_WORDS for name in names) != (vocabulary > 0):
            raise ValueError(f"vocabulary must be positive with words and 0 without, got {vocabulary}.")
        self.tau = tau
        self.names = list(names)
        buffers = {
            "memory_queries": torch.zeros(queries, dim, dtype=torch.float16),
            "memory_answers": torch.zeros(queries, dim, dtype=torch.float16),
            "memory_documents": torch.zeros(documents, dim, dtype=torch.float16),
            "memory_pairs": torch.zeros(pairs, 2, dtype=torch.int32),
            "query_inverse": torch.eye(dim),
            "document_inverse": torch.eye(dim),
            # The words of the labelled documents, as a sparse matrix by row.
            "memory_words": torch.zeros(entries, dtype=torch.int32),
            "memory_counts": torch.zeros(entries, dtype=torch.float16),
            "memory_ends": torch.zeros(documents + 1 if vocabulary else 0, dtype=torch.int32),
            "idf": torch.zeros(vocabulary),
            "mean_length": torch.ones(()),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self._single: tuple[Tensor, int, Tensor] | None = None
        self.ranking_head = Reader(len(names), RANKING_UNITS)
        self.relevance_head = Reader(len(names), RELEVANCE_UNITS)

    @property
    def reads_words(self) -> bool:
        """Whether words are among the features."""
        return any(name in OF_WORDS for name in self.names)

    def sizes(self) -> dict[str, Any]:
        """Return the arguments that make a head of this size, but for `dim` and `tau`."""
        return {
            "names": self.names,
            "queries": len(self.memory_queries),
            "documents": len(self.memory_documents),
            "pairs": len(self.memory_pairs),
            "vocabulary": len(self.idf),
            "entries": len(self.memory_words),
        }

    @torch.no_grad()
    def remember(self, queries: Tensor, documents: Tensor, pairs: Tensor) -> None:
        """Set the memory.

        Args:
            queries: Embeddings of the training queries, as searched with, `(queries, dim)`.
            documents: Embeddings of the labelled documents, as indexed, `(documents, dim)`.
            pairs: Rows of query and document of each label, `(pairs, 2)`.
        """
        pairs = pairs.long()
        answers = torch.zeros_like(queries).index_add_(0, pairs[:, 0], documents[pairs[:, 1]])
        self.memory_queries.copy_(self._both(queries))
        self.memory_answers.copy_(answers / torch.bincount(pairs[:, 0], minlength=len(queries))[:, None])
        self.memory_documents.copy_(documents)
        self.memory_pairs.copy_(pairs)

    # ---------------------------------------------------------------- features

    @torch.no_grad()
    def document_statics(self, documents: Tensor) -> Tensor:
        """Return what depends on a document alone: hubness, and the scale of its `base` cosine.

        Hubness is the mean cosine of the `HUB_QUERIES` training queries that are closest to it, those
        aside that it was labelled for.

        Args:
            documents: Embeddings as indexed, `(m, dim)`.

        Returns:
            `(m, 2)`.
        """
        queries, labelled = self._queries(), self.memory_documents.float()
        pairs = self.memory_pairs.long()
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

    @torch.no_grad()
    def features(self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures) -> Tensor:
        """Return the features of each candidate.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.
            c: Normalised embeddings of the candidates, as indexed, `(n, k, dim)`.
            cosines: Cosines of the candidates, `(n, k)`.
            given: What is known beside.

        Returns:
            `(n, k, len(names))`.

        Raises:
            ValueError: If the head reads words and none are given.
        """
        if self.reads_words and (given.words is None or given.expansion is None):
            raise ValueError("The adapter reads words: give those shared with the candidates, too.")
        statics = given.statics
        if statics is None:
            statics = self.document_statics(c.flatten(0, 1)).unflatten(0, c.shape[:2])
        statics = statics.to(q)
        weights, rows = self.recall(q) if given.recalled is None else given.recalled
        remembered = torch.einsum("nm,nmd->nd", weights, self.memory_answers[rows].to(q))
        share = (cosines / AGREEMENT_TAU).softmax(-1)
        consensus = torch.einsum("nk,nkd->nd", share, c)
        base = self._base(q) @ self.document_inverse
        views = torch.einsum("nvd,nkd->nkv", torch.stack([base, remembered, consensus], dim=1), c)
        found: dict[str, Any] = {
            "mapped": cosines,
            "base": views[..., 0] * statics[..., 1],
            "memory": views[..., 1],
            "hubness": statics[..., 0],
            "agreement": views[..., 2] - share,
            "words": given.words,
            "expansion": given.expansion,
        }
        return torch.stack([found[name].to(q) for name in self.names], dim=-1)

    @torch.no_grad()
    def recall(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the rows of the training queries most similar to each query.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.

        Returns:
            Both `(n, NEIGHBOURS)`, or less if fewer are remembered; weights add up to 1.
        """
        cosines = self._both(q) @ self._queries().T
        similar = cosines.topk(min(NEIGHBOURS, len(self.memory_queries)))
        return (similar.values / MEMORY_TAU).softmax(-1), similar.indices

    def _queries(self) -> Tensor:
        """Return the training queries in single precision, converted once: it takes as long as a search."""
        half = self.memory_queries
        version = -1 if half.is_inference() else half._version
        if self._single is None or self._single[0] is not half or self._single[1] != version:
            self._single = half, version, half.float()
        return self._single[2]

    def _base(self, q: Tensor) -> Tensor:
        return F.normalize(q @ self.query_inverse.T, dim=-1)

    def _both(self, q: Tensor) -> Tensor:
        return F.normalize(q + self._base(q), dim=-1)


class Reader(nn.Module):
    """A linear reading of standardised features, and a small network beside it that sees the context.

    Args:
        inputs: Pieces of features.
        units: Hidden units.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.linear = nn.Linear(inputs, 1)
        self.hidden = nn.Linear(3 * inputs + 1, units)
        self.output = nn.Linear(units, 1, bias=False)
        for layer in (self.linear, self.output):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Set mean and deviation to those of some features, `(..., inputs)`."""
        rows = features.flatten(0, -2)
        self.mean.copy_(rows.mean(0))
        self.deviation.copy_(rows.std(0, unbiased=False).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Read the features of the candidates of each query: `(n, k, inputs)` to `(n, k)`."""
        x = (features - self.mean) / self.deviation
        hidden = torch.relu(self.hidden(in_context(x)))
        return (self.linear(x) + self.output(hidden)).squeeze(-1)


def in_context(x: Tensor) -> Tensor:
    """Return features beside how it stands to that of the query's other candidates.

    Args:
        x: `(n, k, inputs)`, the first input being what the candidates were found by.

    Returns:
        Each input, its distance from the greatest and from the mean of the other candidates, and the
        share of the candidates that the first input puts before this one, `(n, k, 3 * inputs + 1)`.

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
    found_by = x[..., 0]
    before = (found_by[..., None, :] > found_by[..., :, None]).to(x.dtype).mean(-1, keepdim=True)
    return torch.cat([x, x - greatest, x - mean, before], dim=-1)
