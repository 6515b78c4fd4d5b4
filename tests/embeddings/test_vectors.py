"""Embeddings read from a database or a file are those written, and are fitted and reranked as they are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from retriever_models import make_adapter
from rrra_hf import fit_adapter, fit_arguments
from rrra_hf.embeddings import Vectors, read_milvus, read_npy, read_parquet
from rrra_hf.indexes import FlatIndex
from rrra_hf.retrieval import rerank_vectors

DOCUMENTS, QUERIES, DIM = 120, 50, 16
IDS = [str(1000 + row) for row in range(DOCUMENTS)]
TINY = fit_arguments(
    "residual", hidden_size=8, max_steps=20, eval_steps=10, batch_size=8, depth=20, mined_negatives=4
)


@pytest.fixture(scope="module")
def documents() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(DOCUMENTS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def queries(documents: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(QUERIES, DIM))
    return (documents[:QUERIES] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def milvus(documents: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    client = pymilvus.MilvusClient(str(tmp_path_factory.mktemp("milvus") / "vectors.db"))
    client.create_collection("documents", dimension=DIM, metric_type="L2")
    client.insert(
        "documents",
        [{"id": int(name), "vector": row.tolist()} for name, row in zip(IDS, documents, strict=True)],
    )
    client.create_collection("empty", dimension=DIM)
    yield client
    client.close()


@pytest.fixture
def read(request: pytest.FixtureRequest, documents: np.ndarray, tmp_path: Path) -> Callable[[str], Vectors]:
    """Write the documents to a kind of storage and read them back."""

    def from_parquet() -> Vectors:
        pq.write_table(pa.table({"id": IDS, "embedding": list(documents)}), tmp_path / "documents.parquet")
        return read_parquet(tmp_path / "documents.parquet", batch_size=50)

    def from_npy() -> Vectors:
        np.save(tmp_path / "documents.npy", documents)
        return read_npy(tmp_path / "documents.npy", IDS)

    def from_milvus() -> Vectors:
        return read_milvus(request.getfixturevalue("milvus"), "documents", batch_size=50)

    return lambda kind: {"milvus": from_milvus, "parquet": from_parquet, "npy": from_npy}[kind]()


@pytest.mark.parametrize("kind", ["milvus", "parquet", "npy"])
def test_stored_embeddings_are_fitted_and_reranked(
    kind: str, read: Callable[[str], Vectors], documents: np.ndarray, queries: np.ndarray
) -> None:
    vectors = read(kind)
    assert vectors.ids == IDS
    assert isinstance(vectors.embeddings, np.memmap)
    assert_array_equal(vectors.embeddings, documents)

    positives = [[vectors.row_of[IDS[row]]] for row in range(QUERIES)]
    adapter = fit_adapter(queries, vectors.embeddings, positives, arguments=TINY)
    same = fit_adapter(queries, documents, positives, arguments=TINY)
    adapter.config.lambda_ = same.config.lambda_ = 0.5
    index = FlatIndex(DIM)
    index.add(vectors.embeddings)
    cosines, rows = index.search(queries, 10)
    found, scores = rerank_vectors(adapter, queries, vectors.embeddings, rows)
    expected = np.asarray(same.rerank(queries, documents[rows], cosines))
    assert_allclose(scores, -np.sort(-expected, axis=1), rtol=1e-4, atol=1e-4)
    assert_array_equal(found, np.take_along_axis(rows, np.argsort(-expected, axis=1, kind="stable"), axis=1))
    assert (found != rows).any()


def test_what_milvus_found_is_reranked(milvus: Any, queries: np.ndarray) -> None:
    vectors = read_milvus(milvus, "documents")
    hits = milvus.search("documents", data=queries.tolist(), limit=10)
    rows = [[vectors.row_of[str(hit["id"])] for hit in found] for found in hits]
    adapter = make_adapter(dim=DIM, lambda_=0.5)
    found, scores = rerank_vectors(adapter, queries, vectors.embeddings, rows)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert [set(row) for row in found.tolist()] == [set(row) for row in rows]
    assert found.tolist() != rows


# -------------------------------------------------------------------- ids


def test_ids_must_be_unique_and_one_an_embedding() -> None:
    with pytest.raises(ValueError, match=r"ids must have one entry per embedding \(2\), got 1"):
        Vectors(["a"], np.eye(2))
    with pytest.raises(ValueError, match="ids must be unique, 'a' occurs 2 times"):
        Vectors(["a", "b", "a"], np.eye(3))
    with pytest.raises(ValueError, match="embeddings must be finite: 1 of 2 rows"):
        Vectors(["a", "b"], np.array([[1.0], [np.nan]]))


# -------------------------------------------------------------------- Milvus


def test_fields_that_milvus_does_not_have_are_refused(milvus: Any) -> None:
    with pytest.raises(ValueError, match=r"id_field must be a field of documents, \['id', 'vector'\]"):
        read_milvus(milvus, "documents", id_field="name")
    for field in ("id", "embedding"):
        with pytest.raises(ValueError, match=f"must be a FLOAT_VECTOR field of documents, .*got '{field}'"):
            read_milvus(milvus, "documents", vector_field=field)
    with pytest.raises(ValueError, match="The collection empty has no embeddings"):
        read_milvus(milvus, "empty")


@pytest.mark.parametrize("count", [DOCUMENTS - 1, DOCUMENTS + 1])
def test_collection_that_changes_while_it_is_read_is_refused(milvus: Any, count: int) -> None:
    client = SimpleNamespace(
        describe_collection=milvus.describe_collection,
        query_iterator=milvus.query_iterator,
        query=lambda *_, **__: [{"count(*)": count}],
    )
    with pytest.raises(
        ValueError, match=f"documents changed while it was read: 120 embeddings, {count} before"
    ):
        read_milvus(client, "documents")


# -------------------------------------------------------------------- Parquet


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2), pa.list_(pa.float16())],
)
def test_parquet_lists_of_every_kind_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    values = np.array([[1, 0], [0, 1], [0.5, 0.25]], dtype=np.float16)
    table = pa.table({"key": [3, 1, 2], "vector": pa.array(list(values), type=kind), "text": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "vectors.parquet")
    for batch_size in (1, 2, 100):
        vectors = read_parquet(
            tmp_path / "vectors.parquet", id_column="key", vector_column="vector", batch_size=batch_size
        )
        assert vectors.ids == ["3", "1", "2"]
        assert_array_equal(vectors.embeddings, values.astype(np.float32))


def test_parquet_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, row in (("b", 1), ("a", 0)):
        pq.write_table(pa.table({"id": [name], "embedding": [np.eye(2)[row]]}), tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("other")
    vectors = read_parquet(tmp_path)
    assert vectors.ids == ["a", "b"]
    assert_array_equal(vectors.embeddings, np.eye(2))


def test_parquet_is_read_in_bounded_memory(tmp_path: Path) -> None:
    count, dim = 40_000, 64
    embeddings = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), dim)
    path = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"id": pa.array(range(count)), "embedding": column}), path, row_group_size=2000)
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        vectors = read_parquet(path, batch_size=1000, scratch_dir=tmp_path)
        allocated = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    # The ids are some 60 bytes each.
    assert pool.max_memory() + allocated - 60 * count < embeddings.nbytes / 2
    assert_array_equal(vectors.embeddings, embeddings)
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.parquet"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"]}, r"vector_column must be a column of .*bad\.parquet, \['id'\], got 'embedding'"),
        ({"embedding": [[1.0]]}, r"id_column must be a column of .*bad\.parquet, .*got 'id'"),
        ({"id": ["a"], "embedding": ["x"]}, "must have lists of floats as embedding, got string"),
        ({"id": ["a"], "embedding": [[1]]}, r"must have lists of floats as embedding, got list.*int64"),
        (
            {"id": list("abc"), "embedding": [[1.0, 2.0], [1.0, 2.0], [1.0]]},
            r"must have embeddings of one dimension, got \[1\.0\] in row 2 and 2 dimensions in row 0",
        ),
        ({"id": list("ab"), "embedding": [[1.0, 2.0], None]}, "got None in row 1"),
        ({"id": list("ab"), "embedding": [[1.0, 2.0], [1.0, None]]}, "finite: 1 of 2 rows.*row 1"),
        ({"id": ["a", "a"], "embedding": [[1.0], [2.0]]}, "ids must be unique, 'a' occurs 2 times"),
        (
            {"id": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))},
            "has no embed",
        ),
    ],
)
def test_malformed_parquet_is_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=message):
        read_parquet(tmp_path / "bad.parquet")


def test_parquet_files_of_different_dimensions_are_refused(tmp_path: Path) -> None:
    for name, dim in (("a", 2), ("b", 3)):
        pq.write_table(pa.table({"id": [name], "embedding": [np.ones(dim)]}), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="one dimension, got 3 in row 1 and 2 before"):
        read_parquet(tmp_path)


def test_missing_or_damaged_parquet_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.parquet"):
        with pytest.raises(FileNotFoundError, match="No Parquet file at"):
            read_parquet(path)
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"bad\.parquet is damaged or not a Parquet file"):
        read_parquet(tmp_path)


# -------------------------------------------------------------------- NumPy


def test_npy_that_holds_no_matrix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    with pytest.raises(FileNotFoundError, match="vectors"):
        read_npy(path)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"vectors\.npy is damaged"):
        read_npy(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"vectors\.npy is damaged or has no array of numbers"):
        read_npy(path)
    np.save(path, np.ones(3))
    with pytest.raises(ValueError, match=r"shape \(n, dim\)"):
        read_npy(path)
    np.savez(tmp_path / "several.npz", a=np.eye(2))
    with pytest.raises(ValueError, match="got an archive of several"):
        read_npy(tmp_path / "several.npz")
