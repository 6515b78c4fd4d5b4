"""Exact search agrees with numpy, approximate search nearly so; damaged or foreign files are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rrra_hf.indexes import (
    ApproximateIndex,
    DocumentIndex,
    FaissDocumentIndex,
    FlatIndex,
    Index,
    MilvusIndex,
    choose,
    load_index,
    recall_report,
)


def make_index(documents: np.ndarray) -> FlatIndex:
    index = FlatIndex(documents.shape[1])
    index.add(documents)
    return index


def cosines(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents)]
    return unit[0] @ unit[1].T


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
        with pytest.raises(ValueError, match=r"flat\.faiss is damaged or holds no FAISS index"):
            FlatIndex.load(path)
    faiss.write_index(faiss.IndexFlatL2(8), str(path))
    with pytest.raises(ValueError, match=r"flat\.faiss holds an index of type IndexFlatL2, not"):
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


APPROXIMATE = ["hnsw", "ivf-flat", "ivf-sq8", "ivf-pq"]


def clustered(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, dim))
    return centres[rng.integers(0, 20, count)] + 0.5 * rng.standard_normal((count, dim))


def make_approximate(kind: str, documents: np.ndarray, **settings: float) -> ApproximateIndex:
    index = ApproximateIndex(documents.shape[1], kind, len(documents), **settings)
    index.add(documents)
    return index


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_finds_most_with_exact_cosines(kind: str) -> None:
    documents, queries = clustered(3000), clustered(50, seed=1)
    index = make_approximate(kind, documents, oversample=4)
    assert not index.is_exact
    scores, rows = index.search(queries, 10)
    assert scores.shape == rows.shape == (50, 10)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    expected = cosines(queries, documents)
    assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), atol=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert all(len(set(row)) == 10 for row in rows)
    nearest = np.argsort(-expected, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(nearest, rows, strict=True)]) >= 9
    exact_scores, exact_rows = index.search_exactly(queries, 10)
    assert_array_equal(exact_rows, nearest)
    assert_allclose(exact_scores, -np.sort(-expected)[:, :10], atol=1e-5)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    assert_allclose(index.reconstruct(rows), unit[rows], atol=1e-6)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_every_query_gets_k_documents_however_little_effort_is_made(kind: str) -> None:
    documents = clustered(1000)
    index = make_approximate(kind, documents, oversample=1, effort=1e-3)
    for k in (1, 300, 1000, 5000):
        scores, rows = index.search(documents[:5], k)
        assert scores.shape == rows.shape == (5, min(k, 1000))
        assert all(len(set(row)) == len(row) and min(row) >= 0 for row in rows.tolist())
        assert np.isfinite(scores).all()


def test_more_effort_and_more_candidates_miss_less() -> None:
    documents, queries = clustered(3000, dim=32), clustered(50, dim=32, seed=1)

    def recall(kind: str, **settings: float) -> float:
        index = make_approximate(kind, documents, **settings)
        return recall_report(index, queries, 50).recall

    assert recall("ivf-flat", effort=0.01) < recall("ivf-flat", effort=0.1) < recall("ivf-flat", effort=4)
    assert recall("ivf-flat", effort=1000) == 1
    assert recall("ivf-pq", oversample=1, effort=1000) < recall("ivf-pq", oversample=8, effort=1000)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_ties_of_an_approximate_index_are_sorted_by_row(kind: str) -> None:
    index = make_approximate(kind, np.tile([[1.0, 0.0], [0.0, 1.0]], (150, 1)))
    _, rows = index.search(np.array([[1.0, 0.0]]), k=300)
    assert_array_equal(rows[0], [*range(0, 300, 2), *range(1, 300, 2)])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_is_exact_until_it_is_trained_in_blocks_or_at_once(kind: str) -> None:
    documents, queries = clustered(600), clustered(20, seed=1)
    blocks = ApproximateIndex(16, kind, 600)
    for start in range(0, 600, 100):
        blocks.add(documents[start : start + 100])
        if blocks.is_exact:
            for ours, theirs in zip(
                blocks.search(queries, 7), blocks.search_exactly(queries, 7), strict=True
            ):
                assert_array_equal(ours, theirs)
    assert len(blocks) == 600 and not blocks.is_exact
    if kind != "hnsw":  # whose graph may depend on the threads' timing
        _, rows = blocks.search(queries, 7)
        assert_array_equal(rows, make_approximate(kind, documents).search(queries, 7)[1])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_saved_approximate_index_is_mapped_finds_the_same_and_grows(kind: str, tmp_path: Path) -> None:
    documents, queries = clustered(600), clustered(20, seed=1)
    index = make_approximate(kind, documents[:500], effort=2, seed=3)
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert isinstance(loaded, ApproximateIndex)
    assert (len(loaded), loaded.dim, loaded.kind, loaded.effort, loaded.seed) == (500, 16, kind, 2, 3)
    for ours, theirs in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        assert_array_equal(ours, theirs)
    # The files may be replaced while they are mapped.
    index.save(tmp_path / "index")
    loaded.add(documents[500:])
    assert_array_equal(loaded.search(documents[490:510], 1)[1][:, 0], range(490, 510))
    loaded.save(tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert len(again) == 600
    assert_array_equal(again.reconstruct(np.arange(600)), loaded.reconstruct(np.arange(600)))
    assert sorted(path.name for path in (tmp_path / "index").iterdir() if path.is_file()) == ["current.json"]
    assert len([path for path in (tmp_path / "index").iterdir() if path.is_dir()]) == 1


def test_an_untrained_or_empty_approximate_index_can_be_saved(tmp_path: Path) -> None:
    index = ApproximateIndex(4, "ivf-flat", 1000)
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert len(loaded) == 0
    with pytest.raises(ValueError, match="index is empty"):
        loaded.search(np.ones((1, 4)), 1)
    loaded.add(np.eye(4))
    loaded.save(tmp_path / "index")
    assert load_index(tmp_path / "index").search(np.eye(4), 1)[1].tolist() == [[0], [1], [2], [3]]


def test_a_save_that_fails_leaves_the_index_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_approximate("ivf-flat", np.eye(4)).save(tmp_path / "index")
    other = make_approximate("ivf-flat", np.ones((9, 4)))
    monkeypatch.setattr(
        "rrra_hf.indexes.vectors.save_embeddings", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        other.save(tmp_path / "index")
    assert len(load_index(tmp_path / "index")) == 4
    assert len([path for path in (tmp_path / "index").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("name", ["candidates.faiss", "embeddings.arrow", "meta.json"])
def test_a_damaged_approximate_index_is_refused(name: str, tmp_path: Path) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path / "index")
    path = next((tmp_path / "index").glob(f"*/{name}"))
    whole = path.read_bytes()
    for kept in (0, 5, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="damaged"):
            ApproximateIndex.load(tmp_path / "index")
    path.unlink()
    with pytest.raises(ValueError, match="damaged"):
        ApproximateIndex.load(tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="No index at"):
        ApproximateIndex.load(tmp_path / "none")


def test_files_of_two_indexes_are_not_mixed(tmp_path: Path) -> None:
    for name, count in (("a", 50), ("b", 60)):
        make_approximate("hnsw", clustered(count)).save(tmp_path / name)
    ours, theirs = (next((tmp_path / name).glob("*/embeddings.arrow")) for name in "ab")
    theirs.replace(ours)
    with pytest.raises(ValueError, match=r"hold \(50, 16\) and \(60, 16\) embeddings, not \(50, 16\)"):
        load_index(tmp_path / "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "flat"}, "kind must be one of hnsw, ivf-flat, ivf-sq8, ivf-pq, got 'flat'"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"oversample": 0}, "oversample must be at least 1, got 0"),
        ({"effort": 0.0}, "effort must be greater than 0, got 0.0"),
    ],
)
def test_bad_settings_of_an_approximate_index_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ApproximateIndex(**{"dim": 4, "kind": "hnsw", "count": 10, **arguments})


def test_bad_calls_of_an_approximate_index_are_refused() -> None:
    index = make_approximate("hnsw", np.ones((4, 2)))
    with pytest.raises(ValueError, match="embeddings must be finite"):
        index.add(np.array([[np.nan, 0.0]]))
    assert len(index) == 4
    for row in (-1, 4):
        with pytest.raises(ValueError, match=r"rows must be in \[0, 4\)"):
            index.reconstruct(np.array([0, row]))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(np.ones((1, 2)), 0)
    with pytest.raises(ValueError, match="queries must have dimension 2, got 3"):
        index.search_exactly(np.ones((1, 3)), 1)


def test_the_index_is_chosen_by_size_and_the_reason_logged(caplog: pytest.LogCaptureFixture) -> None:
    kinds = {10**4: "flat", 10**6: "hnsw", 10**7: "ivf-sq8", 10**8: "ivf-pq"}
    for count, kind in kinds.items():
        with caplog.at_level("INFO", logger="rrra_hf.indexes"):
            index = choose.make_index(8, count)
        assert kind in caplog.text and f"{count} documents" in caplog.text
        assert isinstance(index, FlatIndex) if kind == "flat" else index.kind == kind
        caplog.clear()
    assert choose.make_index(8, 10, "ivf-pq").kind == "ivf-pq"
    with pytest.raises(
        ValueError, match="kind must be one of auto, flat, hnsw, ivf-flat, ivf-sq8, ivf-pq, got 'lsh'"
    ):
        choose.make_index(8, 10, "lsh")
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        choose.make_index(8, 0)


def test_an_index_of_any_kind_is_loaded(tmp_path: Path) -> None:
    make_index(np.eye(3)).save(tmp_path / "flat")
    assert isinstance(load_index(tmp_path / "flat"), FlatIndex)
    with pytest.raises(FileNotFoundError, match="No index at"):
        load_index(tmp_path / "none")


def test_a_recall_report_counts_what_is_missed() -> None:
    documents = np.eye(4)
    exact, shuffled = make_index(documents), make_index(documents[[1, 0, 2, 3]])
    report = recall_report(shuffled, documents, 1, exact)
    assert (report.recall, report.worst_recall, report.documents, report.queries, report.k) == (
        0.5,
        0,
        4,
        4,
        1,
    )
    assert 0 < report.p50_ms <= report.p95_ms <= report.p99_ms
    assert report.to_dict()["recall"] == 0.5
    assert recall_report(shuffled, documents, 1, exact=3 * documents).recall == 0.5
    assert recall_report(exact, documents, 9, exact).recall == 1
    with pytest.raises(ValueError, match="must hold the same documents, got 4 and 1 of them"):
        recall_report(exact, documents, 1, documents[:1])
    with pytest.raises(ValueError, match="exact must be given to compare an index of type FlatIndex with"):
        recall_report(exact, documents, 1)


DOCUMENT_INDEXES = ["flat", *APPROXIMATE, "milvus"]
NAMES = ["a", "b", "c", "d", 'quo"te', "it's", "back\\slash", "日本", "{x}", "%"]


class Documents(Protocol):
    def __call__(self, dim: int) -> DocumentIndex: ...


@pytest.fixture(scope="module", params=DOCUMENT_INDEXES)
def make_documents(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Documents]:
    """Return a function that makes an empty index whose documents have ids."""
    if request.param != "milvus":
        yield lambda dim: FaissDocumentIndex(dim, count=4, kind=request.param)
        return
    pytest.importorskip("pymilvus")
    path = tmp_path_factory.mktemp("milvus") / "documents.db"
    made: dict[int, MilvusIndex] = {}

    def make(dim: int) -> MilvusIndex:
        if dim not in made:
            made[dim] = MilvusIndex(dim, path, collection=f"dim{dim}")
        made[dim].delete(NAMES)  # faster than a new collection
        return made[dim]

    yield make
    made.popitem()[1].close()


changes = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=6)),
        st.tuples(st.just("delete"), st.lists(st.sampled_from(NAMES), max_size=4)),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=changes, seed=st.integers(0, 99))
def test_any_changes_leave_what_a_dictionary_would_hold(
    make_documents: Documents, changes: list[tuple[str, list[str]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index, expected = make_documents(5), {}
    for change, ids in changes:
        if change == "upsert":
            embeddings = rng.standard_normal((len(ids), 5))
            index.upsert(ids, embeddings)
            expected.update(zip(ids, embeddings, strict=True))
        else:
            there = len(expected.keys() & set(ids))
            assert index.delete(ids) == there
            expected = {name: embedding for name, embedding in expected.items() if name not in ids}
        assert len(index) == len(expected)
    assert [name in index for name in NAMES] == [name in expected for name in NAMES]
    if not expected:
        with pytest.raises(ValueError, match="index is empty"):
            index.search(rng.standard_normal((1, 5)), 1)
        return
    queries, documents = rng.standard_normal((3, 5)), np.array(list(expected.values()))
    for k in (1, 3, 20):
        scores, found = index.search(queries, k)
        assert scores.dtype == np.float32 and scores.shape == (3, min(k, len(expected)))
        assert_allclose(scores, -np.sort(-cosines(queries, documents))[:, :k], atol=1e-5)
        for query, names in enumerate(found):
            assert_allclose(scores[query], cosines(queries, index.reconstruct(names))[query], atol=1e-5)
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    assert_allclose(index.reconstruct(list(expected)), unit, atol=1e-6)


def test_ties_of_documents_are_sorted_by_id(make_documents: Documents) -> None:
    index = make_documents(2)
    index.upsert(["c", "a", "d", "b"], np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]]))
    assert index.search(np.array([[2.0, 0], [0, 0]]), 9)[1] == [["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_bad_documents_change_nothing(make_documents: Documents) -> None:
    index = make_documents(2)
    index.upsert(["a"], np.ones((1, 2)))
    for ids, embeddings, message in [
        (["b", ""], np.ones((2, 2)), "ids must be non-empty strings, got '' at position 1"),
        (["b", 3], np.ones((2, 2)), "ids must be non-empty strings, got 3 at position 1"),
        ("bc", np.ones((2, 2)), "ids must be a sequence of strings, got the string 'bc'"),
        (["b"], np.ones((2, 2)), r"ids must have one entry an embedding \(2\), got 1"),
        (["b"], np.ones((1, 3)), "embeddings must have dimension 2, got 3"),
        (["b"], np.array([[np.inf, 0]]), "embeddings must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.upsert(ids, embeddings)
    with pytest.raises(ValueError, match="ids must be non-empty strings, got None"):
        index.delete(["a", None])
    assert len(index) == 1 and "a" in index and index.dim == 2
    with pytest.raises(KeyError, match="No document 'b' in the index"):
        index.reconstruct(["a", "b"])
    assert index.reconstruct([]).shape == (0, 2)
    for queries, k, message in [
        (np.ones((1, 3)), 1, "queries must have dimension 2, got 3"),
        (np.ones((1, 2)), 0, "k must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.search(queries, k)


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_saved_documents_are_the_same_and_can_be_changed(kind: str, tmp_path: Path) -> None:
    vectors = clustered(400)
    index = FaissDocumentIndex(16, count=400, kind=kind)
    index.upsert([f"d{row}" for row in range(400)], vectors)
    index.delete(["d0", "d7"])
    index.upsert(["d1"], vectors[:1])
    index.save(tmp_path / "index")
    loaded = FaissDocumentIndex.load(tmp_path / "index")
    assert len(loaded) == 398 and "d0" not in loaded and loaded.ids == index.ids
    scores, ids = index.search(vectors[:20], 5)
    loaded_scores, loaded_ids = loaded.search(vectors[:20], 5)
    assert ids == loaded_ids and ids[0][0] == "d1"
    assert_array_equal(scores, loaded_scores)
    loaded.upsert(["new"], 2 * vectors[7:8])
    assert loaded.search(vectors[7:8], 1)[1] == [["new"]]


def test_an_index_with_more_dead_rows_than_living_is_built_anew(caplog: pytest.LogCaptureFixture) -> None:
    vectors = clustered(100)
    index = FaissDocumentIndex(16, count=100, kind="ivf-flat")
    index.upsert([str(row) for row in range(100)], vectors)
    with caplog.at_level("INFO", logger="rrra_hf.indexes"):
        index.delete([str(row) for row in range(50)])
        assert not caplog.text
        index.delete(["50"])
    assert "anew with 49 documents of 100 rows" in caplog.text
    assert index.ids == [str(row) for row in range(51, 100)]
    assert index.search(vectors[51:], 1)[1] == [[str(row)] for row in range(51, 100)]
    index.delete(index.ids)
    assert len(index) == 0
    index.upsert(["a"], vectors[:1])
    assert index.search(vectors[:1], 1)[1] == [["a"]]


@pytest.mark.parametrize("name", ["ids.parquet", "vectors", "meta.json"])
def test_damaged_documents_are_refused(name: str, tmp_path: Path) -> None:
    index = FaissDocumentIndex(2, count=4)
    index.upsert(["a", "b"], np.eye(2))
    index.save(tmp_path / "index")
    path = next((tmp_path / "index").glob(f"*/{name}"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        FaissDocumentIndex.load(tmp_path / "index")
    path.unlink()
    with pytest.raises(ValueError, match="damaged"):
        FaissDocumentIndex.load(tmp_path / "index")
    path.write_bytes(whole)
    pq.write_table(pa.table({"id": ["a"]}), path.with_name("ids.parquet"))
    with pytest.raises(ValueError, match="holds 1 ids and 2 embeddings of dimension 2, not 2 of 2"):
        FaissDocumentIndex.load(tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="No index at"):
        FaissDocumentIndex.load(tmp_path / "none")


# One process imports the package and kills thirty copies of itself while they save.
KILLS = """
import os, random, signal, sys, time
import numpy as np
from rrra_hf.indexes import FaissDocumentIndex

path, vectors = sys.argv[1], np.random.default_rng(0).standard_normal((400, 16))
index = FaissDocumentIndex(16, count=400, kind="ivf-flat")
index.upsert([str(row) for row in range(300)], vectors[:300])
index.save(path)
random.seed(0)
for _ in range(30):
    child = os.fork()
    if not child:
        try:
            index = FaissDocumentIndex.load(path)
            while True:
                row = random.randrange(400)
                index.upsert([str(row)], vectors[row : row + 1]) if row % 2 else index.delete([str(row)])
                index.save(path)
        finally:
            os._exit(1)
    time.sleep(random.uniform(0.01, 0.15))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it failed before it was killed"
    found = FaissDocumentIndex.load(path)
    rows = [int(name) for name in found.ids]
    assert found.search(vectors[rows], 1)[1] == [[name] for name in found.ids]
    assert all(str(row) in found for row in range(1, 300, 2))
print("whole", len(found))
"""


@pytest.mark.slow
def test_processes_killed_while_they_save_leave_a_whole_index(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLS, str(tmp_path / "index")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("whole")
