"""Searching an index without documents that are known, such as those with a label."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from ..indexes import Index, WordIndex


def search_without(
    index: Index | WordIndex, queries: Any, removed: list[np.ndarray], depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the best documents for each query that are not among some of its own.

    Args:
        index: Index of embeddings or of words.
        queries: Embeddings or counts of words, `(n, dim)` or `(n, v)`.
        removed: Rows of the documents to leave out for each query, ascending.
        depth: Number of documents per query.

    Returns:
        Their rows `(n, depth)` int32 and scores `(n, depth)` float32; -1 and -inf where there are none.
    """
    candidates = np.full((len(removed), depth), -1, dtype=np.int32)
    scores = np.full((len(removed), depth), -np.inf, dtype=np.float32)
    for group in _similar_sizes(removed, depth):
        # Search deep enough that `depth` candidates remain after removal.
        found_scores, found = index.search(queries[group], depth + max(len(removed[row]) for row in group))
        for query, rows, values in zip(group, found, found_scores, strict=True):
            # Approximate indexes pad their results with -1.
            kept = np.flatnonzero((rows >= 0) & np.isin(rows, removed[query], invert=True))[:depth]
            candidates[query, : len(kept)] = rows[kept]
            scores[query, : len(kept)] = values[kept]
    return candidates, scores


def _similar_sizes(removed: list[np.ndarray], depth: int) -> list[list[int]]:
    """Group queries, so that one with thousands of positives doesn't make all searches as deep."""
    groups = defaultdict(list)
    for query, rows in enumerate(removed):
        groups[max(len(rows), depth).bit_length()].append(query)
    return list(groups.values())
