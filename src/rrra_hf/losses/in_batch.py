"""A batch's queries against all documents of the batch, on one device or several."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor


def all_documents(columns: list[Tensor], gather_across_devices: bool) -> tuple[Tensor, Tensor]:
    """Return the documents of the batch, column by column, and where this device's own are.

    With columns of `length` documents, of all devices where they are gathered, the document of
    query `i` in column `j` is at `j * length + own[i]`; positives are column 0.

    Args:
        columns: Positives, and each column of negatives, all `(batch, dim)`.
        gather_across_devices: Take the documents of all devices.

    Returns:
        Documents, `(num_columns * length, dim)`, and `own`, `(batch,)`.
    """
    batch, first = len(columns[0]), 0
    if gather_across_devices:
        columns = [all_gather_with_grad(column) for column in columns]
        first = get_rank() * batch
    return torch.cat(columns), torch.arange(first, first + batch, device=columns[0].device)


def in_batch_logits(loss: MultipleNegativesRankingLoss, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the scaled similarities of each query and all documents, and where its positive is.

    Args:
        loss: Its `similarity_fct`, `scale` and `gather_across_devices` are used.
        embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.

    Returns:
        Logits, `(batch, num_documents)`, in the order of `all_documents`, and `own`, `(batch,)`.
    """
    queries, *columns = embeddings
    documents, own = all_documents(columns, loss.gather_across_devices)
    return loss.similarity_fct(queries, documents) * loss.scale, own
