"""Data files of strangers: a crafted record is refused with file and line, or skipped; a bomb isn't read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forked
from command_line import rrra
from rrra_hf.data import Collection, load_collection
from rrra_hf.embeddings import read_parquet
from tiny import word_collection

DEEP = "[" * 100_000 + "]" * 100_000
# Python parses it, and fails to show it.
ALMOST_DEEP = "[" * 960 + "]" * 960
DIGITS = "9" * 5000
# More than any process of these tests may take beyond what its imports take.
MEGABYTES = 600


def write(folder: Path, *, corpus: str = "", qrels: str = "", siblings: str | None = None) -> Path:
    """Write a BEIR folder with a document, a query and its label, and what is given after them."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n' + corpus)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n')
    (folder / "qrels/train.tsv").write_text("q1\td1\t1\n" + qrels)
    if siblings is not None:
        (folder / "siblings.json").write_text(siblings)
    return folder


ATTACKS = {
    "deep id": ("corpus.jsonl, line 2", {"corpus": f'{{"_id": {DEEP}, "text": "b"}}\n'}),
    "deep line": ("corpus.jsonl, line 2", {"corpus": DEEP + "\n"}),
    "almost too deep": ("corpus.jsonl, line 2", {"corpus": f'{{"_id": {ALMOST_DEEP}, "text": "b"}}\n'}),
    "digits": ("corpus.jsonl, line 2", {"corpus": f'{{"_id": {DIGITS}, "text": "b"}}\n'}),
    "many columns": (
        "corpus.jsonl, line 2",
        {"corpus": "{" + ", ".join(f'"c{i}": 1' for i in range(10_000)) + "}\n"},
    ),
    "grade of digits": ("train.tsv, line 2", {"qrels": f"q1\td1\t{DIGITS}\n"}),
    "grade beyond floats": ("train.tsv, line 2", {"qrels": f"q1\td1\t1{'0' * 400}\n"}),
    "grade beyond integers": ("train.tsv, line 2", {"qrels": "q1\td1\t1e300\n"}),
    "many fields": ("train.tsv, line 2", {"qrels": "\t" * 10_000 + "\n"}),
    "deep siblings": ("siblings.json, line 1", {"siblings": DEEP}),
    "siblings of digits": ("siblings.json, line 1", {"siblings": f'{{"d1": [{DIGITS}]}}'}),
    "siblings that are lists": ("siblings.json, line 1", {"siblings": '{"d1": [["d1"]]}'}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_crafted_records_are_named_briefly_or_skipped(tmp_path: Path, attack: str) -> None:
    location, parts = ATTACKS[attack]
    folder = write(tmp_path / "beir", **parts)
    with pytest.raises(ValueError, match=location) as refusal:
        load_collection(folder)
    assert len(str(refusal.value)) < 1000
    collection = load_collection(folder, skip_bad=True)
    assert collection.document_ids == ["d1"] and collection.qrels == {"q1": {"d1": 1}}
    assert sum(collection.skipped.values()) >= 1


def test_command_prints_one_line_or_skips(tmp_path: Path, tiny_bert: Path) -> None:
    word_collection(6, train=6).save(tmp_path / "beir")
    with (tmp_path / "beir/corpus.jsonl").open("a") as file:
        file.write(f'{{"_id": {DEEP}}}\n{{"_id": {DIGITS}, "text": "b"}}\n')
    command = ["mine", tmp_path / "beir", "--model", tiny_bert, "--out", tmp_path / "pool", "--depth", 2]
    failed = rrra(*command)
    assert failed.status == 1 and "corpus.jsonl, line 7: not JSON" in failed.err
    assert len(failed.err.splitlines()) == 1
    assert rrra(*command, "--skip-bad").status == 0


@pytest.mark.parametrize("name", ["../../outside", "a/b", "a\\b", "..", "", "\0", "x" * 300])
def test_no_split_is_written_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("id,text\nd1,a\n")
    pairs = pa.table({"query": ["a", "b"], "document_id": ["d1", "d1"], "split": ["train", name]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    if name:  # an empty field means the default
        with pytest.raises(ValueError, match=r"pairs.parquet, row 2: the split must be"):
            load_collection(corpus, pairs=tmp_path / "pairs.parquet")
    loaded = load_collection(corpus, pairs=tmp_path / "pairs.parquet", skip_bad=True)
    assert loaded.splits == ["train"]
    unchecked = Collection("c", loaded.corpus, loaded.queries, {name: {"q0": {"d1": 1}}})
    with pytest.raises(ValueError, match="splits must have names that can name files"):
        unchecked.save(tmp_path / "parent/saved")
    assert not (tmp_path / "parent").exists()


def one_long_text() -> pa.Table:
    return pa.table({"id": ["d1"], "text": ["a" * 300_000_000]})


def one_text_often() -> pa.Table:
    ids = [f"d{row}" for row in range(1000)]
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 1_000_000]))
    return pa.table({"id": ids, "text": text})


def one_text_often_in_a_list() -> pa.Table:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 1_000_000]))
    lists = pa.ListArray.from_arrays(pa.array([0, 1000], pa.int32()), texts)
    return pa.table({"id": ["d1"], "text": lists})


def rows_of_nothing() -> pa.Table:
    return pa.table({"id": pa.nulls(100_000_000, pa.int8())})


BOMBS: dict[str, Callable[[], pa.Table]] = {
    make.__name__: make for make in (one_long_text, one_text_often, one_text_often_in_a_list, rows_of_nothing)
}


def write_bomb(kind: str, path: Path) -> None:
    pq.write_table(BOMBS[kind](), path, compression="zstd")


@contextmanager
def little_memory() -> Iterator[None]:
    """Take no more memory than any process of these tests may."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < MEGABYTES


def refuse(path: Path) -> None:
    """Open a bomb in every way, and end with status 0 if each refuses it and takes little memory."""
    for skip_bad in (False, True):
        with (
            little_memory(),
            pytest.raises(ValueError, match=r"bomb.parquet is (damaged or )?not meant to be read"),
        ):
            load_collection(path, pairs=path, skip_bad=skip_bad)


def read_many_columns(path: Path) -> None:
    with little_memory():
        assert len(load_collection(path).corpus) == 100_001


@pytest.mark.parametrize("nested", [False, True])
def test_columns_of_one_record_take_no_memory_in_all(tmp_path: Path, nested: bool) -> None:
    columns = ", ".join(f'"c{i}": "x"' for i in range(5000))
    first = f'"metadata": {{{columns}}}' if nested else columns
    lines = [f'{{"_id": "d{row}", "text": "a"}}\n' for row in range(100_000)]
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"_id": "d", "text": "a", {first}}}\n' + "".join(lines))
    done = forked.run(read_many_columns, path)
    assert done.statuses == [0], done.err


@pytest.mark.parametrize("kind", BOMBS)
def test_parquet_bombs_are_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb.parquet"
    # In processes of their own: this one should not keep the memory that writing takes.
    assert forked.run(write_bomb, kind, path).statuses == [0]
    assert path.stat().st_size < 300_000
    done = forked.run(refuse, path)
    assert done.statuses == [0], done.err


def test_parquet_bombs_of_embeddings_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    zeros = pa.FixedSizeListArray.from_arrays(pa.array([0.0] * 20_000_000, pa.float32()), 20_000)
    ids = pa.array([f"d{row}" for row in range(1000)])
    pq.write_table(pa.table({"id": ids, "embedding": zeros.cast(pa.list_(pa.float32()))}), path)
    with pytest.raises(ValueError, match=r"bomb.parquet is damaged or not meant to be read"):
        read_parquet(path)
    often = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 1_000_000]))
    pq.write_table(pa.table({"id": often, "embedding": [[1.0]] * 1000}), path)
    with pytest.raises(ValueError, match=r"bomb.parquet is not meant to be read: its ids are too long"):
        read_parquet(path)


def test_damaged_parquet_pages_are_named(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    table = pa.table({"id": [f"d{row}" for row in range(5000)], "text": ["a"] * 5000})
    pq.write_table(table, path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[100:2000] = bytes(1900)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus.parquet is damaged"):
        load_collection(path, pairs=path)
