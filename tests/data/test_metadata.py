"""Metadata of documents, from a file to a collection and back."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from rrra_hf import load_collection
from rrra_hf.data.metadata import metadata_json

RECORDS = [
    {"_id": "d1", "text": "A fish.", "metadata": {"year": 2020, "lang": "en", "tags": ["sea", "food"]}},
    {"_id": "d2", "text": "Fisch.", "metadata": {"lang": "de", "score": 1, "doi": None}},
    {"_id": "d3", "text": "A bird.", "metadata": {}},
    {"_id": "d4", "text": "Oiseau.", "metadata": {"score": 0.5, "by": {"name": "Ada", "born": None}}},
]
EXPECTED = [
    {"year": 2020, "lang": "en", "tags": ["sea", "food"]},
    {"lang": "de", "score": 1},
    {},
    {"score": 0.5, "by": {"name": "Ada", "born": None}},
]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def metadata_of(corpus: Dataset) -> list[dict[str, object]]:
    return [json.loads(text or "{}") for text in corpus["metadata"]]


def test_metadata_of_a_file_are_kept_exactly_and_written_again(tmp_path: Path) -> None:
    collection = load_collection(write(tmp_path / "corpus.jsonl", RECORDS))
    found = metadata_of(collection.corpus)
    assert found == EXPECTED
    assert [type(entries.get("score")) for entries in found] == [type(None), int, type(None), float]
    collection.save(tmp_path / "again")
    assert metadata_of(load_collection(tmp_path / "again").corpus) == EXPECTED


def test_metadata_are_the_same_read_as_columns_and_one_by_one(tmp_path: Path) -> None:
    # Many lines, so that most are read as columns; a bad one, so that a block is read one by one.
    records = [{**RECORDS[number % 3], "_id": f"d{number}"} for number in range(3000)]
    path = write(tmp_path / "corpus.jsonl", records)
    whole = metadata_of(load_collection(path).corpus)
    path.write_text(path.read_text() + "no JSON\n")
    assert whole == metadata_of(load_collection(path, skip_bad=True).corpus)
    assert whole == [EXPECTED[number % 3] for number in range(3000)]


def test_documents_without_metadata_have_no_column(tmp_path: Path) -> None:
    corpus = load_collection(write(tmp_path / "corpus.jsonl", [RECORDS[2], {"_id": "d", "text": "x"}])).corpus
    assert corpus.column_names == ["id", "title", "text"]


def test_dates_of_a_parquet_file_become_texts(tmp_path: Path) -> None:
    table = pa.table(
        {"id": ["a"], "text": ["x"], "metadata": [{"day": datetime.date(2020, 1, 31), "n": 2**60}]}
    )
    pq.write_table(table, tmp_path / "corpus.parquet")
    found = metadata_of(load_collection(tmp_path / "corpus.parquet").corpus)
    assert found == [{"day": "2020-01-31", "n": 2**60}]


def test_metadata_of_a_csv_file_are_json_texts(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text('id,text,metadata\na,x,"{""year"": 1999}"\nb,y,none\n')
    assert metadata_of(load_collection(tmp_path / "corpus.csv").corpus) == [{"year": 1999}, {}]


def test_metadata_that_json_cannot_hold_name_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "corpus.jsonl", [RECORDS[0], {"_id": "b", "text": "y", "metadata": {"n": "\ud800"}}]
    )
    with pytest.raises(ValueError, match=r"corpus\.jsonl, line 2: metadata must be what JSON can hold"):
        load_collection(path)
    assert load_collection(path, skip_bad=True).document_ids == ["d1"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": True}, '{"a":true,"b":1}'),
        ({"a": float("nan")}, '{"a":null}'),
        ('{"a": 1}', '{"a":1}'),
        ("{broken", ""),
        ([1], ""),
        ({"a": None}, ""),
    ],
)
def test_metadata_as_json(value: object, expected: str) -> None:
    assert metadata_json(value) == expected
