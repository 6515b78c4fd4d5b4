"""The flat search agrees with brute force, whatever its tiles, parts and exclusions."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.indexes import flat_search, search_flat
from rrra_hf.indexes.best import best, cosines_in, rows_in, sort_keys
from rrra_hf.indexes.vectors import VectorStore


def brute_force(
    queries: np.ndarray, documents: np.ndarray, k: int, excluded: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows as `search_flat` does, by a stable sort of the whole matrix."""
    q, d = (
        torch.nn.functional.normalize(torch.from_numpy(part.astype(np.float32)))
        for part in (queries, documents)
    )
    scores = (q @ d.T).numpy()
    for line, rows in zip(scores, excluded, strict=True):
        line[rows] = -np.inf
    scores = np.pad(scores, ((0, 0), (0, k)), constant_values=-np.inf)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, rows, axis=1)
    return found, np.where(np.isneginf(found), -1, rows)


@given(
    n=st.integers(1, 20),
    m=st.integers(1, 90),
    k=st.integers(1, 30),
    max_memory=st.sampled_from([1, 3000, 2**25]),
    seed=st.integers(0, 99),
)
def test_the_nearest_documents_are_found(n: int, m: int, k: int, max_memory: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Directions of a grid, so that there are many ties and the products are exact.
    queries = rng.choice([-1.0, 1.0], (n, 4))
    documents = rng.choice([-2.0, 0.0, 2.0], (m, 4)) * rng.integers(0, 2, (m, 1))
    excluded = [np.sort(rng.choice(m, rng.integers(0, m + 1), replace=False)) for _ in range(n)]
    cosines, rows = search_flat(queries, documents, k, excluded=excluded, max_memory=max_memory, device="cpu")
    assert (cosines.dtype, rows.dtype) == (np.float32, np.int64)
    assert cosines.shape == rows.shape == (n, k)
    expected, _ = brute_force(queries, documents, k, excluded)
    assert_allclose(cosines, expected, atol=1e-6)
    for query in range(n):
        found = rows[query][rows[query] >= 0]
        assert len(found) == min(k, m - len(excluded[query]))
        assert len(np.unique(found)) == len(found) and not np.isin(found, excluded[query]).any()
        assert (rows[query, len(found) :] == -1).all()
        same = np.diff(cosines[query, : len(found)]) == 0
        assert (np.diff(found)[same] > 0).all()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of threads that torch may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_of_equal_documents_the_first_ones_are_found(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_search, "MIN_PART", 16)
    documents = np.tile(np.eye(4), (60, 1))
    for max_memory in (1, 2000, 2**25):
        cosines, rows = search_flat(np.eye(4)[1:2], documents, 20, max_memory=max_memory, device="cpu")
        assert_array_equal(rows[0], np.arange(1, 81, 4))
        assert_array_equal(cosines, 1)


def test_neither_tiles_nor_parts_change_what_is_found(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # With this seed, no cosines that are compared differ by less than what rounding may change.
    rng = np.random.default_rng(25)
    queries, documents = rng.standard_normal((300, 16)), rng.standard_normal((2000, 16))
    excluded = [np.arange(query, 2000, 50) for query in range(300)]
    expected_cosines, expected = brute_force(queries, documents, 25, excluded)
    monkeypatch.setattr(flat_search, "QUERIES", 90)
    monkeypatch.setattr(flat_search, "MIN_PART", 500)
    for first, tile in ((1, 10), (7, 4096), (128, 300)):
        monkeypatch.setattr(flat_search, "FIRST_TILE", first)
        monkeypatch.setattr(flat_search, "TILE", tile)
        cosines, rows = search_flat(queries, documents, 25, excluded=excluded, device="cpu")
        assert_array_equal(rows, expected)
        assert_allclose(cosines, expected_cosines, atol=1e-6)
    assert torch.get_num_threads() == threads


def test_what_is_searched_may_lie_on_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    queries, documents = (rng.standard_normal((count, 8)).astype(np.float32) for count in (5, 100))
    _, expected = search_flat(queries, documents, 10, device="cpu")
    np.save(tmp_path / "documents.npy", documents)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    store = VectorStore(documents[:40])
    store.append(documents[40:])
    for source in (mapped, store):
        assert_array_equal(search_flat(queries, source, 10, device="cpu")[1], expected)


def test_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (rng.standard_normal((count, 8)).astype(np.float32) for count in (1000, 20_000))
    tracemalloc.start()
    try:
        search_flat(queries, documents, 10, max_memory=2**22, device="cpu")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The matrix of all cosines is 80 MB.
    assert peak < 2**23


def test_zeros_have_a_cosine_of_zero_with_everything() -> None:
    documents = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    cosines, rows = search_flat(np.array([[1.0, 0.0], [0.0, 0.0]]), documents, 4, device="cpu")
    assert_array_equal(rows, [[2, 0, 3, 1], [0, 1, 2, 3]])
    assert_array_equal(cosines, [[1, 0, 0, -1], [0, 0, 0, 0]])


def test_no_queries_find_nothing() -> None:
    cosines, rows = search_flat(np.empty((0, 2)), np.eye(2), 3, device="cpu")
    assert cosines.shape == rows.shape == (0, 3)


# -------------------------------------------------------------------- sort keys


@given(
    cosines=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20),
    k=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_keys_sort_by_cosine_and_then_by_row(cosines: list[float], k: int, seed: int) -> None:
    scores = np.array(cosines, dtype=np.float32)
    rows = np.random.default_rng(seed).permutation(len(scores)) * 200_000_000
    keys = sort_keys(scores, rows)
    assert_array_equal(cosines_in(keys), scores)
    assert_array_equal(rows_in(keys), rows)
    order = np.lexsort((rows, -scores))[:k]
    found, found_rows = best(scores[None], rows[None], min(k, len(scores)))
    assert_array_equal(found[0], scores[order])
    assert_array_equal(found_rows[0], rows[order])
