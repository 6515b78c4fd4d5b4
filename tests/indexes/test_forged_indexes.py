"""Saved indexes of strangers: nothing is believed that the files themselves don't show."""

from __future__ import annotations

import struct
from pathlib import Path

import faiss
import numpy as np
import pytest

from forgery import forge
from rrra_hf.embeddings import save_embeddings
from rrra_hf.indexes import ApproximateIndex, FlatIndex, load_index
from rrra_hf.indexes.folder import current_folder
from small_indexes import clustered, make_approximate, make_index

HUGE = [10**9, 10**18, 10**30, -1, 0, 2.5, "16", None, [16], True]


# -------------------------------------------------------------------- exact


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 2.0])
def test_embeddings_that_are_not_normalised_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "flat.faiss"
    index = faiss.IndexFlatIP(4)
    vectors = np.eye(6000, 4, dtype=np.float32)
    vectors[5000, 2] = value
    index.add(vectors)
    faiss.write_index(index, str(path))
    with pytest.raises(ValueError, match=r"flat\.faiss is damaged: .*length 1, row 5000 is of length"):
        FlatIndex.load(path)


@pytest.mark.parametrize(
    ("place", "packed"),
    [
        ("dim", struct.pack("<i", 2**31 - 1)),
        ("dim", struct.pack("<i", -4)),
        ("dim", struct.pack("<i", 8)),
        ("count", struct.pack("<q", 2**62)),
        ("count", struct.pack("<q", -1)),
        ("count", struct.pack("<q", 4)),
        ("values", struct.pack("<Q", 2**63)),
        ("values", struct.pack("<Q", 0)),
        ("metric", struct.pack("<i", 1)),
        ("type", b"IxF2"),
        ("type", b"\xff\x00\n!"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(
    tmp_path: Path, place: str, packed: bytes
) -> None:
    path = tmp_path / "flat.faiss"
    make_index(np.eye(5, 4)).save(path)
    start = {"type": 0, "dim": 4, "count": 8, "metric": 33, "values": 37}[place]
    content = bytearray(path.read_bytes())
    content[start : start + len(packed)] = packed
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flat\.faiss (is damaged|has a FAISS index)"):
        FlatIndex.load(path)


def test_an_exact_index_is_read_without_the_reader_of_faiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_index(clustered(9000)).save(tmp_path / "flat.faiss")
    expected = faiss.read_index(str(tmp_path / "flat.faiss"))
    monkeypatch.setattr(faiss, "read_index", None)
    loaded = FlatIndex.load(tmp_path / "flat.faiss")
    rows = np.arange(9000)
    assert np.array_equal(loaded.reconstruct(rows), expected.reconstruct_batch(rows))
    FlatIndex(3).save(tmp_path / "empty.faiss")
    assert (len(FlatIndex.load(tmp_path / "empty.faiss")), FlatIndex.load(tmp_path / "empty.faiss").dim) == (
        0,
        3,
    )


# -------------------------------------------------------------------- approximate


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((entry, value) for entry in ("dim", "documents") for value in HUGE),
        *(
            (entry, value)
            for entry in ("count", "oversample", "seed")
            for value in ("16", None, [16], 2.5, -1)
        ),
        *(("effort", value) for value in (float("nan"), float("inf"), 0, -1, "1", None, [])),
        *(("kind", value) for value in ("flat", "ivf-pq", None, 7, ["hnsw"], {})),
    ],
)
def test_metadata_are_compared_with_the_files(tmp_path: Path, entry: str, value: object) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    forge(folder / "meta.json", **{entry: value})
    with pytest.raises(ValueError, match=r"is damaged"):
        ApproximateIndex.load(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_exact_embeddings_that_are_not_normalised_are_refused(tmp_path: Path, value: float) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    vectors = np.eye(50, 16, dtype=np.float32)
    vectors[40, 3] = value
    save_embeddings(folder / "embeddings.arrow", vectors)
    forge(folder / "meta.json")
    with pytest.raises(ValueError, match=r"embeddings\.arrow is damaged: .*row 40 is of length"):
        ApproximateIndex.load(tmp_path)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8"])
def test_the_file_of_faiss_must_be_of_the_index(tmp_path: Path, kind: str) -> None:
    make_approximate(kind, clustered(400)).save(tmp_path)
    folder, _ = current_folder(tmp_path, ())
    others = [faiss.index_factory(dim, "Flat", faiss.METRIC_INNER_PRODUCT) for dim in (16, 10**6)]
    others.append(faiss.index_factory(16, "HNSW32,SQfp16" if kind == "ivf-sq8" else "IVF4,SQ8"))
    for other in others:
        faiss.write_index(other, str(folder / "candidates.faiss"))
        forge(folder / "meta.json")
        with pytest.raises(ValueError, match=r"is damaged"):
            load_index(tmp_path)


@pytest.mark.parametrize("name", ["candidates.faiss", "embeddings.arrow"])
def test_any_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path)
    path = current_folder(tmp_path, ())[0] / name
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=rf"{name} is damaged: it isn't the file that was saved"):
            load_index(tmp_path)


@pytest.mark.parametrize("named", [["a"], 7, {"../outside": "0"}, {"..": "0"}, {"/etc/passwd": "0"}])
def test_checksums_lead_nowhere(tmp_path: Path, named: object) -> None:
    make_approximate("hnsw", clustered(50)).save(tmp_path / "index")
    folder, _ = current_folder(tmp_path / "index", ())
    (tmp_path / "index" / "outside").write_text("secret")
    forge(folder / "meta.json", files=named)
    if isinstance(named, dict) and ".." not in named:
        load_index(tmp_path / "index")
        return
    with pytest.raises(ValueError, match="damaged"):
        load_index(tmp_path / "index")
