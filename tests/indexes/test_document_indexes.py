"""An index of documents holds what a dictionary would, whatever its kind."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import forked
from forgery import forge
from rrra_hf.indexes import DocumentIndex, FaissDocumentIndex, MilvusIndex
from small_indexes import APPROXIMATE, clustered, cosines

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


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
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
        (["b"], np.ones((2, 2)), r"ids must have one entry per embedding \(2\), got 1"),
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
    assert "Rebuilding the index with 49 documents of 100 rows" in caplog.text
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
    forge(path.with_name("meta.json"))
    pq.write_table(pa.table({"id": ["a"]}), path.with_name("ids.parquet"))
    with pytest.raises(ValueError, match="holds 1 ids and 2 embeddings of dimension 2, not 2 of 2"):
        FaissDocumentIndex.load(tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="No index at"):
        FaissDocumentIndex.load(tmp_path / "none")


def change_and_save(path: Path, vectors: np.ndarray, draw: random.Random) -> None:
    """Change an index for ever, and save it after each change."""
    index = FaissDocumentIndex.load(path)
    while True:
        row = draw.randrange(400)
        if row % 2:
            index.upsert([str(row)], vectors[row : row + 1])
        else:
            index.delete([str(row)])
        index.save(path)


def kill_while_saving(path: Path) -> None:
    """Kill fifteen copies of this process while they save, and check what each one left."""
    vectors, draw = np.random.default_rng(0).standard_normal((400, 16)), random.Random(0)
    index = FaissDocumentIndex(16, count=400, kind="ivf-flat")
    index.upsert([str(row) for row in range(300)], vectors[:300])
    index.save(path)
    for _ in range(15):
        child = os.fork()
        if not child:
            try:
                change_and_save(path, vectors, draw)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it failed before it was killed"
        found = FaissDocumentIndex.load(path)
        rows = [int(name) for name in found.ids]
        assert found.search(vectors[rows], 1)[1] == [[name] for name in found.ids]
        assert all(str(row) in found for row in range(1, 300, 2))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed are forked")
def test_processes_killed_while_they_save_leave_a_whole_index(tmp_path: Path) -> None:
    done = forked.run(kill_while_saving, tmp_path / "index")
    assert done.statuses == [0], done.err
