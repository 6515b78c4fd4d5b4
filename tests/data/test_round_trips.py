"""Any texts, written by the library of a format, come back equal, or are an error that names the line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rrra_hf.data import Collection, load_collection

SPECIAL = [
    '"',
    '"open',
    "a\tb",
    "a\nb",
    "a\rb",
    "a\r\nb",
    "\0",
    "\u2028",
    "שלום",
    "🐟",
    " x ",
    "nan",
    "1.0",
    "\ufeff",
]
CHARACTERS = st.one_of(
    st.sampled_from(SPECIAL), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
TEXTS = st.lists(CHARACTERS, min_size=1, max_size=3).map("".join).filter(lambda text: text.strip())
IDS = st.text("abc\"'1.é🐟", min_size=1, max_size=4)
RECORDS = st.dictionaries(IDS, TEXTS, min_size=1, max_size=5).map(
    lambda texts: [{"id": name, "text": text} for name, text in texts.items()]
)


def jsonl(path: Path, records: list[dict[str, str]]) -> None:
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))


def datasets_jsonl(path: Path, records: list[dict[str, str]]) -> None:
    Dataset.from_list(records).to_json(path)


def csv_module(path: Path, records: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(records)


def pandas_csv(path: Path, records: list[dict[str, str]]) -> None:
    pd.DataFrame(records).to_csv(path, index=False)


def polars_csv(path: Path, records: list[dict[str, str]]) -> None:
    pl.DataFrame(records).write_csv(path)


def parquet(path: Path, records: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(records), path)


def tsv(path: Path, records: list[dict[str, str]]) -> None:
    lines = (f"{record['id']}\t{record['text']}\n" for record in records)
    path.write_bytes(("id\ttext\n" + "".join(lines)).encode())


def compressed(compress: Callable[[bytes], bytes]) -> Callable[[Path, list[dict[str, str]]], None]:
    def write(path: Path, records: list[dict[str, str]]) -> None:
        jsonl(path, records)
        path.write_bytes(compress(path.read_bytes()))

    return write


WRITERS: dict[str, tuple[str, Callable[[Path, list[dict[str, str]]], None]]] = {
    "json": ("corpus.jsonl", jsonl),
    "datasets": ("corpus.jsonl", datasets_jsonl),
    "csv": ("corpus.csv", csv_module),
    "pandas": ("corpus.csv", pandas_csv),
    "polars": ("corpus.csv", polars_csv),
    "parquet": ("corpus.parquet", parquet),
    "tsv": ("corpus.tsv", tsv),
    "gzip": ("corpus.jsonl.gz", compressed(gzip.compress)),
    "zstandard": ("corpus.jsonl.zst", compressed(zstandard.compress)),
}


def documents(collection: Collection) -> list[dict[str, str]]:
    return collection.corpus.select_columns(["id", "text"]).to_list()


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None)
@example(records=[{"id": "1", "text": "x" * 1_000_000}, {"id": "2", "text": '"'}])
@example(records=[{"id": "1", "text": '"open'}, {"id": "2", "text": "a"}, {"id": "3", "text": "b"}])
@example(records=[{"id": "1", "text": "return\r"}])
@given(records=RECORDS)
def test_files_come_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, records: list[dict[str, str]]
) -> None:
    file_name, write = WRITERS[name]
    path = tmp_path_factory.mktemp("written") / file_name
    write(path, records)
    # A field of TSV can't hold tabs and line breaks. Data frames don't quote a return, and the end of a line
    # takes one before it.
    lost = {"tsv": "\t\r\n", "pandas": "\r", "polars": "\r"}.get(name, "")
    exact = not any(set(record["text"]) & set(lost) for record in records)
    try:
        found = documents(load_collection(path))
    except ValueError as error:
        assert "line " in str(error)
        assert not exact
    else:
        assert found == records or not exact


FRAMES: dict[str, Callable[[list[dict[str, str]]], Any]] = {
    "list": list,
    "dataset": Dataset.from_list,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
}


@pytest.mark.parametrize("name", FRAMES)
@settings(max_examples=20, deadline=None)
@given(records=RECORDS)
def test_tables_come_back(name: str, records: list[dict[str, str]]) -> None:
    assert documents(load_collection(FRAMES[name](records))) == records


@settings(max_examples=25, deadline=None)
@given(
    labels=st.dictionaries(
        TEXTS, st.dictionaries(TEXTS, st.integers(0, 1), min_size=1, max_size=3), min_size=1
    )
)
def test_labels_come_back_from_every_export(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, dict[str, int]]
) -> None:
    rows = [
        {"query": query, "document": text, "label": label}
        for query, judged in labels.items()
        for text, label in judged.items()
    ]
    if not any(row["label"] for row in rows):
        return
    folder = tmp_path_factory.mktemp("out")
    collection = load_collection(rows)
    collection.save(folder / "beir")
    assert load_collection(folder / "beir").qrels == collection.qrels
    # Texts that differ by the space around them are one text in an export, and may have contradicting labels.
    if any(text.strip() != text for row in rows for text in (row["query"], row["document"])):
        return
    assert load_collection(collection.to_dataset("labelled-pairs")).qrels == collection.qrels
    collection.save_flag_embedding(folder / "train.jsonl")
    relevant = {name for name, judged in collection.qrels.items() if any(judged.values())}
    again = load_collection(folder / "train.jsonl")
    assert set(again.qrels) == relevant


@pytest.mark.parametrize("source", ["list", "json", "pandas"])
def test_lone_surrogates_are_named_or_skipped(tmp_path: Path, source: str) -> None:
    records = [{"id": "1", "text": "x"}, {"id": "2", "text": "a\ud800"}]
    path = tmp_path / "corpus.jsonl"
    jsonl(path, records)
    given = {"list": records, "json": path, "pandas": pd.DataFrame(records, dtype=object)}[source]
    with pytest.raises(
        ValueError, match=r"(row 1|line 2): column 'text' has a lone surrogate at character 2"
    ):
        load_collection(given)
    collection = load_collection(given, skip_bad=True)
    assert (collection.document_ids, collection.skipped) == (["1"], {"undecodable bytes": 1})
