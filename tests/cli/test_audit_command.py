"""`rrra audit`: from a collection to its missing labels, and to one that has them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from bad_input import fail, succeed, write_words
from chat_server import ChatServer, answer
from command_line import rrra
from forked import WAIT, Process
from rrra_hf import Collection, load_collection
from rrra_hf.cli import main
from rrra_hf.data import write_run
from rrra_hf.labels import Decision, Decisions
from running import wait_for

DEPTH = 8


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("beir") / "words")


@pytest.fixture(scope="module")
def options(tiny_bert: Path) -> list[object]:
    return ["--model", tiny_bert, "--depth", DEPTH]


def queries(beir: Path) -> Collection:
    return load_collection(beir).split("train")


def test_a_run_that_failed_is_repeated(beir: Path, tmp_path: Path, options: list[object]) -> None:
    fail("audit", beir, "--out", tmp_path / "audit", "--model", tmp_path / "nothing")
    succeed("audit", beir, "--out", tmp_path / "audit", *options)


def test_an_audit_is_printed_written_and_used_again(
    beir: Path, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "audit"
    printed = succeed("audit", beir, "--out", out, *options, "--show", 3).out
    assert re.search(
        r"Labels that are probably missing: \d+, between \d+ and \d+ with a chance of 80 %", printed
    )
    assert {path.name for path in out.iterdir()} == {
        "audit.json", "pairs.parquet", "index.html", "pool", "decisions.jsonl"
    }  # fmt: skip
    first = json.loads((out / "audit.json").read_text())
    assert first["candidates"] == DEPTH * first["queries"]
    monkeypatch.setattr("rrra_hf.cli.audit.encoder_or_index", None)  # It's not opened again.
    again = succeed("audit", beir, "--out", out, *options, "--json").json
    assert again["missing"] == first["missing"]
    assert len(again["suspects"]) == 20
    for other in (["--depth", 5], ["--depth", DEPTH, "--dtype", "bfloat16"]):
        assert "Choose another --out" in fail("audit", beir, "--out", out, *options[:2], *other)


def test_decisions_are_kept_and_mend_a_copy(beir: Path, options: list[object], tmp_path: Path) -> None:
    out, mended = tmp_path / "audit", tmp_path / "mended"
    suspects = succeed("audit", beir, "--out", out, *options, "--json").json["suspects"]
    pair = suspects[0]["query_id"], suspects[0]["document_id"]
    with Decisions.open(out / "decisions.jsonl") as decisions:
        decisions.add(Decision(*pair, True, "person", 0.5))
    printed = succeed("audit", beir, "--out", out, *options, "--mend", mended).out
    assert "person: 1 relevant, 0 not relevant" in printed
    assert "Decisions that this follows: 1" in printed
    assert load_collection(mended / "collection").qrels_by_split["train"][pair[0]][pair[1]] == 1
    assert pair[1] not in queries(beir).qrels[pair[0]]
    assert "nothing is overwritten" in fail("audit", beir, "--out", out, *options, "--mend", mended)


def test_a_judge_decides_what_is_uncertain(
    beir: Path, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with ChatServer(lambda question: answer(question, True)) as server:
        judge = ["--judge", "openai:small", "--base-url", server.url, "--max-calls", 4, "--judge-error", 0]
        found = succeed("audit", beir, "--out", tmp_path / "audit", *options, *judge, "--json")
    assert found.json["judging"]["calls"] == 4
    assert "openai:small: 4 calls, about" in found.err
    assert found.json["missing"]["decisions"] == 4
    assert len(Decisions.read(tmp_path / "audit" / "decisions.jsonl")) == 4


def test_systems_are_measured_with_missing_labels(beir: Path, options: list[object], tmp_path: Path) -> None:
    part = queries(beir)
    runs = []
    for name, step in (("one", 1), ("other", -1)):
        hits = [{"corpus_id": document, "score": 0.0} for document in part.document_ids[::step][:10]]
        write_run(tmp_path / name, dict.fromkeys(part.query_ids, hits))
        runs += ["--run", f"{name}={tmp_path / name}"]
    printed = succeed("audit", beir, "--out", tmp_path / "audit", *options, *runs).out
    assert re.search(r"one\s+│\s+0\.\d{3}", printed)
    assert "Chance that another system is the best" in printed


def main_with(arguments: list[str]) -> None:
    sys.argv = ["rrra", *arguments]
    main()


def test_the_review_is_served(beir: Path, options: list[object], tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    command = ["audit", beir, "--out", tmp_path / "audit", *options, "--review", "--port", "17861"]
    process = Process(main_with, list(map(str, command)))
    try:
        wait_for(lambda: "Review at " in process.err or not process.process.is_alive())
        (url,) = re.findall(r"Review at (\S+);", process.err)
        with urlopen(url, timeout=WAIT) as page:
            assert b"Missing labels in words" in page.read()
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--accept-from", 0.5], "--accept-from needs --mend"),
        (["--base-url", "http://localhost"], "--base-url needs --judge"),
        (["--run", "a.trec"], "--run must be NAME=FILE"),
        (["--depth", 0], "--depth"),
    ],
)
def test_options_that_say_nothing_are_refused(
    beir: Path, tmp_path: Path, given: list[object], message: str
) -> None:
    found = rrra("audit", beir, "--out", tmp_path / "audit", *given)
    assert found.status == 2
    assert message in found.message
    assert not (tmp_path / "audit").exists()
