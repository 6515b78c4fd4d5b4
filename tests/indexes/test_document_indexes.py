"""An index of documents by id holds what a dictionary would."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from rrra_hf.indexes import MilvusIndex
from small_indexes import cosines

NAMES = ["a", "b", "c", "d", 'quo"te', "it's", "back\\slash", "日本", "{x}", "%"]


Documents = Callable[[int], MilvusIndex]


@pytest.fixture(scope="module")
def make_documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Documents]:
    """Return a function that makes an empty index whose documents have ids."""
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
