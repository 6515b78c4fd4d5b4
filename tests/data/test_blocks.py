"""Documents that are read as columns are those that are read one by one, and so is what is reported."""

from __future__ import annotations

import gzip
import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rrra_hf.data import load_collection
from rrra_hf.data.builder import CollectionBuilder
from rrra_hf.data.id_rows import IdRows
from rrra_hf.data.problems import Location
from rrra_hf.data.texts import Texts


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    """Read files in blocks of some bytes, the first, which says what the columns are, of half of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rrra_hf.data.text_files.FIRST_BLOCK", size // 2)
        patch.setattr("rrra_hf.data.text_files.BLOCK", size)
        yield


class Messages(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.all: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record.getMessage())


def outcome(path: Path, size: int, skip_bad: bool) -> Any:
    """Return documents, counts and log, or the error, of a file that is read in blocks of some bytes."""
    messages, logger = Messages(), logging.getLogger("rrra_hf.data")
    logger.addHandler(messages)
    try:
        with blocks_of(size):
            collection = load_collection(path, skip_bad=skip_bad)
        return collection.corpus.to_dict(), collection.skipped, messages.all
    except ValueError as error:
        return str(error), messages.all
    finally:
        logger.removeHandler(messages)


# Lines that may stand for a document: `%d` is its number.
LINES = [
    '{"_id": "d%d", "title": "T", "text": "a"}',
    '{"text": "b", "_id": "d%d", "title": null}',
    '{"_id": "d%d", "title": "", "text": " "}',
    '{"_id": "d%d", "title": "x", "text": ""}',
    '{"_id": "d%d", "text": "c"}',
    '{"_id": "d%d", "title": "x", "text": null}',
    '{"_id": "d%d", "title": "x"}',
    '{"_id": "d0", "title": "x", "text": "%d"}',
    '{"_id": %d, "title": "x", "text": "d"}',
    '{"_id": %d.0, "title": "x", "text": "d"}',
    '{"_id": true, "title": "x", "text": "%d"}',
    '{"_id": null, "title": "x", "text": "%d"}',
    '{"_id": " ", "title": "x", "text": "%d"}',
    '{"id": "d%d", "title": "x", "text": "d"}',
    '{"_id": "d%d", "id": "other", "title": "x", "text": "d"}',
    '{"_id": "d%d", "_id": "twice", "title": "x", "text": "d"}',
    '{"_id": "d%d", "title": "x", "text": "\\ud800"}',
    '{"_id": "d%d", "title": "x", "text": "\\ud83d\\ude00 \\u0000"}',
    '{"_id": "d%d", "title": "x", "text": ["list"]}',
    '{"_id": "d%d", "title": 7, "text": "d"}',
    '{"_id": "d%d", "title": "x", "text": "d", "score": 1.5}',
    '{"_id": "d%d", "title": "x", "text": "d", "score": NaN}',
    '{"_id": "d%d", "title": "x", "text": "d", "score": ' + "9" * 5000 + "}",
    '{"_id": "d%d", "title": "x", "text": "d", "metadata": {"url": "u", "none": null}}',
    '{"_id": "d%d", "title": "x", "text": "d", "metadata": ' + "[" * 2000 + "]" * 2000 + "}",
    '{"_id": "d%d", "title": "x", "text": "d"}{"_id": "second", "text": "e"}',
    '{"_id": "d%d", "title": "x",\n"text": "d"}',
    '{"_id": "d%d", "title": "x", "text": "d"}}',
    '{"_id": "d%d", "title": "x", "text": "a\tb"}',
    '{"_id": "d%d", "title": "x", "text": "d"} ',
    '{"_id": "d%d", "title": "x", "text": "d"}\r',
    "[%d]",
    "{",
    "",
    "\r",
]
DAMAGES = [
    b"caf\xe9",
    b'{"_id": "c", "title": "x", "text": "caf\xe9"}',
    b'{"_id": "z", "text": "z\xed\xa0\x80"}',
    b"\0",
    b"\xef\xbb\xbf{}",
]


@settings(max_examples=150, deadline=None)
@given(
    usual=st.sampled_from([LINES[0], LINES[1], LINES[8], LINES[13], LINES[20], LINES[23]]),
    others=st.lists(st.sampled_from(LINES), max_size=4),
    damage=st.sampled_from([b"", *DAMAGES]),
    end=st.sampled_from([b"\n", b"\r\n"]),
    order=st.randoms(use_true_random=False),
    skip_bad=st.booleans(),
)
def test_damaged_files_are_the_same_in_columns_and_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    usual: str,
    others: list[str],
    damage: bytes,
    end: bytes,
    order: random.Random,
    skip_bad: bool,
) -> None:
    lines = [line.replace("%d", str(number)).encode() for number, line in enumerate([usual] * 40 + others)]
    lines += [damage] * bool(damage)
    # The first lines say what the columns are.
    rest = lines[5:]
    order.shuffle(rest)
    path = tmp_path_factory.mktemp("damaged") / "corpus.jsonl"
    path.write_bytes(end.join([*lines[:5], *rest]) + end * order.randrange(2))
    assert outcome(path, 400, skip_bad) == outcome(path, 2**30, skip_bad)


def test_objects_that_are_as_many_as_lines_must_be_one_a_line(tmp_path: Path) -> None:
    two, parts = LINES[25], LINES[26]
    lines = [line.replace("%d", str(number)) for number, line in enumerate([LINES[0]] * 20 + [two, parts])]
    path = written(tmp_path / "corpus.jsonl", "\n".join(lines).encode())
    assert outcome(path, 800, True) == outcome(path, 2**30, True)
    assert outcome(path, 800, True)[1] == {"malformed line": 3}


def rows(count: int, **other: Any) -> list[dict[str, Any]]:
    return [{"_id": f"d{row}", "title": "", "text": f"é fish {row} 🐟", **other} for row in range(count)]


def jsonl(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


CLEAN: dict[str, Callable[[Path], Any]] = {
    "jsonl": lambda folder: written(folder / "c.jsonl", jsonl(rows(99))),
    "returns": lambda folder: written(folder / "c.jsonl", jsonl(rows(99)).replace(b"\n", b"\r\n")),
    "not ended": lambda folder: written(folder / "c.jsonl", jsonl(rows(99))[:-1]),
    "gzip": lambda folder: written(folder / "c.jsonl.gz", gzip.compress(jsonl(rows(99)))),
    "zstandard": lambda folder: written(folder / "c.jsonl.zst", zstandard.compress(jsonl(rows(99)))),
    "metadata": lambda folder: written(folder / "c.jsonl", jsonl(rows(99, metadata={"n": [1.5, None]}))),
    "integers": lambda folder: written(
        folder / "c.jsonl", jsonl([{"id": row, "text": "x" * 50} for row in range(99)])
    ),
    "parquet": lambda folder: parquet(folder / "c.parquet", rows(99)),
    "dataset": lambda folder: Dataset.from_list(rows(99)).select(range(1, 99)),
    "pandas": lambda folder: pd.DataFrame(rows(99)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_documents_are_read_as_columns(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but those of the first block, which says what the columns are."""
    one_by_one: list[Any] = []
    monkeypatch.setattr("rrra_hf.data.readers.BATCH_SIZE", 10)
    monkeypatch.setattr("rrra_hf.data.parquet_files.TEXTS", 10)
    for method in ("_add_plain", "_add_record"):
        add = getattr(CollectionBuilder, method)
        monkeypatch.setattr(
            CollectionBuilder, method, lambda *given, add=add: one_by_one.append(given) or add(*given)
        )
    with blocks_of(800):
        collection = load_collection(CLEAN[name](tmp_path))
    assert len(collection.corpus) >= 98
    assert collection.corpus[-1]["id"] in ("d98", "98")
    assert len(one_by_one) < 25


# -------------------------------------------------------------------- texts and ids

OPEN = Path("/proc/self/fd")


def test_many_texts_are_kept_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rrra_hf.data.texts.MEMORY_BYTES", 1000)
    monkeypatch.setattr("rrra_hf.data.texts.BATCH_SIZE", 10)
    texts = Texts("text")
    before, files = pa.total_allocated_bytes(), len(list(OPEN.iterdir()))
    for row in range(95):
        texts.add(Location("a" if row < 50 else "b", 2 * row), f"d{row}", "x" * 1000)
    assert pa.total_allocated_bytes() - before < 20_000
    assert len(list(OPEN.iterdir())) == files and not list(tmp_path.iterdir())
    assert [name for name, _ in texts] == [f"d{row}" for row in range(95)]
    assert all(f"d{row}" in texts for row in range(95)) and "d95" not in texts
    assert [str(texts.place(f"d{row}")) for row in (0, 49, 50, 94)] == [
        "a, line 0",
        "a, line 98",
        "b, line 100",
        "b, line 188",
    ]
    assert texts.dataset()[94] == {"id": "d94", "text": "x" * 1000}


def test_disk_that_cannot_take_texts_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr("rrra_hf.data.texts.MEMORY_BYTES", 1000)
    with pytest.raises(OSError, match=r"missing, can't take the texts: .*TMPDIR"):
        load_collection([{"id": str(row), "text": "x" * 1000} for row in range(10)])


@settings(max_examples=50, deadline=None)
@given(added=st.lists(st.lists(st.integers(-5, 5).map(lambda value: value * 1024), max_size=700), max_size=4))
def test_rows_are_found_by_their_hashes(added: list[list[int]]) -> None:
    """Multiples of the number of places are all at the same place."""
    rows, known = IdRows(), []
    for hashes in added:
        assert rows.has_any(np.array(hashes, np.int64)) == bool(set(hashes) & set(known))
        rows.add(np.array(hashes, np.int64))
        known += hashes
    assert len(rows) == len(known)
    for value in range(-6 * 1024, 6 * 1024, 512):
        assert sorted(rows.of(value)) == [row for row, other in enumerate(known) if other == value]
