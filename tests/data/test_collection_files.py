"""Corpus and pairs from files of every format, and error messages for what can't be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from herrings import HERRING, labels, write_jsonl, write_table
from rrra_hf.data import load_collection


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_corpus_and_pairs_are_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    corpus = write_table(tmp_path / f"corpus{suffix}", HERRING)
    pairs = write_table(
        tmp_path / f"pairs{suffix}",
        [
            {"query": "green, or silver", "document_id": "a", "split": "train"},
            {"query": "green, or silver", "document_id": "b", "split": "train"},
            {"query": "wood", "document_id": "b", "split": "dev"},
        ],
    )
    collection = load_collection(corpus, pairs=pairs)
    assert collection.document_texts == ["A fish.", "T A tree."]
    assert collection.query_texts == ["green, or silver", "wood"]
    assert labels(collection.split("train")) == {"green, or silver": {"A fish.": 1, "T A tree.": 1}}
    assert labels(collection.split("dev")) == {"wood": {"T A tree.": 1}}


def test_columns_are_named_by_the_caller(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.parquet", [{"pid": "a", "name": "T", "body": "x"}])
    pairs = write_table(tmp_path / "p.csv", [{"question": "why", "passage": "a"}])
    columns = {"id": "pid", "title": "name", "text": "body", "query": "question", "document_id": "passage"}
    collection = load_collection(corpus, pairs=pairs, columns=columns)
    assert collection.document_texts == ["T x"]
    assert labels(collection.split("train")) == {"why": {"T x": 1}}


def test_unknown_column_key_names_the_legal_ones(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.jsonl", HERRING)
    with pytest.raises(ValueError, match=r"columns must have keys among \['id', 'title'.*got \['body'\]"):
        load_collection(corpus, pairs=corpus, columns={"body": "x"})


def test_pairs_may_name_documents_by_their_text(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.jsonl", [*HERRING, {"id": "c", "title": "", "text": "A fish."}])
    pairs = write_table(
        tmp_path / "p.jsonl",
        [{"query": "one", "document": "A fish."}, {"query": "two", "document": "T A tree."}],
    )
    collection = load_collection(corpus, pairs=pairs)
    assert [list(grades) for grades in collection.qrels.values()] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("pair", "reason", "match"),
    [
        ({"query": "x", "document": "A fish"}, "unknown document", "line 2: no document .* text 'A fish'"),
        ({"query": "x", "document_id": "z"}, "unknown document", "line 2: document 'z'"),
        ({"query": " ", "document_id": "a"}, "empty text", "line 2: the query has no text"),
        ({"query": "x"}, "missing column", r"line 2: no column 'document_id'; there are \['query'\]"),
        ({"document_id": "a"}, "missing column", "line 2: no column 'query' or 'anchor' or 'question'"),
    ],
)
def test_bad_pair_is_named_or_skipped(tmp_path: Path, pair: dict[str, str], reason: str, match: str) -> None:
    corpus = write_table(tmp_path / "c.jsonl", HERRING)
    pairs = write_jsonl(tmp_path / "p.jsonl", [{"query": "good", "document_id": "a"}, pair])
    with pytest.raises(ValueError, match=match):
        load_collection(corpus, pairs=pairs)
    collection = load_collection(corpus, pairs=pairs, skip_bad=True)
    assert (collection.skipped, collection.query_texts) == ({reason: 1}, ["good"])


def test_csv_fields_are_counted_and_lines_told_across_line_breaks(tmp_path: Path) -> None:
    corpus = tmp_path / "c.csv"
    corpus.write_text('id,text\na,"two\nlines"\nb,one,more\n')
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    with pytest.raises(ValueError, match=r"c.csv, line 4: 3 fields where the header has 2"):
        load_collection(corpus, pairs=pairs)
    collection = load_collection(corpus, pairs=pairs, skip_bad=True)
    assert (collection.document_texts, collection.skipped) == (["two\nlines"], {"malformed line": 1})


def test_unclosed_quote_in_csv_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "c.csv"
    corpus.write_text('id,text\na,x\nb,"never closed\n')
    with pytest.raises(ValueError, match=r"line 3: not a row of delimited fields"):
        load_collection(corpus, pairs=corpus)


def test_long_csv_fields_stay_whole(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.csv", [{"id": "a", "text": "x" * 200_000}])
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    assert len(load_collection(corpus, pairs=pairs).document_texts[0]) == 200_000


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "c.parquet"
    corpus.write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"c\.parquet is damaged or not a Parquet file"):
        load_collection(corpus, pairs=corpus)


def test_undecodable_parquet_row_is_named_or_skipped(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b"], "text": texts}), tmp_path / "c.parquet")
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    with pytest.raises(ValueError, match=r"c.parquet, row 2: not UTF-8"):
        load_collection(tmp_path / "c.parquet", pairs=pairs)
    collection = load_collection(tmp_path / "c.parquet", pairs=pairs, skip_bad=True)
    assert collection.skipped == {"undecodable bytes": 1}


def test_corpus_file_alone_has_no_labels(tmp_path: Path) -> None:
    collection = load_collection(write_table(tmp_path / "c.jsonl", HERRING))
    assert (collection.document_ids, collection.query_ids, collection.splits) == (["a", "b"], [], [])
    with pytest.raises(ValueError, match="c has no split 'train'; it has no labels"):
        collection.split("train")


def test_pairs_beside_anything_else_are_refused(beir: Path) -> None:
    with pytest.raises(ValueError, match="pairs needs a corpus file"):
        load_collection(beir, pairs="pairs.csv")


def test_columns_beside_a_layout_with_fixed_names_are_refused(beir: Path) -> None:
    with pytest.raises(ValueError, match="columns needs a file or dataset"):
        load_collection(beir, columns={"text": "body"})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*c.csv"):
        load_collection(tmp_path / "c.csv", pairs=tmp_path / "p.csv")


def test_unknown_format_names_the_known(tmp_path: Path) -> None:
    (tmp_path / "c.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"unknown format; supported are \.jsonl, \.csv, \.tsv, \.parquet"):
        load_collection(tmp_path / "c.xlsx", pairs=tmp_path / "c.xlsx")
