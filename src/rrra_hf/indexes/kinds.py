"""Kinds of approximate FAISS indexes and their sizes."""

from __future__ import annotations

import math
from typing import Any

import faiss

# Argument of `faiss.index_factory` for each kind.
FACTORY = {
    "hnsw": "HNSW32,SQfp16",
    "ivf-flat": "IVF{lists},Flat",
    "ivf-sq8": "IVF{lists},SQ8",
    "ivf-pq": "IVF{lists},PQ{codes}np",
}
# How the file of each kind begins.
FILE_TYPES = {"hnsw": "IHNs", "ivf-flat": "IwFl", "ivf-sq8": "IwSq", "ivf-pq": "IwPQ"}

# Training documents per inverted list. FAISS needs at least 39.
SAMPLE_PER_LIST = 40
# With more lists, choosing the lists to search costs more than shorter lists save.
MAX_LISTS = 16_384
# The codebooks of a product quantiser have 256 entries.
CODEBOOK_SIZE = 256
K_MEANS_STEPS = 10
HNSW_BUILD_EFFORT = 100
# Documents that a search in the graph keeps beyond those wanted. With it, 99% of the first 10, 100 and 150
# documents are found among 100,000 texts that MiniLM encoded.
GRAPH_QUEUE = 32


def list_count(count: int) -> int:
    """Return the number of inverted lists for `count` documents: `4 sqrt(count)`, within limits.

    Example:
        >>> list_count(10_000), list_count(10**6), list_count(10**8)
        (400, 4000, 16384)
    """
    return max(1, min(round(4 * math.sqrt(count)), count // 4, MAX_LISTS))


def training_size(kind: str, count: int) -> int:
    """Return the number of documents to train an index on. It bounds memory and time.

    Example:
        >>> [training_size("ivf-pq", count) for count in (10, 10**6, 10**8)]
        [256, 160000, 655360]
    """
    if kind == "hnsw":
        return 1
    size = max(1, min(count, SAMPLE_PER_LIST * list_count(count)))
    return max(size, CODEBOOK_SIZE) if kind == "ivf-pq" else size


def new_faiss_index(kind: str, dim: int, count: int, seed: int) -> Any:
    """Create an empty FAISS index with inner products for about `count` documents."""
    factory = FACTORY[kind].format(lists=list_count(count), codes=code_count(dim))
    index: Any = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index.hnsw.efConstruction = HNSW_BUILD_EFFORT
        return index
    for clustering in [index.cp, *([index.pq.cp] if kind == "ivf-pq" else [])]:
        clustering.seed = seed
        clustering.niter = K_MEANS_STEPS
        # Otherwise FAISS prints warnings about small samples.
        clustering.min_points_per_centroid = 1
    return index


def code_count(dim: int) -> int:
    """Return the bytes per product-quantised embedding: the largest divisor of `dim` up to `dim / 4`.

    Example:
        >>> code_count(384), code_count(10), code_count(7)
        (96, 2, 1)
    """
    return max(codes for codes in range(1, max(1, dim // 4) + 1) if dim % codes == 0)


def search_parameters(index: Any, effort: float, wanted: int, selected: Any = None) -> Any:
    """Return FAISS search parameters: the number of lists to probe, or the queue size in a graph.

    Args:
        index: The FAISS index.
        effort: Search effort. Twice the effort compares about twice as many documents.
        wanted: Number of documents per query. With inverted lists, at least 16 times as many are compared.
        selected: What selects the rows to search among, see `selector`; all by default.
    """
    # The type stubs of FAISS lack the constructors of these classes.
    parameters: Any = faiss
    if isinstance(index, faiss.IndexHNSW):
        queue = math.ceil(effort * (wanted + GRAPH_QUEUE))
        return parameters.SearchParametersHNSW(efSearch=queue, sel=selected)
    probes = max(4 * math.sqrt(index.nlist), 16 * wanted * index.nlist / index.ntotal)
    return parameters.SearchParametersIVF(nprobe=min(math.ceil(effort * probes), index.nlist), sel=selected)
