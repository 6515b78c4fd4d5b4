"""Embeddings are kept bit for bit, and bad ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from rrra_hf.embeddings import check_embeddings, load_embeddings, save_embeddings
from rrra_hf.embeddings.storage import load_columns


@given(rows=st.integers(0, 5), dim=st.integers(1, 5), seed=st.integers(0, 9))
def test_saved_embeddings_load_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, seed: int
) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    path = tmp_path_factory.mktemp("files") / "deeper" / "embeddings.arrow"
    save_embeddings(path, embeddings)
    loaded = load_embeddings(path)
    assert loaded.shape == (rows, dim) and loaded.dtype == np.float32 and not loaded.flags.writeable
    assert_array_equal(loaded, embeddings)
    assert [file.name for file in path.parent.iterdir()] == ["embeddings.arrow"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_embeddings(tmp_path / "e.arrow", np.ones((2, 2)))

    def fail(self: object, batch: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pa.RecordBatchFileWriter, "write_batch", fail)
    with pytest.raises(OSError, match="disk full"):
        save_embeddings(tmp_path / "e.arrow", np.zeros((3, 3)))
    assert [path.name for path in tmp_path.iterdir()] == ["e.arrow"]
    assert_array_equal(load_embeddings(tmp_path / "e.arrow"), np.ones((2, 2)))


def test_only_a_matrix_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, dim\), got \(3,\)"):
        save_embeddings(tmp_path / "e.arrow", np.ones(3))


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.arrow"):
        load_embeddings(tmp_path / "none.arrow")
    (tmp_path / "text.arrow").write_text("no Arrow")
    with pytest.raises(ValueError, match=r"text\.arrow is damaged or has no embeddings"):
        load_embeddings(tmp_path / "text.arrow")
    for values in ([1.0], [[1.0]]):
        table = pa.table({"embedding": pa.array(values)})
        with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(ValueError, match=r"other\.arrow .* column has type"):
            load_embeddings(tmp_path / "other.arrow")


@pytest.mark.parametrize("kept", [0, 10, 400, 900, 1300])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "e.arrow"
    save_embeddings(path, np.ones((16, 16)))
    assert path.stat().st_size > 1300
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"e\.arrow is damaged"):
        load_embeddings(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), r"queries must be numbers of shape \(n, dim\), got float64 \(3,\)"),
        (np.array([["a"]]), "queries must be numbers"),
        (np.ones((0, 3)), "queries must not be empty"),
        (np.ones((2, 4)), "queries must have dimension 3, got 4"),
        (np.array([[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]]), "2 of 3 rows .* the first is row 1"),
        (np.full((1, 3), 1e300), "1 of 1 rows"),
    ],
)
def test_bad_embeddings_are_refused_by_name(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_embeddings(array, "queries", dim=3)


def test_rows_are_counted_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrra_hf.embeddings.checks.BLOCK_SIZE", 2)
    array = np.ones((7, 2))
    array[[3, 6]] = np.nan
    with pytest.raises(ValueError, match=r"2 of 7 rows .* the first is row 3"):
        check_embeddings(array, "documents")


def test_every_changed_bit_of_the_values_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.arrow"
    embeddings = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    hashes = np.array([b"0123456789abcdef"] * 7)
    save_embeddings(path, embeddings, hashes)
    content = path.read_bytes()
    for values in (embeddings.tobytes(), hashes.tobytes()):
        start = content.index(values)
        for bit in range(0, 8 * len(values), 13):
            changed = bytearray(content)
            changed[start + bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            with pytest.raises(
                ValueError, match=r"embeddings.arrow is damaged: its column .* another checksum"
            ):
                load_columns(path)
