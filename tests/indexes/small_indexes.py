"""Small indexes, for tests."""

from __future__ import annotations

import numpy as np

from rrra_hf.indexes import ApproximateIndex, FlatIndex


def make_index(documents: np.ndarray) -> FlatIndex:
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    return index


def cosines(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents)]
    return unit[0] @ unit[1].T


APPROXIMATE = ["hnsw", "ivf-flat", "ivf-sq8", "ivf-pq"]


def clustered(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, dim))
    return centres[rng.integers(0, 20, count)] + 0.5 * rng.standard_normal((count, dim))


def make_approximate(kind: str, documents: np.ndarray, **settings: float) -> ApproximateIndex:
    index = ApproximateIndex(documents.shape[1], kind, len(documents), **settings)
    index.add(documents)
    return index
