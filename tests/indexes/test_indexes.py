"""Exact search agrees with numpy, approximate search nearly so; damaged or foreign files are refused."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.indexes import FlatIndex, Index
from small_indexes import cosines, make_index


@given(
    n=st.integers(1, 30),
    m=st.integers(1, 60),
    k=st.integers(1, 80),
    dim=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_search_agrees_with_brute_force(n: int, m: int, k: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = rng.standard_normal((n, dim)), rng.standard_normal((m, dim))
    scores, rows = make_index(documents).search(queries, k)
    expected = cosines(queries, documents)
    assert scores.shape == rows.shape == (n, min(k, m))
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    assert_allclose(scores, -np.sort(-expected)[:, :k], atol=1e-5)
    assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert all(len(set(row)) == len(row) for row in rows)


def test_ties_are_sorted_by_row() -> None:
    documents = np.tile([[1.0, 0.0], [0.0, 1.0]], (20, 1))
    scores, rows = make_index(documents).search(np.array([[1.0, 0.0], [0.0, 2.0]]), k=40)
    assert_array_equal(rows[0], [*range(0, 40, 2), *range(1, 40, 2)])
    assert_array_equal(rows[1], [*range(1, 40, 2), *range(0, 40, 2)])
    assert_array_equal(scores[:, :20], 1)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((25, 8)), rng.standard_normal((50, 8))
    _, expected = make_index(documents).search(queries, 10)
    monkeypatch.setattr("rrra_hf.indexes.flat.BLOCK_SIZE", 7)
    _, rows = make_index(documents).search(queries, 10)
    assert_array_equal(rows, expected)


def test_documents_are_appended_and_given_back_normalised() -> None:
    index: Index = FlatIndex(2)
    assert (len(index), index.dim) == (0, 2)
    index.add(np.array([[3.0, 4.0]]))
    index.add(np.array([[0.0, 2.0], [0.0, 0.0]]))
    assert len(index) == 3
    assert_allclose(index.reconstruct(np.array([[1, 0], [2, 1]])), [[[0, 1], [0.6, 0.8]], [[0, 0], [0, 1]]])
    assert index.reconstruct(np.array([], dtype=int)).shape == (0, 2)


def test_a_saved_index_finds_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    queries, index = rng.standard_normal((3, 4)), make_index(rng.standard_normal((9, 4)))
    index.save(tmp_path / "deeper" / "flat.faiss")
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["flat.faiss"]
    loaded = FlatIndex.load(tmp_path / "deeper" / "flat.faiss")
    assert (len(loaded), loaded.dim) == (9, 4)
    for ours, theirs in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        assert_array_equal(ours, theirs)


def test_a_missing_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.faiss"):
        FlatIndex.load(tmp_path / "none.faiss")
    path = tmp_path / "flat.faiss"
    make_index(np.ones((50, 8))).save(path)
    whole = path.read_bytes()
    for kept in (0, 3, 30, 500, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"flat\.faiss is damaged or not a FAISS index"):
            FlatIndex.load(path)
    faiss.write_index(faiss.IndexFlatL2(8), str(path))
    with pytest.raises(ValueError, match=r"flat\.faiss is damaged or not a FAISS index by inner product"):
        FlatIndex.load(path)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 3)), 1, "queries must have dimension 2, got 3"),
        (np.ones(2), 1, r"queries must be numbers of shape \(n, dim\)"),
        (np.ones((0, 2)), 1, "queries must not be empty"),
        (np.array([[np.nan, 0]]), 1, "queries must be finite: 1 of 1"),
        (np.ones((1, 2)), 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_searches_are_refused(queries: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_index(np.ones((4, 2))).search(queries, k)


def test_bad_documents_are_refused_and_none_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrra_hf.indexes.flat.BLOCK_SIZE", 1)
    index = FlatIndex(2)
    with pytest.raises(ValueError, match="embeddings must be finite: 1 of 2 rows"):
        index.add(np.array([[1.0, 0.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="embeddings must have dimension 2, got 3"):
        index.add(np.ones((1, 3)))
    assert len(index) == 0
    with pytest.raises(ValueError, match="index is empty"):
        index.search(np.ones((1, 2)), 1)


def test_other_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        FlatIndex(0)
    for row in (-1, 4):
        with pytest.raises(ValueError, match=r"rows must be in \[0, 4\)"):
            make_index(np.ones((4, 2))).reconstruct(np.array([0, row]))
