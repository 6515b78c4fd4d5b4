"""Cases of mining, and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset
from numpy.testing import assert_array_equal

from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection


def assert_same(ours: CandidatePool, theirs: CandidatePool) -> None:
    assert ours.query_ids == theirs.query_ids
    assert ours.document_ids == theirs.document_ids
    assert ours.positive_ids == theirs.positive_ids
    assert ours.fingerprint == theirs.fingerprint
    assert_array_equal(ours.candidates, theirs.candidates)
    assert_array_equal(ours.scores, theirs.scores)
    for name in ("probability", "ranking_scores"):
        values = [getattr(pool, name) for pool in (ours, theirs)]
        assert (values[0] is None) == (values[1] is None)
        if values[0] is not None:
            assert_array_equal(*values)
    for name in ("candidates", "scores", "probability", "ranking_scores"):
        values = [getattr(pool, name) for pool in (ours, theirs)]
        assert values[0] is None or values[0].dtype == values[1].dtype


def make_collection(qrels: dict[str, dict[str, int]] | None = None) -> Collection:
    texts = ["copy files", "sort text", "copy files", "find folder", "list files", "find line"]
    queries = ["how do i copy files", "how do i sort", "find a folder"]
    return Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": list("abcdef"), "title": [""] * 6, "text": texts}),
        queries=Dataset.from_dict({"id": ["q0", "q1", "q2"], "text": queries}),
        qrels_by_split={
            "train": {"q0": {"a": 1}, "q2": {"d": 1, "f": 2}} if qrels is None else qrels,
            "test": {"q1": {"b": 1}},
        },
    )


# ---------------------------------------------------------------- blocks, indexes, folders


def random_case(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "query_embeddings": rng.standard_normal((50, 6)),
        "document_embeddings": rng.standard_normal((400, 6)),
        "positives": [[row, 2 * row + 9] for row in range(50)],
        "depth": 7,
    }


# ---------------------------------------------------------------- the pool


def make_pool(**changes: Any) -> CandidatePool:
    fields = {
        "query_ids": ["q0", "q1"],
        "document_ids": ["a", "b", "c"],
        "positives": [np.array([0]), np.array([1, 2])],
        "candidates": np.array([[2, 1], [0, -1]]),
        "scores": np.array([[0.9, 0.5], [0.7, -np.inf]]),
        "probability": np.array([[0.25, 0.5], [0.125, np.nan]]),
        "fingerprint": {"encoder": "e", "corpus": "c", "queries": "q"},
    }
    return CandidatePool(**{**fields, **changes})
