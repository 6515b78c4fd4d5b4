"""Commands take collections in every form, with the same options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bad_input import fail, succeed
from command_line import rrra
from rrra_hf import Retriever, load_collection
from rrra_hf.candidates import CandidatePool
from rrra_hf.cli.app import app
from rrra_hf.retrieval import evaluate

COMMANDS = ("card", "compare", "evaluate", "fit", "index", "mine", "train")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_same_options(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for option in ("--pairs", "--queries", "--qrels", "--column", "--skip-bad"):
        assert option in shown


def test_a_corpus_alone_is_indexed_and_says_what_it_lacks(world: Path) -> None:
    corpus = world / "beir/corpus.jsonl"
    assert succeed("index", "model", corpus, "--out", "out", "--json").json["documents"] == 20
    assert "it has no labels" in fail("mine", str(corpus), "--model", "encoder", "--out", "pool")


def test_documents_that_were_split_are_measured_by_their_passages(world: Path) -> None:
    pytest.importorskip("semantic_text_splitter")
    made = succeed("index", "model", "beir", "--out", "out", "--split", "3", "--json").json
    assert made["passages"] > made["documents"] == 20
    assert "tokens" in fail("index", "model", "beir", "--out", "other", "--split", "1000")
    measured = succeed("evaluate", "out", "beir", "--json").json
    expected = evaluate(Retriever.from_pretrained("out"), load_collection("beir", split="test")).quality
    for system, quality in expected.items():
        assert measured["quality"]["all"][system] == pytest.approx(quality.mean)


def test_an_faq_is_indexed(world: Path) -> None:
    (world / "faq.csv").write_text("Frage,Antwort\nold text,sort lines\nnew text,find files\n")
    assert succeed("index", "model", "faq.csv", "--out", "out", "--json").json["documents"] == 2


def test_queries_and_judgements_of_trec_are_mined(world: Path) -> None:
    judged = [line.split("\t") for line in (world / "beir/qrels/train.tsv").read_text().splitlines()[1:]]
    lines = (f"{query} 0 {document} {grade}\n" for query, document, grade in judged)
    (world / "qrels.txt").write_text("".join(lines))
    command = ["mine", "beir/corpus.jsonl", "--queries", "beir/queries.jsonl", "--qrels", "qrels.txt"]
    mined = succeed(*command, "--model", "encoder", "--out", "out", "--json").json
    assert mined["queries"] == len({query for query, _, _ in judged})
    assert (
        CandidatePool.load("out").document_ids[0]
        == json.loads((world / "beir/corpus.jsonl").read_text().splitlines()[0])["_id"]
    )


def test_files_belong_to_one_collection(world: Path) -> None:
    failed = rrra("compare", "beir", "beir", "--pairs", "pairs.jsonl", "--out", "out")
    assert failed.status == 2
    assert "belong to one collection, got 2" in " ".join(failed.err.replace("│", " ").split())
