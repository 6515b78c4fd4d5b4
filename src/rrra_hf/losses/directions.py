"""The scaled similarities of each direction, as in `MultipleNegativesRankingLoss`."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from .in_batch import InBatch


def direction_logits(loss: MultipleNegativesRankingLoss, batch: InBatch, own: Tensor) -> dict[str, Tensor]:
    """Return the scaled similarities of each direction, with the hardness term.

    Args:
        loss: Its `similarity_fct`, `scale`, `directions`, `hardness_mode` and `hardness_strength` are used.
        batch: The batch.
        own: Rows, `(rows,)`.

    Returns:
        For `"query_to_doc"` and `"doc_to_doc"` `(rows, documents)`, for `"query_to_query"` and
        `"doc_to_query"` `(rows, queries)`. In `"query_to_query"` and `"doc_to_doc"` a text is -inf to itself
        and to the other texts of its row.
    """
    queries, positives = batch.queries[own], batch.documents[own]
    similarity = loss.similarity_fct
    made = {"query_to_doc": similarity(queries, batch.documents)}
    if "query_to_query" in loss.directions:
        same = torch.arange(batch.world, device=own.device) == own[:, None]
        made["query_to_query"] = similarity(queries, batch.queries).masked_fill(same, -torch.inf)
    if "doc_to_query" in loss.directions:
        made["doc_to_query"] = similarity(batch.queries, positives).T
    if "doc_to_doc" in loss.directions:
        made["doc_to_doc"] = similarity(batch.documents, positives).T.masked_fill(
            batch.is_own(own), -torch.inf
        )
    logits = {direction: values * loss.scale for direction, values in made.items()}
    if loss.hardness_mode is not None and loss.hardness_strength > 0:
        penalty = loss.hardness_strength * made["query_to_doc"].detach()
        penalised = _penalised(loss.hardness_mode, batch, own)
        logits["query_to_doc"] = logits["query_to_doc"] + torch.where(penalised, penalty, 0.0)
    return logits


def _penalised(hardness_mode: str, batch: InBatch, own: Tensor) -> Tensor:
    """Return to which pairs of queries and documents the hardness term is added, `(rows, documents)`."""
    is_own = batch.is_own(own)
    if hardness_mode == "in_batch_negatives":
        return ~is_own
    negatives = is_own if hardness_mode == "hard_negatives" else torch.ones_like(is_own)
    return negatives.scatter(1, own[:, None], False)
