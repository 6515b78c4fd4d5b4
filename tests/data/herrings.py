"""A small collection in the formats that can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from rrra_hf.data import Collection

DOCUMENTS = [
    {"_id": "d1", "title": "Herring", "text": "A silver fish."},
    {"_id": "d2", "title": "", "text": "A tall tree."},
    {"_id": "d3", "title": "Title alone", "text": ""},
]


QUERIES = [
    {"_id": "q1", "text": "what is a herring"},
    {"_id": "q2", "text": "tall plants"},
    {"_id": "q3", "text": "never judged"},
]


TRAIN = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


TEST = "query-id\tcorpus-id\tscore\nq2\td2\t2.0\n"


HERRING = [{"id": "a", "title": "", "text": "A fish."}, {"id": "b", "title": "T", "text": "A tree."}]


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return path


def content(collection: Collection) -> tuple[Any, ...]:
    return (
        collection.corpus.to_dict(),
        collection.queries.to_dict(),
        collection.qrels_by_split,
        collection.siblings,
    )


def labels(collection: Collection) -> dict[str, dict[str, int]]:
    """Grades by the texts of queries and documents, whatever their ids."""
    queries = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    documents = dict(zip(collection.document_ids, collection.document_texts, strict=True))
    return {
        queries[query_id]: {documents[document_id]: grade for document_id, grade in grades.items()}
        for query_id, grades in collection.qrels.items()
    }


# -------------------------------------------------------------------- a corpus file and pairs


def write_table(path: Path, records: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        return write_jsonl(path, records)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    rows = [list(records[0]), *(list(record.values()) for record in records)]
    separator, quote = ("\t", "") if path.suffix == ".tsv" else (",", '"')
    lines = (separator.join(quote + field + quote for field in row) + "\n" for row in rows)
    path.write_text("".join(lines), "utf-8")
    return path


# -------------------------------------------------------------------- datasets


def as_datasets() -> dict[str, Any]:
    return {
        "corpus": Dataset.from_list(DOCUMENTS),
        "queries": Dataset.from_list(QUERIES),
        "qrels": Dataset.from_dict(
            {"query-id": ["q1", "q2"], "corpus-id": ["d1", "d2"], "score": [1.0, 0.0]}
        ),
    }
