"""The embeddings of a batch, gathered from all devices if asked for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank, get_world_size
from torch import Tensor


class InBatch(NamedTuple):
    """The embeddings of a batch, or of the batches of all devices.

    With `world` rows on all devices together, the document of row `i` in column `j` is at `j * world + i`;
    positives are column 0.

    Args:
        queries: `(world, dim)`.
        documents: `((1 + n) * world, dim)`, column by column.
        query_ids: Ids of the queries, `(world,)`; equal queries have equal ids.
        document_ids: Ids of the documents, `((1 + n) * world,)`.
        own: Places of this device's rows among all rows, `(batch,)`.
    """

    queries: Tensor
    documents: Tensor
    query_ids: Tensor
    document_ids: Tensor
    own: Tensor

    @property
    def world(self) -> int:
        """Number of rows on all devices together."""
        return len(self.queries)

    @property
    def num_negatives(self) -> int:
        """Number of hard negatives per query."""
        return len(self.documents) // self.world - 1

    def negative_places(self, own: Tensor) -> Tensor:
        """Return the places of the given rows' hard negatives among the documents, `(rows, n)`."""
        columns = torch.arange(1, self.num_negatives + 1, device=own.device)
        return own[:, None] + columns * self.world

    def is_own(self, own: Tensor) -> Tensor:
        """Return which documents are positive or hard negative of the given rows, `(rows, documents)`."""
        rows = torch.arange(len(self.documents), device=own.device) % self.world
        return rows == own[:, None]


def gather_batch(embeddings: list[Tensor], gather_across_devices: bool, ids: Tensor | None = None) -> InBatch:
    """Return the batch, gathered if asked for.

    Args:
        embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.
        gather_across_devices: Take the embeddings of all devices.
        ids: Ids of each column's texts, `(batch, 2 + n)`. By default, every text has a different id.

    Raises:
        ValueError: If the devices have batches of different sizes.
    """
    first, batch = 0, len(embeddings[0])
    if gather_across_devices and get_world_size() > 1:
        _check_sizes(embeddings[0])
        embeddings = [all_gather_with_grad(column) for column in embeddings]
        ids = None if ids is None else all_gather(ids)
        first = get_rank() * batch
    queries, *columns = embeddings
    documents = torch.cat(columns)
    if ids is None:
        query_ids, document_ids = (
            torch.arange(len(texts), device=texts.device) for texts in (queries, documents)
        )
    else:
        query_ids, document_ids = ids[:, 0], ids[:, 1:].T.reshape(-1)
    own = torch.arange(first, first + batch, device=queries.device)
    return InBatch(queries, documents, query_ids, document_ids, own)


def _check_sizes(queries: Tensor) -> None:
    # Gathering tensors of different sizes hangs or mixes rows up.
    sizes = all_gather(torch.tensor([len(queries)], device=queries.device)).tolist()
    if len(set(sizes)) > 1:
        raise ValueError(
            f"gather_across_devices needs batches of one size, the devices have {sizes}: leave "
            "accelerate's even_batches on, or set dataloader_drop_last=True."
        )


def in_batch_logits(loss: MultipleNegativesRankingLoss, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the scaled similarities of each query and all documents, and the place of its positive.

    Args:
        loss: Its `similarity_fct`, `scale` and `gather_across_devices` are used.
        embeddings: Queries, positives, and each column of negatives, all `(batch, dim)`.

    Returns:
        Logits, `(batch, num_documents)`, in the order of `InBatch.documents`, and `own`, `(batch,)`.
    """
    batch = gather_batch(embeddings, loss.gather_across_devices)
    return loss.similarity_fct(batch.queries[batch.own], batch.documents) * loss.scale, batch.own
