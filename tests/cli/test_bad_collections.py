"""Bad collections, end to end: the error message names the file and the problem."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from bad_input import SHORT, fail, snapshot, succeed, write_beir
from rrra_hf import CandidatePool, load_collection

pytestmark = pytest.mark.usefixtures("here")


# -------------------------------------------------------------------- collections


def test_missing_column_is_named_with_those_there_are(world: Path) -> None:
    (world / "corpus.csv").write_text("id,body\n1,sort text\n")
    (world / "pairs.csv").write_text("query,document_id\nsort,1\n")
    before = snapshot(world)
    command = ["index", "model", "corpus.csv", "--pairs", "pairs.csv", "--out", "out"]
    assert (
        "corpus.csv, line 2: no column 'text' or 'page_content' or 'contents'; there are ['id', 'body']"
        in fail(*command)
    )
    assert "no column 'prose'" in fail(*command, "--column", "text=prose")
    assert "columns must have keys among ['id', 'title'," in fail(*command, "--column", "txt=body")
    assert snapshot(world) == before
    assert succeed(*command, "--column", "text=body", "--json").json["documents"] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", b"", "beir/qrels/dev.tsv, line 2: document 'd0' is not in the corpus"),
        ("queries.jsonl", b"", "beir/qrels/dev.tsv, line 2: query 'q0' is not among the queries"),
        ("qrels/train.tsv", b"q0\td99\t1\n", "qrels/train.tsv, line 1: document 'd99' is not in the corpus"),
        ("qrels/train.tsv", b"q99\td0\t1\n", "qrels/train.tsv, line 1: query 'q99' is not among the queries"),
        ("qrels/train.tsv", b"q0\td0\tgood\n", "the grade (score) of query 'q0' must be an integer"),
        ("qrels/train.tsv", b"q0\td0\t0\n", "The split 'train' of beir has no relevant document"),
        ("qrels/train.tsv", b"", "beir has no split 'train'; there are ['dev', 'test']"),
        ("corpus.jsonl", b'{"_id": "a", "text": "caf\xe9"}\n', "corpus.jsonl, line 1: not UTF-8 (byte 0xe9"),
        ("corpus.jsonl", b'{"_id": "a"', "beir/corpus.jsonl, line 1: not JSON"),
        (
            "corpus.jsonl",
            b'{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n',
            "corpus.jsonl, line 2: document id 'a' already occurs at beir/corpus.jsonl, line 1",
        ),
    ],
)
def test_bad_collection_is_an_error_with_file_and_line(
    world: Path, file: str, content: bytes, message: str
) -> None:
    (world / "beir" / file).write_bytes(content)
    before = snapshot(world)
    assert message in fail("mine", "beir", "--model", "encoder", "--out", "out", "--cache-dir", "cache")
    assert snapshot(world) == before


def test_empty_corpus_file_is_an_error(world: Path) -> None:
    (world / "corpus.jsonl").write_bytes(b"")
    (world / "pairs.jsonl").write_bytes(b"")
    message = fail("index", "model", "corpus.jsonl", "--pairs", "pairs.jsonl", "--out", "out")
    assert "corpus has no documents" in message
    assert not (world / "out").exists()


def test_no_positives_at_all_is_an_error(world: Path) -> None:
    for path in (world / "beir/qrels").iterdir():
        path.write_text("query-id\tcorpus-id\tscore\nq0\td0\t0\n")
    for command in ("mine beir --out out", "fit beir --out out", "evaluate model beir"):
        assert "beir has no relevant documents (qrels)" in fail(*command.split())
    assert not (world / "out").exists()


def test_queries_without_positives_are_passed_over(world: Path) -> None:
    qrels = world / "beir/qrels/train.tsv"
    qrels.write_text(qrels.read_text().replace("q0\td0\t1", "q0\td0\t0"))
    with (world / "beir/queries.jsonl").open("a") as file:
        file.write('{"_id": "unjudged", "text": "old text"}\n')
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--json").json
    assert mined["queries"] == 19
    assert not {"q0", "unjudged"} & set(CandidatePool.load("out").query_ids)


def test_bad_records_are_dropped_and_counted_on_request(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (world / "beir/corpus.jsonl").open("ab") as file:
        file.write(
            b'{"_id": "d0", "text": "again"}\n{"_id": "d90", "text": ""}\n{"_id": "d91", "text": "\xff"}\n'
        )
    with (world / "beir/qrels/train.tsv").open("a") as file:
        file.write("q0\td91\t1\n")
    caplog.set_level(logging.WARNING)
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--skip-bad", "--json").json
    assert (mined["queries"], mined["documents"]) == (20, 20)
    counts = {"duplicate id": 1, "empty text": 1, "undecodable bytes": 1, "unknown document": 1}
    assert f"beir: skipped bad records: {counts}" in caplog.text
    assert load_collection("beir", skip_bad=True).skipped == counts


def test_standard_input_that_is_not_utf8_is_an_error(world: Path) -> None:
    message = fail("rerank", "model", "sort", stdin=b"sort text\ncaf\xe9\n")
    assert "FILE must be UTF-8" in message and "0xe9" in message
    (world / "documents.txt").write_bytes(b"caf\xe9\n")
    assert "FILE must be UTF-8" in fail("rerank", "model", "sort", "documents.txt")


# -------------------------------------------------------------------- small, deep and long


def test_collection_of_one_document_goes_all_the_way(world: Path) -> None:
    queries = {"q0": "sort", "q1": "sort text", "q2": "text"}
    write_beir(world / "one", {"d0": "sort text"}, queries, dict.fromkeys(queries, "d0"))
    mined = succeed("mine", "one", "--model", "encoder", "--out", "mined", "--json").json
    assert (mined["documents"], mined["candidates"]) == (1, 0)
    succeed(
        "fit",
        "one",
        "--model",
        "encoder",
        "--out",
        "fitted",
        "--pool",
        "mined",
        "--preset",
        "residual",
        "--max-steps",
        2,
    )
    succeed("index", "fitted", "one", "--out", "indexed")
    (found,) = succeed("search", "indexed", "line", "--json").json
    assert [hit["corpus_id"] for hit in found["hits"]] == ["d0"]
    assert 0 <= found["hits"][0]["probability"] <= 1
    quality = succeed("evaluate", "fitted", "one", "--json").json["quality"]["all"]
    assert quality["encoder"]["R@1"] == quality["adapter"]["R@1"] == 1
    # With nothing to tell from, there is nothing to draw.
    options = ["--model", "encoder", "--out", "run", "--folds", 2, *SHORT]
    assert "No training query has a candidate" in fail("train", "one", *options)
    assert not (world / "run/results.json").exists()


def test_more_documents_than_there_are_give_all(world: Path) -> None:
    hits = succeed("search", "retriever", "sort", "-k", 1000, "--depth", 1000, "--json").json[0]["hits"]
    assert {hit["corpus_id"] for hit in hits} == {f"d{i}" for i in range(20)}
    mined = succeed("mine", "beir", "--model", "encoder", "--out", "out", "--depth", 1000, "--json").json
    assert mined["candidates"] == 20 * 19
    lines = b"sort\ntext\n"
    assert len(succeed("rerank", "model", "sort", "-k", 9, "--json", stdin=lines).json) == 2
    assert succeed("evaluate", "model", "beir", "--depth", 500, "--json").json["quality"]["all"]["encoder"]


def test_texts_of_100_000_characters_are_cut_by_the_model(world: Path) -> None:
    long = "sort text " * 10_000
    with (world / "beir/corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "long", "text": long}) + "\n")
        file.write(json.dumps({"_id": "one word", "text": "s" * 100_000}) + "\n")
    assert succeed("index", "model", "beir", "--out", "out", "--json").json["documents"] == 22
    hits = succeed("search", "out", long, "--no-rerank", "--json").json[0]["hits"]
    assert hits[0]["corpus_id"] == "long"
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    ranked = succeed("rerank", "model", long, "--json", stdin=f"folder\n{long}\n".encode()).json
    assert {document["text"] for document in ranked} == {"folder", long.strip()}
