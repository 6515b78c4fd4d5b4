"""An updated index finds what one made anew finds, and the one before stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from forgery import forge
from rrra_hf.indexes import FlatIndex, Index, WordIndex, load_index, search_flat
from rrra_hf.indexes.folder import current_folder
from rrra_hf.indexes.patched import PatchedIndex
from small_indexes import APPROXIMATE, clustered, make_approximate, make_index

WORDS = ["herring", "whale", "sea", "the", "fishes", "blue", "bluer", ""]
texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=6)


def make(kind: str, documents: np.ndarray) -> Index:
    return make_index(documents) if kind == "flat" else make_approximate(kind, documents)


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
@pytest.mark.parametrize("gone", [0, 5, 100])
def test_an_updated_index_holds_the_kept_documents_and_the_new(kind: str, gone: int) -> None:
    vectors, added, queries = clustered(400), clustered(7, seed=1), clustered(30, seed=2)
    index = make(kind, vectors)
    before = index.search(queries, 5)
    kept = np.setdiff1d(np.arange(400), np.random.default_rng(0).choice(400, gone, replace=False))
    updated = index.updated(kept, added)
    assert isinstance(updated, PatchedIndex) == (kind != "flat" and gone < 40)
    everything = np.concatenate([vectors[kept], added])
    unit = everything / np.linalg.norm(everything, axis=1, keepdims=True)
    assert len(updated) == len(everything) and updated.dim == 16
    assert_allclose(updated.reconstruct(np.arange(len(updated))), unit, atol=1e-6)
    cosines, rows = updated.search(queries, 5)
    expected, places = search_flat(queries, everything, 5)
    assert (rows == places).mean() > (0.999 if kind == "flat" else 0.9)
    assert_allclose(cosines[:, 0], expected[:, 0], atol=0.05)
    for found, expected in zip(index.search(queries, 5), before, strict=True):
        assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE, "patched"])
def test_only_allowed_documents_are_found_and_the_best_of_them(kind: str) -> None:
    vectors, queries = clustered(400), clustered(20, seed=2)
    index = make("hnsw" if kind == "patched" else kind, vectors)
    if kind == "patched":
        index = index.updated(np.arange(5, 400), vectors[:10])
        vectors = np.concatenate([vectors[5:], vectors[:10]])
    allowed = np.flatnonzero(np.arange(len(vectors)) % 3 == 1)
    expected, places = search_flat(queries, vectors[allowed], 7)
    cosines, rows = index.search(queries, 7, allowed)
    assert_array_equal(rows, allowed[places])
    assert_allclose(cosines, expected, atol=1e-6)
    assert index.search(queries, 1000, allowed)[1].shape == (20, len(allowed))
    assert index.search(queries, 3, allowed[:2])[1].shape == (20, 2)
    for rows_, message in [([3, 1], "ascending"), ([1, 1], "ascending"), ([len(vectors)], "must be in")]:
        with pytest.raises(ValueError, match=message):
            index.search(queries, 3, np.array(rows_))


def test_many_allowed_documents_of_an_approximate_index_are_searched_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rrra_hf.indexes.approximate.EXACT", 0)
    vectors, queries = clustered(2000), clustered(20, seed=2)
    allowed = np.flatnonzero(np.arange(2000) % 3)
    for kind in ("hnsw", "ivf-flat"):
        index = make_approximate(kind, vectors)
        monkeypatch.setattr(index, "search_exactly", None)
        _, rows = index.search(queries, 5, allowed)
        assert np.isin(rows, allowed).all()
        assert (rows == allowed[search_flat(queries, vectors[allowed], 5)[1]]).mean() > 0.9


def test_a_patched_index_is_saved_and_changed_again(tmp_path: Path) -> None:
    vectors, queries = clustered(400), clustered(20, seed=2)
    patched = make_approximate("ivf-flat", vectors).updated(np.arange(3, 400), clustered(4, seed=1))
    patched.save(tmp_path / "index")
    opened = load_index(tmp_path / "index")
    for found, expected in zip(opened.search(queries, 5), patched.search(queries, 5), strict=True):
        assert_array_equal(found, expected)
    again = opened.updated(np.arange(1, len(opened)))
    again.save(tmp_path / "index")
    assert len(load_index(tmp_path / "index")) == 400
    without_new = opened.updated(np.arange(390))
    without_new.save(tmp_path / "index")
    assert len(load_index(tmp_path / "index")) == 390


@pytest.mark.parametrize(
    ("entry", "value"), [("kept", 10**12), ("kept", -1), ("kept", "9"), ("added", 3), ("added", 0)]
)
def test_metadata_of_a_patched_index_are_compared_with_the_files(
    tmp_path: Path, entry: str, value: object
) -> None:
    make_approximate("hnsw", clustered(50)).updated(np.arange(1, 50), np.ones((2, 16))).save(tmp_path)
    forge(current_folder(tmp_path, ())[0] / "meta.json", **{entry: value})
    with pytest.raises(ValueError, match=r"damaged|must hold"):
        load_index(tmp_path)


@pytest.mark.parametrize("rows", [[5, 5], [7, 3], [-1, 2], [3, 50]])
def test_rows_of_a_patched_index_must_be_rows(tmp_path: Path, rows: list[int]) -> None:
    make_approximate("hnsw", clustered(50)).updated(np.arange(1, 50), np.ones((2, 16))).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    np.save(folder / "kept.npy", np.array(rows))
    forge(folder / "meta.json", kept=2)
    with pytest.raises(ValueError, match=r"kept\.npy is damaged: its rows must ascend, below 50"):
        load_index(tmp_path)


@settings(max_examples=40, deadline=None)
@given(before=texts, added=texts, seed=st.integers(0, 9))
def test_an_updated_word_index_is_that_made_anew(before: list[str], added: list[str], seed: int) -> None:
    kept = np.flatnonzero(np.random.default_rng(seed).random(len(before)) < 0.6)
    updated = WordIndex.of(before, "english").updated(kept, added, show_progress_bar=False)
    expected = WordIndex.of([*(before[row] for row in kept), *added], "english")
    assert updated.language == expected.language
    for name in ("vocabulary", "idf", "lengths"):
        assert_array_equal(getattr(updated, name), getattr(expected, name))
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(updated.documents, name), getattr(expected.documents, name))
    queries = ["the blue whale", "herring herring"]
    for found, wanted in zip(
        updated.search(updated.count(queries), 4), expected.search(expected.count(queries), 4), strict=True
    ):
        assert_array_equal(found, wanted)


def test_words_of_allowed_documents_are_searched_alone() -> None:
    index = WordIndex.of(["red fish", "red red fish", "blue fish", "red whale"], "none")
    queries = index.count(["red fish"])
    scores, rows = index.search(queries, 4, np.array([1, 2]))
    assert rows.tolist() == [[1, 2, -1, -1]]
    everything = dict(zip(*(found[0].tolist() for found in index.search(queries, 4)[::-1]), strict=True))
    assert scores[0, :2].tolist() == [everything[1], everything[2]]


def test_a_flat_index_can_lose_all_its_documents() -> None:
    empty = make_index(clustered(5)).updated(np.empty(0, dtype=int))
    assert isinstance(empty, FlatIndex) and len(empty) == 0
