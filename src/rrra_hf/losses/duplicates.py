"""Find equal texts in a batch, and documents that are therefore not negatives of a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .in_batch import InBatch
from .pool_pairs import PoolPairs

# Odd constants of the SplitMix64 generator, as signed 64-bit integers.
TOKEN, POSITION, MIX = -7046029254386353131, -4658895280553007687, -7723592293110705685


def text_ids(columns: Sequence[dict[str, Any]]) -> Tensor | None:
    """Return an id for each text, a hash of its tokens without padding: equal texts have equal ids.

    Texts that are equal up to the length at which they are cut have equal embeddings, and also equal ids.

    Args:
        columns: Tokenized texts of each column: `input_ids` and `attention_mask`, `(batch, length)`, or
            flattened, with `cu_seq_lens_q`.

    Returns:
        Hashes, `(batch, columns)` int64; None if a column isn't tokenized text.

    Example:
        >>> padded = {"input_ids": torch.tensor([[5, 6, 0], [5, 6, 7]]),
        ...           "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
        >>> ids = text_ids([padded, {"input_ids": torch.tensor([[5, 6], [5, 5]])}])
        >>> bool(ids[0, 0] == ids[0, 1]), len(ids.unique())
        (True, 3)
    """
    hashes = [_hashes(features) for features in columns]
    if any(column is None for column in hashes):
        return None
    return torch.stack([column for column in hashes if column is not None], dim=1)


def _hashes(features: dict[str, Any]) -> Tensor | None:
    tokens = features.get("input_ids")
    if tokens is None or tokens.ndim != 2:
        return None
    if "cu_seq_lens_q" in features:
        starts = features["cu_seq_lens_q"].long()
        lengths = starts.diff()
        text = torch.repeat_interleave(lengths)
        mixed = _mix(tokens[0], torch.arange(len(text), device=tokens.device) - starts[text])
        return torch.zeros_like(lengths).index_add(0, text, mixed)
    mask = features.get("attention_mask")
    mask = torch.ones_like(tokens) if mask is None else mask.long()
    return (_mix(tokens, mask.cumsum(dim=1) - 1) * mask).sum(dim=1)


def _mix(tokens: Tensor, positions: Tensor) -> Tensor:
    """Return a hash of each token and its position; the hash of a text is their sum."""
    mixed = (tokens.long() + 1) * TOKEN + (positions + 1) * POSITION
    mixed = (mixed ^ (mixed >> 30)) * MIX
    return mixed ^ (mixed >> 27)


def known_positives(batch: InBatch, own: Tensor, pairs: PoolPairs | None) -> Tensor:
    """Return which documents are known to be relevant to each query, except its own positive.

    Known are copies of the query's positive, the positives of the same query in other rows, and the
    documents that the pool labels for it.

    Args:
        batch: The batch.
        own: Rows, `(rows,)`.
        pairs: The pool, if the ids are its rows.

    Returns:
        `(rows, documents)` bool.
    """
    queries, documents = batch.query_ids, batch.document_ids
    same_query = queries[own][:, None] == queries
    copies = documents[: batch.world, None] == documents
    known = _any_common(same_query, copies)
    if pairs is not None:
        known |= pairs.labelled(queries[own][:, None], documents)
    return known.scatter(1, own[:, None], False)


def copies_of_negatives(batch: InBatch, own: Tensor) -> Tensor:
    """Return which documents of other rows are copies of each query's own hard negatives.

    Such a copy would count with weight 1, regardless of the weight of the query's own negative.

    Args:
        batch: The batch.
        own: Rows, `(rows,)`.

    Returns:
        `(rows, documents)` bool.
    """
    documents = batch.document_ids
    copies = torch.zeros(len(own), len(documents), dtype=torch.bool, device=own.device)
    for places in batch.negative_places(own).T:
        copies |= documents == documents[places][:, None]
    return copies & ~batch.is_own(own)


def queries_of_positives(batch: InBatch, own: Tensor, pairs: PoolPairs | None) -> Tensor:
    """Return to which queries of other rows each row's own positive is known to be relevant.

    Args:
        batch: The batch.
        own: Rows, `(rows,)`.
        pairs: The pool, if the ids are its rows.

    Returns:
        `(rows, queries)` bool.
    """
    queries, documents = batch.query_ids, batch.document_ids
    copies = documents[own][:, None] == documents[: batch.world]
    same_query = queries[:, None] == queries
    known = _any_common(copies, same_query)
    if pairs is not None:
        known |= pairs.labelled(queries, documents[own][:, None])
    return known.scatter(1, own[:, None], False)


def _any_common(left: Tensor, right: Tensor) -> Tensor:
    """Return the boolean matrix product, `(rows, m)` and `(m, columns)` to `(rows, columns)`."""
    return left.float() @ right.float() > 0
