"""Split test queries into seen and unseen ones.

A test query is seen if one of its relevant documents was labelled for a training query.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class QueryGroup(NamedTuple):
    """Per-query figures of a group of queries.

    Args:
        num_queries: Number of queries in the group; may be 0.
        per_query: Values per measure, `(..., num_queries)`.
    """

    num_queries: int
    per_query: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each measure; NaN if the group is empty."""
        return {
            name: float(values.mean()) if self.num_queries else float("nan")
            for name, values in self.per_query.items()
        }


def seen_queries(
    test_positives: Sequence[Iterable[Hashable] | np.ndarray],
    train_positives: Iterable[Iterable[Hashable] | np.ndarray],
) -> np.ndarray:
    """Return which test queries share a relevant document with a training query.

    A model can answer seen queries by memorizing documents, so a gain on them says little about new
    queries. On scifact, linear maps on both sides raised nDCG@10 from .629 to .879 on seen queries (65 % of
    the test set) and lowered it from .674 to .663 on the others.

    Args:
        test_positives: Relevant documents per test query, as rows or ids, in arrays, sets or lists.
        train_positives: Relevant documents per training query, from the same corpus. Add the development
            queries if the final model was fitted on them.

    Returns:
        Whether each query is seen, `(n,)` bool. Queries without relevant documents are not.

    Example:
        >>> seen_queries([np.array([3, 7]), np.array([5])], [np.array([7]), np.array([1])]).tolist()
        [True, False]
    """
    labelled: set[Any] = set()
    labelled.update(*train_positives)
    return np.array([not labelled.isdisjoint(documents) for documents in test_positives], dtype=bool)


def split_by_seen(per_query: Mapping[str, np.ndarray], seen: np.ndarray) -> dict[str, QueryGroup]:
    """Split per-query figures into all, seen and unseen queries.

    Args:
        per_query: Values per measure, one per query, `(n,)`, or `(..., n)`, for example one row per seed.
        seen: Which queries are seen, `(n,)` bool.

    Returns:
        The groups "all", "seen" and "unseen".

    Raises:
        ValueError: If `seen` isn't boolean of shape `(n,)`, or a measure has another number of queries.

    Example:
        >>> groups = split_by_seen({"R@1": np.array([1.0, 0.0, 1.0])}, np.array([True, False, True]))
        >>> {name: (group.num_queries, group.mean["R@1"]) for name, group in groups.items()}
        {'all': (3, 0.6666666666666666), 'seen': (2, 1.0), 'unseen': (1, 0.0)}
    """
    seen = np.asarray(seen)
    if seen.dtype != np.bool_ or seen.ndim != 1:
        raise ValueError(f"seen must be boolean of shape (n,), got {seen.dtype} of shape {seen.shape}.")
    figures = {name: np.asarray(values) for name, values in per_query.items()}
    for name, values in figures.items():
        if values.shape[-1:] != seen.shape:
            raise ValueError(
                f"per_query[{name!r}] must have shape (..., {len(seen)}) to match seen, got {values.shape}."
            )
    groups = {"all": np.ones_like(seen), "seen": seen, "unseen": ~seen}
    return {
        group: QueryGroup(int(rows.sum()), {name: values[..., rows] for name, values in figures.items()})
        for group, rows in groups.items()
    }
