"""Ranking quality on development queries, for the encoder alone and with an adapter."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from ..candidates import DocumentFeatures
from ..candidates.reading import read_candidates
from ..data import Collection
from ..embeddings import CollectionEmbeddings
from ..evaluation import named_rankings, ranking_quality, reorder
from ..indexes import FlatIndex
from ..models.adapter_rrra import RetrieverAdapter

MEASURES = ("nDCG@10", "R@1", "R@100")
DEPTH = 100


def measure(
    collection: Collection,
    embeddings: CollectionEmbeddings,
    adapter: RetrieverAdapter | None = None,
    *,
    depth: int = DEPTH,
    query_words: csr_array | None = None,
    document_words: csr_array | None = None,
) -> dict[str, float]:
    """Rank the documents for each query of a collection and return the mean of each measure.

    Args:
        collection: One split.
        embeddings: Its embeddings, as the encoder makes them.
        adapter: Reranks the first `depth` documents, after its maps (if it has any) moved the
            embeddings that are searched with; without it, the encoder ranks alone.
        depth: Documents that are reranked.
        query_words: Counts of the queries' words, if the adapter reads words.
        document_words: Counts of the documents' words, likewise.

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
        features = None
        if adapter.features is not None:
            features = DocumentFeatures.of(adapter.features, [documents], document_words)
        first = rows[:, :depth]
        reading = read_candidates(adapter, queries, first, documents, features, query_words)
        scores = adapter.combine(torch.from_numpy(cosines[:, :depth]), reading.corrections)
        rows = np.concatenate([reorder(first, scores.numpy()), rows[:, depth:]], axis=1)
    results = named_rankings(collection.query_ids, collection.document_ids, rows)
    return ranking_quality(results, collection.qrels, MEASURES).mean
