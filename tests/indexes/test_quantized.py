"""Quantised embeddings: what a search finds and returns, how they grow, and what of a file is believed."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from forgery import forge
from rrra_hf.embeddings import save_embeddings
from rrra_hf.embeddings.storage import save_columns
from rrra_hf.indexes import BinaryIndex, Int8Index, QuantizedIndex, load_index, make_index
from rrra_hf.indexes.folder import current_folder
from small_indexes import clustered, cosines

CLASSES = [Int8Index, BinaryIndex]
HUGE = [10**9, 10**18, -1, 0, 2.5, "16", None, [16], True]

both = pytest.mark.parametrize("cls", CLASSES)


def make(cls: type[QuantizedIndex], documents: np.ndarray, **options: int) -> QuantizedIndex:
    index = cls(documents.shape[1], **options)
    index.add(documents)
    return index


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


# -------------------------------------------------------------------- values


@both
def test_a_value_is_the_middle_of_its_step(cls: type[QuantizedIndex]) -> None:
    # Both dimensions range from 0 to 1: .28 * 255 = 71.4, .96 * 255 = 244.8.
    index = make(cls, np.array([[0.0, 1.0], [1.0, 0.0], [0.28, 0.96]]))
    middle = (np.array([[0, 255], [255, 0], [71, 244]]) + 0.5) / 255
    expected = middle / np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1)
    assert_allclose(index.reconstruct(np.array([[0, 1], [2, 2]])), expected[[[0, 1], [2, 2]]], atol=1e-6)


@both
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 40))
def test_no_value_moves_by_more_than_half_a_step(
    cls: type[QuantizedIndex], seed: int, dim: int, count: int
) -> None:
    documents = unit(np.random.default_rng(seed).standard_normal((count, dim)) + 0.3)
    step = (documents.max(axis=0) - documents.min(axis=0)) / 255
    index = make(cls, documents)
    decoded = index._quantizer.sa_decode(index._codes)
    # The greatest value of a dimension is the lower end of a step of its own.
    assert (np.abs(decoded - documents) <= 0.5 * step + 1e-6).all()


@both
def test_cosines_are_those_of_the_reconstructed_embeddings(cls: type[QuantizedIndex]) -> None:
    documents, queries = clustered(500), clustered(20, seed=1)
    found, rows = make(cls, documents).search(queries, 10)
    assert found.dtype == np.float32 and rows.dtype == np.int64
    assert (np.diff(found) <= 0).all()
    expected = unit(queries) @ make(cls, documents).reconstruct(np.arange(500)).T
    assert_allclose(found, np.take_along_axis(expected, rows, axis=1), atol=1e-5)
    assert_allclose(found, np.take_along_axis(cosines(queries, documents), rows, axis=1), atol=0.01)


def test_eight_bits_find_what_all_bits_find() -> None:
    documents, queries = clustered(3000, dim=32), clustered(50, dim=32, seed=1)
    _, rows = make(Int8Index, documents).search(queries, 10)
    nearest = np.argsort(-cosines(queries, documents), axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(nearest, rows, strict=True)]) >= 9.7


def test_signs_find_more_if_more_candidates_are_rescored() -> None:
    documents, queries = clustered(3000, dim=32), clustered(50, dim=32, seed=1)
    nearest = make(Int8Index, documents).search(queries, 50)[1]

    def found(multiplier: int) -> float:
        _, rows = make(BinaryIndex, documents, rescore_multiplier=multiplier).search(queries, 50)
        return float(np.mean([len(set(a) & set(b)) / 50 for a, b in zip(nearest, rows, strict=True)]))

    assert found(2) < found(8) < found(60) == 1


@both
def test_ties_are_sorted_by_row(cls: type[QuantizedIndex]) -> None:
    index = make(cls, np.tile([[1.0, 0.0], [0.0, 1.0]], (150, 1)))
    _, rows = index.search(np.array([[1.0, 0.0]]), k=300)
    assert_array_equal(rows[0], [*range(0, 300, 2), *range(1, 300, 2)])


def test_zeros_have_no_sign_where_no_value_is_negative() -> None:
    # Ten words each, of a vocabulary of 200: the document of a query shares ten signs with it, others few.
    rng = np.random.default_rng(0)
    documents = np.zeros((2000, 200))
    for document in documents:
        document[rng.choice(200, 10, replace=False)] = rng.uniform(0.5, 1, 10)
    index = make(BinaryIndex, documents, rescore_multiplier=1)
    assert_array_equal(index._bits.search(np.packbits(documents[:50] > 0, axis=1), 1)[1][:, 0], np.arange(50))


@both
def test_zeros_are_near_to_nothing(cls: type[QuantizedIndex]) -> None:
    index = make(cls, np.concatenate([np.eye(8), np.zeros((1, 8))]))
    cosine, rows = index.search(np.ones((1, 8)), 9)
    assert rows[0, -1] == 8 and 0 <= cosine[0, -1] < 0.01
    assert np.linalg.norm(index.reconstruct(np.arange(9)), axis=1).max() <= 1 + 1e-6


# -------------------------------------------------------------------- growing


@both
def test_later_documents_are_as_exact_as_the_first(cls: type[QuantizedIndex]) -> None:
    documents = clustered(1200, dim=32)
    index = make(cls, documents[:10])
    for start in range(10, 1200, 10):
        index.add(documents[start : start + 10])
    assert len(index) == 1200
    error = np.linalg.norm(index.reconstruct(np.arange(1200)) - unit(documents), axis=1)
    at_once = np.linalg.norm(make(cls, documents).reconstruct(np.arange(1200)) - unit(documents), axis=1)
    assert error.max() < 3 * at_once.max()


def test_documents_inside_of_the_ranges_leave_the_others_as_they_are() -> None:
    documents = clustered(500)
    index = make(Int8Index, documents)
    before = index._codes.copy()
    index.add(0.9 * unit(documents[:100]))
    assert_array_equal(index._codes[:500], before)


@both
def test_an_updated_index_has_the_documents_of_both(cls: type[QuantizedIndex]) -> None:
    documents, others, queries = clustered(500), 5 + clustered(70, seed=1), clustered(9, seed=2)
    index = make(cls, documents, rescore_multiplier=9)
    before = index.search(queries, 20)
    kept = np.arange(0, 500, 3)
    new = index.updated(kept, others)
    assert type(new) is cls and new.rescore_multiplier == 9
    expected = unit(np.concatenate([documents[kept], others]))
    assert_allclose(new.reconstruct(np.arange(len(expected))), expected, atol=0.02)
    assert_array_equal(index.updated(kept).reconstruct(np.arange(len(kept))), index.reconstruct(kept))
    for ours, theirs in zip(before, index.search(queries, 20), strict=True):
        assert_array_equal(ours, theirs)


@both
def test_only_allowed_documents_are_found(cls: type[QuantizedIndex]) -> None:
    documents, queries = clustered(1000), clustered(9, seed=2)
    index = make(cls, documents)
    allowed = np.flatnonzero(np.arange(1000) % 7 == 3)
    _, rows = index.search(queries, 10, allowed)
    _, places = make(cls, documents).updated(allowed).search(queries, 10)
    if cls is Int8Index:
        assert_array_equal(rows, allowed[places])
    assert np.isin(rows, allowed).all()
    # If all of them are candidates, the search is exact.
    cosine, few = index.search(queries, 100, allowed[:20])
    assert few.shape == (9, 20) and (np.sort(few, axis=1) == allowed[:20]).all()
    assert_allclose(
        cosine, np.take_along_axis(unit(queries) @ index.reconstruct(np.arange(1000)).T, few, 1), atol=1e-5
    )


# -------------------------------------------------------------------- files


@both
def test_a_saved_index_finds_the_same_and_grows(
    cls: type[QuantizedIndex], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in ("read_index", "read_index_binary", "deserialize_index"):
        monkeypatch.setattr(faiss, reader, None)
    documents, queries = clustered(600, dim=20), clustered(20, dim=20, seed=1)
    index = make(cls, documents[:500], rescore_multiplier=3)
    index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert type(loaded) is cls
    assert (len(loaded), loaded.dim, loaded.rescore_multiplier) == (500, 20, 3)
    for ours, theirs in zip(index.search(queries, 5), loaded.search(queries, 5), strict=True):
        assert_array_equal(ours, theirs)
    # The files may be replaced while they are mapped.
    index.save(tmp_path / "index")
    loaded.add(documents[500:])
    assert_array_equal(loaded.search(documents[490:510], 1)[1][:, 0], range(490, 510))
    loaded.save(tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert_array_equal(again.reconstruct(np.arange(600)), loaded.reconstruct(np.arange(600)))
    assert len(list((tmp_path / "index").iterdir())) == 2


@both
def test_an_empty_index_can_be_saved(cls: type[QuantizedIndex], tmp_path: Path) -> None:
    cls(4).save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert len(loaded) == 0
    with pytest.raises(ValueError, match="index is empty"):
        loaded.search(np.ones((1, 4)), 1)
    loaded.add(np.eye(4))
    assert loaded.search(np.eye(4), 1)[1].tolist() == [[0], [1], [2], [3]]


def test_the_size_on_disk_is_one_byte_per_value(tmp_path: Path) -> None:
    for cls in CLASSES:
        make(cls, clustered(4000, dim=64)).save(tmp_path / cls.storage)
        size = sum(path.stat().st_size for path in (tmp_path / cls.storage).rglob("*") if path.is_file())
        assert 64 * 4000 < size < 66 * 4000


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((entry, value) for entry in ("dim", "documents") for value in HUGE),
        *(("rescore_multiplier", value) for value in ("4", None, [4], 2.5, 0, -1)),
        *(("storage", value) for value in ("float32", "int4", None, 7, ["int8"])),
    ],
)
def test_metadata_are_compared_with_the_files(tmp_path: Path, entry: str, value: object) -> None:
    make(Int8Index, clustered(50)).save(tmp_path)
    forge(current_folder(tmp_path, ())[0] / "meta.json", **{entry: value})
    with pytest.raises(ValueError, match=r"is damaged"):
        load_index(tmp_path)


RANGES = np.stack([np.full(16, -0.5), np.full(16, 0.5)]).astype(np.float32)


@pytest.mark.parametrize(
    "ranges", [np.nan * RANGES, np.inf * RANGES, 5 * RANGES, RANGES[::-1], RANGES[:1], RANGES[:, :15]]
)
def test_ranges_that_are_none_of_embeddings_are_refused(tmp_path: Path, ranges: np.ndarray) -> None:
    make(BinaryIndex, clustered(50)).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    save_embeddings(folder / "ranges.arrow", ranges)
    forge(folder / "meta.json")
    with pytest.raises(ValueError, match=r"is damaged: .*ranges"):
        load_index(tmp_path)


@pytest.mark.parametrize(
    "columns",
    [
        {"code": np.zeros((50, 16), dtype=np.int8)},
        {"code": np.zeros((50, 16), dtype=np.float32)},
        {"code": np.zeros((50, 15), dtype=np.uint8)},
        {"code": np.zeros((49, 16), dtype=np.uint8)},
        {"embedding": np.zeros((50, 16), dtype=np.uint8)},
    ],
)
def test_codes_of_another_shape_are_refused(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    make(Int8Index, clustered(50)).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    save_columns(folder / "codes.arrow", columns)
    forge(folder / "meta.json")
    with pytest.raises(ValueError, match=r"is damaged"):
        load_index(tmp_path)


@both
@pytest.mark.parametrize("name", ["codes.arrow", "ranges.arrow"])
def test_any_changed_byte_is_noticed(tmp_path: Path, cls: type[QuantizedIndex], name: str) -> None:
    make(cls, clustered(50)).save(tmp_path)
    path = current_folder(tmp_path, ())[0] / name
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=rf"{name} is damaged: it isn't the file that was saved"):
            load_index(tmp_path)


# -------------------------------------------------------------------- arguments


def test_illegal_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Int8Index(0)
    with pytest.raises(ValueError, match="rescore_multiplier must be at least 1, got 0"):
        BinaryIndex(4, rescore_multiplier=0)
    index = make(Int8Index, np.eye(4))
    with pytest.raises(ValueError, match="embeddings must have dimension 4, got 3"):
        index.add(np.eye(3))
    with pytest.raises(ValueError, match="must be finite"):
        index.add(np.full((1, 4), np.nan))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(np.eye(4), 0)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 4\)"):
        index.reconstruct(np.array([4]))
    assert len(index) == 4


def test_storage_goes_with_kinds_that_search_all_documents() -> None:
    assert type(make_index(8, 100, storage="int8")) is Int8Index
    assert type(make_index(8, 10**7, "flat", storage="binary")) is BinaryIndex
    with pytest.raises(ValueError, match="storage must be one of float32, int8, binary, got 'int4'"):
        make_index(8, 100, storage="int4")
    with pytest.raises(ValueError, match=r"storage must be float32 with kind='hnsw', .* got 'int8'"):
        make_index(8, 100, "hnsw", storage="int8")
