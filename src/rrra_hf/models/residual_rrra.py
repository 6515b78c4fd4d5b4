"""The paper's reader: a residual network over the two embeddings of a query and a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .features_rrra import CandidateFeatures

SCORINGS = ("log_odds", "product")


class ResidualOutput(NamedTuple):
    """What `ResidualReader.adapt` returns.

    Args:
        adapted: Adapted document embeddings `a`, `(..., dim)`.
        class_logits: Raw readouts, `(..., num_classes)`; four classes are in the order TP, FN, FP, TN.
        log_odds: Log-odds of relevance, not calibrated, `(...)`.
    """

    adapted: Tensor
    class_logits: Tensor
    log_odds: Tensor


class ResidualReader(nn.Module):
    """Moves a document's embedding according to the query, and reads its relevance off three cosines.

    With `q` and `c` the normalised embeddings of query and document, the adapted document embedding is a
    residual, `a = c + MLP(q, c, q * c)`. This is the paper's MLP over `[q - c, q * c, q + c]` with its first
    layer rewritten: the parts for `q - c` and `q + c` become one matrix per side, and reranking needs one
    product per candidate for the layer. The readout is `w . [cos(q, a), cos(a, c), cos(q, c)] + b`. The last
    layer of the MLP starts at zero, so that `a = c` before it is fitted.

    Args:
        dim: Dimension of the embeddings.
        tau: Temperature of the retriever's cosines: the readout starts as `cos(q, a) / tau`.
        hidden_size: Hidden units of the MLP.
        num_classes: 1 for a relevance logit, 4 for the paper's classes TP / FN / FP / TN.
        scoring: `"log_odds"`: `cos / tau + lambda * log_odds`; `"product"` (the paper's form):
            `(cos + 1) / 2 * probability ** lambda`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        RRRA, arXiv 2508.11670.
    """

    reads_pairs = True
    reads_words = False
    reads_word_pieces = False
    remembers = False
    strengths: Sequence[float] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)

    def __init__(
        self, dim: int, tau: float, hidden_size: int = 384, num_classes: int = 1, scoring: str = "log_odds"
    ):
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {hidden_size}.")
        if num_classes not in (1, 4):
            raise ValueError(f"num_classes must be 1 or 4, got {num_classes}.")
        if scoring not in SCORINGS:
            raise ValueError(f"scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}.")
        self.tau = tau
        self.num_classes = num_classes
        self.scoring = scoring
        self.query_layer = nn.Linear(dim, hidden_size)
        self.document_layer = nn.Linear(dim, hidden_size, bias=False)
        self.product_layer = nn.Linear(dim, hidden_size, bias=False)
        self.output_layer = nn.Linear(hidden_size, dim)
        self.readout = nn.Linear(3, num_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the starting point: `a = c`, and a readout that follows `cos(q, a)`."""
        nn.init.zeros_(self.output_layer.weight)
        nn.init.zeros_(self.output_layer.bias)
        # The labelled classes rise with cos(q, a) and the others fall.
        self.readout.weight.copy_(torch.outer(self._labelled(), torch.tensor([1.0, 0.0, 0.0])) / self.tau)
        nn.init.zeros_(self.readout.bias)

    def _labelled(self) -> Tensor:
        """Return the direction in the classes that raises the log-odds by 1."""
        return torch.tensor([1.0] if self.num_classes == 1 else [0.5, 0.5, -0.5, -0.5])

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a reader of this size, except `dim` and `tau`."""
        return {
            "hidden_size": self.query_layer.out_features,
            "num_classes": self.num_classes,
            "scoring": self.scoring,
        }

    # ---------------------------------------------------------------- pairs

    def adapt(self, q: Tensor, c: Tensor) -> ResidualOutput:
        """Adapt each document to each query.

        Args:
            q: Query embeddings of any length, `(..., dim)`; they are normalised.
            c: Document embeddings, `(..., dim)`, broadcastable against `q`.
        """
        q, c = F.normalize(q, dim=-1), F.normalize(c, dim=-1)
        product = q * c
        mixed = self.product_layer(product) + self.document_layer(c) + self.query_layer(q)
        return self._read_out(q, self._moved(c, mixed), c, product)

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Return the log-odds of relevance of each pair, with gradients, `(...)`.

        Args:
            q: Query embeddings of any length, `(..., dim)`.
            c: Document embeddings, `(..., dim)`, broadcastable against `q`.
        """
        return self.adapt(q, c).log_odds

    def _moved(self, c: Tensor, mixed: Tensor) -> Tensor:
        return c + self.output_layer(F.gelu(mixed))

    def _read_out(self, q: Tensor, adapted: Tensor, c: Tensor, product: Tensor) -> ResidualOutput:
        norm = torch.linalg.vector_norm(adapted, dim=-1).clamp_min(1e-6)
        cosines = torch.stack(
            [(adapted * q).sum(-1) / norm, (adapted * c).sum(-1) / norm, product.sum(-1)], dim=-1
        )
        class_logits = self.readout(cosines)
        if self.num_classes == 1:
            return ResidualOutput(adapted, class_logits, class_logits.squeeze(-1))
        log_odds = class_logits[..., :2].logsumexp(-1) - class_logits[..., 2:].logsumexp(-1)
        return ResidualOutput(adapted, class_logits, log_odds)

    # ---------------------------------------------------------------- candidates

    def document_statics(self, documents: Tensor) -> Tensor:
        """Return nothing for each document, `(m, 0)`: this reader precomputes no features."""
        return documents.new_empty(len(documents), 0)

    def read(
        self, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return the log-odds of relevance of each query's candidates, for ranking and as an estimate.

        What a document and its product with the query add to a layer, `W c + V (q * c)`, is linear in `c`.
        A query makes one matrix of `W` and `V` for all its candidates, which saves products.

        Args:
            q: Normalised query embeddings, `(n, dim)`.
            c: Normalised embeddings of the candidates, `(n, k, dim)`.
            cosines: Not used.
            given: Not used.
            temperature: Divides the log-odds.

        Returns:
            Twice the same tensor, `(n, k)`.
        """
        each = q[:, None]
        matrix = torch.addcmul(self.document_layer.weight, self.product_layer.weight, each)
        mixed = torch.baddbmm(self.query_layer(q)[:, None], c, matrix.mT)
        log_odds = self._read_out(each, self._moved(c, mixed), c, each * c).log_odds / temperature
        return log_odds, log_odds

    def score(self, cosines: Tensor, ranking: Tensor, tau: float, weight: float) -> Tensor:
        """Return the reranking scores, of any shape, by `scoring`."""
        if self.scoring == "product":
            return (cosines + 1) / 2 * torch.sigmoid(ranking) ** weight
        return cosines / tau + weight * ranking

    @torch.no_grad()
    def shift_log_odds(self, amount: float) -> None:
        """Add a constant to the log-odds of every pair."""
        self.readout.bias.add_(self._labelled().to(self.readout.bias) * amount)
