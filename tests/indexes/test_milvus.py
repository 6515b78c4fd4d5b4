"""What is particular to Milvus; that it does what every index by id does is tested beside the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rrra_hf.indexes import FlatIndex, MilvusIndex, milvus

pymilvus = pytest.importorskip("pymilvus")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an embedded file, whose engine is kept running for the tests of this module."""
    path = tmp_path_factory.mktemp("milvus") / "documents.db"
    index = MilvusIndex(2, path, collection="shared")
    yield path
    index.close()


def test_documents_outlive_the_connection(tmp_path: Path) -> None:
    index = MilvusIndex(3, tmp_path / "deeper" / "documents.db")
    index.upsert(["a", "b"], np.array([[2.0, 0, 0], [0, 3, 4]]))
    index.delete(["a"])
    index.close()
    again = MilvusIndex(3, tmp_path / "deeper" / "documents.db")
    assert len(again) == 1 and "a" not in again
    assert_allclose(again.reconstruct(["b"]), [[0, 0.6, 0.8]], atol=1e-6)
    assert again.search(np.array([[0, 0, 1.0]]), 5)[1] == [["b"]]
    again.close()


def test_closing_one_index_leaves_others_of_the_file_open(tmp_path: Path) -> None:
    first, second = (MilvusIndex(2, tmp_path / "documents.db") for _ in range(2))
    first.upsert(["a"], np.ones((1, 2)))
    with pytest.raises(ValueError, match="dimension 3"):
        MilvusIndex(3, tmp_path / "documents.db")
    first.close()
    first.close()
    assert "a" in second
    second.close()


def test_a_server_is_reached_by_its_address(tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(data_dir=str(tmp_path), host="127.0.0.1", port=0)
    try:
        index = MilvusIndex(2, f"http://127.0.0.1:{port}")
        index.upsert(["a", "b"], np.eye(2))
        assert index.search(np.array([[0.0, 1]]), 1)[1] == [["b"]]
        index.close()
    finally:
        server.stop(grace=0)
        database.close()


def test_large_calls_are_sent_in_parts(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "REQUEST_BYTES", 3000)
    monkeypatch.setattr(milvus, "IDS_A_REQUEST", 3)
    monkeypatch.setattr(milvus, "HITS_A_REQUEST", 7)
    vectors = np.random.default_rng(0).standard_normal((10, 6))
    names = [str(row) for row in range(10)]
    index, exact = MilvusIndex(6, uri, collection="parts"), FlatIndex(6)
    index.upsert([*names, "0"], np.concatenate([vectors, vectors[:1]]))
    exact.add(vectors)
    assert_allclose(index.reconstruct(names[::-1]), exact.reconstruct(np.arange(10)[::-1]), atol=1e-6)
    scores, ids = index.search(vectors, 4)
    expected_scores, expected_rows = exact.search(vectors, 4)
    assert ids == expected_rows.astype(str).tolist()
    assert_allclose(scores, expected_scores, atol=1e-6)
    assert index.delete(names[:7]) == 7
    assert len(index) == 3


def test_bad_ids_are_refused(uri: Path) -> None:
    index = MilvusIndex(2, uri, collection="ids")
    with pytest.raises(ValueError, match=r"ids must have at most 1024 bytes, got 'éé"):
        index.upsert(["é" * 513], np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"no control characters with Milvus, got 'a\\nb'"):
        index.delete(["a\nb"])
    assert len(index) == 0


def test_more_documents_than_milvus_returns_are_refused(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = MilvusIndex(2, uri, collection="many")
    index.upsert(["a", "b", "c"], np.ones((3, 2)))
    monkeypatch.setattr(milvus, "MAX_K", 2)
    assert len(index.search(np.ones((1, 2)), 2)[1][0]) == 2
    with pytest.raises(ValueError, match="k must be at most 2 with Milvus, got 3"):
        index.search(np.ones((1, 2)), 9)


def test_too_few_documents_found_are_an_error(uri: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = MilvusIndex(2, uri, collection="few")
    index.upsert(["a", "b"], np.eye(2))
    search = index._client.search
    monkeypatch.setattr(index._client, "search", lambda *args, limit, **more: search(*args, limit=1, **more))
    with pytest.raises(RuntimeError, match="Milvus found 1 documents for a query instead of 2"):
        index.search(np.eye(2), 2)


def test_a_collection_of_another_shape_is_refused(uri: Path) -> None:
    MilvusIndex(2, uri, collection="shape")
    with pytest.raises(
        ValueError, match=r"'shape' at .* must have .* dimension 3, got id, embedding, dimension 2"
    ):
        MilvusIndex(3, uri, collection="shape")
    index = MilvusIndex(2, uri, collection="shape")
    index._client.create_collection("foreign", dimension=2)
    with pytest.raises(ValueError, match=r"'foreign' at .* got id, vector, dimension None"):
        MilvusIndex(2, uri, collection="foreign")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        MilvusIndex(0)
    with pytest.raises(ValueError, match=r"uri must be a file ending in \.db or an address, got 'index'"):
        MilvusIndex(2, "index")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install 'rrra-hf\[milvus\]'"):
        MilvusIndex(2)
