"""Ranking quality on development queries, for the encoder alone and with an adapter."""

from __future__ import annotations

import numpy as np
import torch

from ..adapter_rrra import RetrieverAdapter
from ..data import Collection
from ..embeddings import CollectionEmbeddings
from ..evaluation import named_rankings, ranking_quality, reorder
from ..indexes import FlatIndex
from .tuning import candidate_logits

MEASURES = ("nDCG@10", "R@1", "R@100")
DEPTH = 100


def measure(
    collection: Collection,
    embeddings: CollectionEmbeddings,
    adapter: RetrieverAdapter | None = None,
    *,
    depth: int = DEPTH,
) -> dict[str, float]:
    """Rank the documents for each query of a collection and return the mean of each measure.

    Args:
        collection: One split.
        embeddings: Its embeddings, as the encoder makes them.
        adapter: Reranks the first `depth` documents, after its maps (if it has any) moved the
            embeddings that are searched with; without it, the encoder ranks alone.
        depth: Documents that are reranked.

    Returns:
        nDCG@10, R@1 and R@100.
    """
    queries, documents = embeddings.queries, embeddings.documents
    if adapter is not None:
        queries, documents = adapter.map_queries(queries), adapter.map_documents(documents)
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    cosines, rows = index.search(queries, max(depth, DEPTH))
    if adapter is not None:
        rows = rows.copy()
        rows[:, :depth] = _reranked(adapter, queries, documents, rows[:, :depth], cosines[:, :depth])
    results = named_rankings(collection.query_ids, collection.document_ids, rows)
    return ranking_quality(results, collection.qrels, MEASURES).mean


def _reranked(
    adapter: RetrieverAdapter,
    queries: np.ndarray,
    documents: np.ndarray,
    rows: np.ndarray,
    cosines: np.ndarray,
) -> np.ndarray:
    logits = torch.from_numpy(candidate_logits(adapter, queries, rows, documents))
    return reorder(rows, adapter.combine(torch.from_numpy(cosines), logits).numpy())
