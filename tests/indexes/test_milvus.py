"""Documents in Milvus: what is stored is found, by embeddings and by words, and bad documents are refused."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rrra_hf.indexes import MilvusIndex, milvus
from rrra_hf.indexes.milvus import Entity, check_storable

pymilvus = pytest.importorskip("pymilvus")

NAMES = ["a", "b", "c", "d", 'quo"te', "it's", "back\\slash", "日本", "{x}", "%"]


def entity(name: str, embedding: Any = (1, 0), **fields: Any) -> Entity:
    vector = np.array(embedding, dtype=np.float32)
    made = {"title": "", "text": f"text of {name}", "metadata": "", "entries": {}, "length": 1, **fields}
    return Entity(id=name, embedding=vector / np.linalg.norm(vector), **{"words": {7: 1.0}, **made})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusIndex]:
    index = MilvusIndex(2, tmp_path_factory.mktemp("milvus") / "documents.db", index_type="FLAT")
    yield index
    index.close()


changes = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "delete"]), st.lists(st.sampled_from(NAMES), unique=True, max_size=6)
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=changes, seed=st.integers(0, 99))
def test_any_changes_leave_what_a_dictionary_would_hold(
    index: MilvusIndex, changes: list[tuple[str, list[str]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index.clear()
    expected: dict[str, Entity] = {}
    for change, ids in changes:
        if change == "upsert":
            new = {
                name: entity(name, rng.standard_normal(2), words={3: float(rng.integers(1, 9))})
                for name in ids
            }
            index.upsert(list(new.values()))
            expected |= new
        else:
            index.delete(ids)
            expected = {name: kept for name, kept in expected.items() if name not in ids}
    assert len(index) == len(expected)
    found = {each["id"]: each for each in index.fetch(NAMES, Entity._fields)}
    assert found.keys() == expected.keys()
    for name, stored in expected.items():
        assert_allclose(found[name]["embedding"], stored.embedding, atol=1e-6)
        assert {**found[name], "embedding": None} == {**stored._asdict(), "embedding": None}
    query = rng.standard_normal(2)
    (ids,) = index.search(query[None], 3)
    (by_words,) = index.search_words([{3: 1.0, 99: 5.0}], 3)
    cosines = [float(expected[name].embedding @ query) for name in ids]
    assert cosines == sorted((float(each.embedding @ query) for each in expected.values()), reverse=True)[:3]
    weights = [expected[name].words[3] for name in by_words]
    assert weights == sorted((each.words[3] for each in expected.values()), reverse=True)[:3]


def test_documents_outlive_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "documents.db"
    first, second = (MilvusIndex(2, path) for _ in range(2))
    first.upsert([entity("a"), entity("b")])
    with pytest.raises(ValueError, match="dimension 3"):
        MilvusIndex(3, path)
    first.close()
    first.close()
    assert len(second) == 2
    del second
    gc.collect()
    assert not milvus._users[str(path)]
    again = MilvusIndex(2, path)
    again.delete(["a", "unknown"])
    assert [each["id"] for each in again.fetch(["a", "b"], ["id"])] == ["b"]
    again.close()


def test_a_server_is_reached_by_its_address(tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(data_dir=str(tmp_path), host="127.0.0.1", port=0)
    try:
        index = MilvusIndex(2, f"http://127.0.0.1:{port}", "others")
        index.upsert([entity("a", (1, 0)), entity("b", (0, 1))])
        assert index.search(np.array([[0.0, 1]]), 1) == [["b"]]
        index.close()
    finally:
        server.stop(grace=0)
        database.close()


def test_large_calls_are_sent_in_parts(index: MilvusIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "REQUEST_BYTES", 200)
    monkeypatch.setattr(milvus, "IDS_A_REQUEST", 3)
    monkeypatch.setattr(milvus, "HITS_A_REQUEST", 7)
    vectors = np.random.default_rng(0).standard_normal((10, 2))
    index.clear()
    sent: list[int] = []
    upsert = index._client.upsert
    monkeypatch.setattr(
        index._client, "upsert", lambda name, rows: (sent.append(len(rows)), upsert(name, rows))
    )
    index.upsert([entity(str(row), vector) for row, vector in enumerate(vectors)])
    assert sent == [7, 3]
    assert [found[0] for found in index.search(vectors, 4)] == [str(row) for row in range(10)]
    assert sorted(each["id"] for each in index.fetch([str(row) for row in range(10)], ["id"])) == [
        str(row) for row in range(10)
    ]
    assert sorted(each["id"] for part in index.entities(["id"]) for each in part) == [
        str(row) for row in range(10)
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("é" * 513, "text", r"ids must have at most 1024 bytes, got 'éé"),
        ("a\nb", "text", r"no control characters with Milvus, got 'a\\nb'"),
        ("a", "é" * 32_768, r"at most 65,535 bytes as text with Milvus, 'a' has 65,536"),
    ],
)
def test_documents_that_milvus_cannot_hold_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_storable([name], {"text": [text]})
    check_storable(["a"], {"text": ["é" * 32_767]})


def test_more_documents_than_milvus_returns_are_refused(index: MilvusIndex) -> None:
    with pytest.raises(ValueError, match="k must be at most 16384 with Milvus, got 16385"):
        index.search(np.ones((1, 2)), 16_385)
    with pytest.raises(ValueError, match="k must be at most 16384"):
        index.search_words([{3: 1.0}], 16_385)


def test_a_collection_of_another_shape_is_refused(index: MilvusIndex) -> None:
    with pytest.raises(ValueError, match=r"'documents' at .* of dimension 3, got id, .* and dimension 2"):
        MilvusIndex(3, index.uri)
    index._client.create_collection("foreign", dimension=2)
    with pytest.raises(ValueError, match=r"'foreign' at .* got id, vector and dimension None"):
        MilvusIndex(2, index.uri, "foreign")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        MilvusIndex(0)
    with pytest.raises(ValueError, match=r"uri must be a file ending in \.db or an address, got 'index'"):
        MilvusIndex(2, "index")


def test_a_token_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Refuses:
        def __init__(self, uri: str, token: str):
            asked.append((uri, token))
            raise ConnectionError

    monkeypatch.setattr(pymilvus, "MilvusClient", Refuses)
    monkeypatch.setenv("MILVUS_TOKEN", "secret")
    for options in ({}, {"token": "other"}):
        with pytest.raises(ConnectionError):
            MilvusIndex(2, "http://milvus:19530", **options)
    assert [token for _, token in asked] == ["secret", "other"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r"pip install 'rrra-hf\[milvus\]'"):
        MilvusIndex(2)
