"""What reads candidates for an adapter, by default: features, and a head for each of two purposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .features_rrra import FEATURES, OF_WORDS, CandidateFeatures, feature_inputs
from .heads_rrra import Head
from .memory_rrra import Memory

RANKING_UNITS = 32
RELEVANCE_UNITS = 8
WITHOUT_WORDS = tuple(name for name in FEATURES if name not in OF_WORDS)


class FeatureReader(nn.Module):
    """Reads features of a query's candidates with two small networks.

    The ranking head gives what to add to the retriever's `cosine / tau`; it is fitted with a listwise loss.
    The relevance head gives the log-odds of relevance; it is fitted with a pointwise loss. Both start at
    zero. The features are those of `features_rrra.FEATURES`.

    Args:
        dim: Dimension of the embeddings.
        tau: Temperature of the retriever's cosines; not used by this reader.
        names: Names of the features to read; those that need no words if not given.
        queries: Number of training queries in memory.
        documents: Number of labelled documents in memory.
        pairs: Number of labelled pairs in memory.
        vocabulary: Number of words; 0 if no words are read.
        entries: Number of distinct words of all labelled documents, counted per document.

    Raises:
        ValueError: If a name is unknown, or `names` and `vocabulary` disagree about words.
    """

    # Whether one query and one document can be read by themselves, with gradients.
    reads_pairs = False
    # Weights in the ranking to choose from: a correction is on the scale of the retriever's score already.
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
        unknown = sorted(set(names) - FEATURES.keys())
        if unknown or not names:
            got = ", ".join(unknown) or None
            raise ValueError(f"features must be among {', '.join(FEATURES)}; got {got}.")
        if any(name in OF_WORDS for name in names) != (vocabulary > 0):
            raise ValueError(f"vocabulary must be positive with words and 0 without, got {vocabulary}.")
        self.names = list(names)
        self.memory = Memory(dim, queries, documents, pairs, vocabulary, entries)
        self.ranking_head = Head(len(names), RANKING_UNITS)
        self.relevance_head = Head(len(names), RELEVANCE_UNITS)

    @property
    def reads_words(self) -> bool:
        """Whether words are among the features."""
        return any(name in OF_WORDS for name in self.names)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a reader of this size, except `dim` and `tau`."""
        return {"names": self.names, **self.memory.sizes()}

    def document_statics(self, documents: Tensor) -> Tensor:
        """Return the features that depend on the document alone: `(m, dim)` to `(m, 2)`."""
        return self.memory.document_statics(documents)

    @torch.no_grad()
    def features(self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures) -> Tensor:
        """Return the features of each candidate, `(n, k, len(names))`.

        Args:
            q: Normalised query embeddings, as searched with, `(n, dim)`.
            c: Normalised embeddings of the candidates, as indexed, `(n, k, dim)`.
            cosines: Cosines of the candidates, `(n, k)`.
            given: What is known about the candidates already.

        Raises:
            ValueError: If words are read and none are given.
        """
        inputs = feature_inputs(self.memory, q, c, cosines, given)
        return torch.stack([FEATURES[name](inputs).to(q) for name in self.names], dim=-1)

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
        found = self.features(q, c, cosines, given)
        return self.ranking_head(found), self.relevance_head(found) / temperature

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
        """Return the reranking scores, `cosines / tau + weight * ranking`, of any shape."""
        return cosines / tau + weight * ranking

    @torch.no_grad()
    def shift_log_odds(self, amount: float) -> None:
        """Add a constant to the log-odds of relevance of every candidate."""
        self.relevance_head.linear.bias.add_(amount)
