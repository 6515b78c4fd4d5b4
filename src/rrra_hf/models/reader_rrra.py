"""What reads candidates for an adapter, by default: features, and a head for each of two purposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .features_rrra import FEATURES, OF_LABELS, RANKING, RELEVANCE, CandidateFeatures, Candidates
from .heads_rrra import Head
from .memory_rrra import Memory

RANKING_UNITS = 32
# More overfit: few collections tell what else is relevant.
RELEVANCE_UNITS = 8


class FeatureReader(nn.Module):
    """Reads features of a query's candidates with two small networks.

    The ranking head gives a score; it is fitted with a listwise loss. The relevance head gives the log-odds
    of relevance; it is fitted with a pointwise loss. Both start at zero. Features of words are 0 for
    candidates without words.

    Args:
        dim: Dimension of the embeddings; of no effect if no training query is remembered.
        tau: Temperature of the retriever's cosines; not used by this reader.
        ranking: Names of the features that the ranking head reads; those that need no labels if not given.
        relevance: Names of the features that the relevance head reads.
        queries: Number of training queries in memory.
        documents: Number of labelled documents in memory.
        pairs: Number of labelled pairs in memory.

    Raises:
        ValueError: If a name is unknown, or features of labels are to be read and nothing is remembered.
    """

    # Whether one query and one document can be read by themselves, with gradients.
    reads_pairs = False
    reads_words = True
    reads_word_pieces = False
    # Weights in the ranking to choose from: with 1, the retriever's score counts as a feature only.
    strengths: Sequence[float] = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)

    def __init__(
        self,
        dim: int,
        tau: float,
        ranking: Sequence[str] = tuple(RANKING),
        relevance: Sequence[str] = tuple(RELEVANCE),
        queries: int = 0,
        documents: int = 0,
        pairs: int = 0,
    ):
        super().__init__()
        self.ranking, self.relevance = list(ranking), list(relevance)
        self.names = list(dict.fromkeys([*ranking, *relevance]))
        unknown = sorted(set(self.names) - FEATURES.keys())
        if unknown or not ranking or not relevance:
            got = ", ".join(unknown) or None
            raise ValueError(f"features must be among {', '.join(FEATURES)}; got {got}.")
        if not queries and any(name in OF_LABELS for name in self.names):
            raise ValueError(f"queries must be positive to read {', '.join(OF_LABELS)}; got {queries}.")
        self.memory = Memory(dim if dim and queries else 0, queries, documents, pairs)
        self.ranking_head = Head(len(self.ranking), RANKING_UNITS)
        self.relevance_head = Head(len(self.relevance), RELEVANCE_UNITS)

    @property
    def remembers(self) -> bool:
        """Whether features of training queries are read."""
        return len(self.memory.queries) > 0

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a reader of this size, except `dim` and `tau`."""
        return {"ranking": self.ranking, "relevance": self.relevance, **self.memory.sizes()}

    def document_statics(self, documents: Tensor) -> Tensor:
        """Return the features that depend on the document alone: `(m, dim)` to `(m, 1)`, or `(m, 0)`."""
        if not self.remembers:
            return documents.new_empty(len(documents), 0)
        return self.memory.hubness(documents)[:, None]

    @torch.no_grad()
    def features(self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures) -> Tensor:
        """Return the features of each candidate, `(n, k, len(names))`.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.
            c: Normalised embeddings of the candidates, as indexed, `(n, k, dim)`.
            cosines: Cosines of the candidates, `(n, k)`.
            given: What is known about the candidates already.
        """
        found = self._by_name(q, c, cosines, given)
        return torch.stack([found[name] for name in self.names], dim=-1).to(q)

    @torch.no_grad()
    def _by_name(self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures) -> dict[str, Tensor]:
        """Return the features, `(n, k)` each."""
        if not cosines.numel():
            return dict.fromkeys(self.names, q.new_zeros(cosines.shape))
        candidates = Candidates(self.memory, q, c, cosines, given)
        return {name: FEATURES[name](candidates) for name in self.names}

    def read(
        self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return what the ranking adds to the retriever's score, and the log-odds of relevance.

        Args:
            q: As in `features`, as the next three.
            c: Embeddings of the candidates.
            cosines: Cosines of the candidates.
            given: What is known about the candidates already.
            temperature: Divides the log-odds of relevance.

        Returns:
            Two tensors `(n, k)`.
        """
        found = self._by_name(q, c, cosines, given)
        ranking, relevance = (
            head(torch.stack([found[name] for name in names], dim=-1).to(q))
            for head, names in ((self.ranking_head, self.ranking), (self.relevance_head, self.relevance))
        )
        return ranking, relevance / temperature

    def select(self, features: Tensor, names: Sequence[str]) -> Tensor:
        """Return the features of the given names, `(n, k, len(self.names))` to `(n, k, len(names))`."""
        return features[..., [self.names.index(name) for name in names]]

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Refuse to read a pair by itself.

        Raises:
            ValueError: Always. Features compare a query's candidates.
        """
        raise ValueError(
            "An adapter that reads features needs all candidates of a query: call rerank or probability. "
            "A residual adapter, fitted with ResidualFitArguments, reads pairs."
        )

    def score(self, cosines: Tensor, ranking: Tensor, tau: float, weight: float) -> Tensor:
        """Return the reranking scores, `(1 - weight) * cosines / tau + weight * ranking`, of any shape."""
        mixed = (1 - weight) / tau * cosines + weight * ranking
        return mixed.masked_fill(cosines == -torch.inf, -torch.inf)
