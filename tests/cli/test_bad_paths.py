"""Invalid paths and values: the error message names them, and no partial output is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from bad_input import SHORT, fail, snapshot, succeed
from command_line import rrra
from rrra_hf import CandidatePool, Retriever

pytestmark = pytest.mark.usefixtures("here")


# -------------------------------------------------------------------- names that lead nowhere


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index nosuch beir --out out", "Can't load an encoder named 'nosuch'"),
        ("index nosuch/model beir --out out", "Can't load an encoder named 'nosuch/model'"),
        ("mine beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("fit beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("train beir --model nosuch --out out", "Can't load an encoder named 'nosuch'"),
        ("train beir --model model --out out", "model is an RRRAModel already"),
        ("train beir --model encoder --out out --resume", "out has no training run to resume"),
        ("evaluate nosuch beir", "Can't load an encoder named 'nosuch'"),
        ("rerank nosuch query beir/corpus.jsonl", "Can't load an encoder named 'nosuch'"),
        ("search nosuch query", "Can't load a model named 'nosuch'"),
        ("search model query", "model has no index; make one with `rrra index`"),
        ("index model nosuch --out out", "There is no collection 'nosuch'"),
        ("index model nosuch.jsonl --pairs pairs.jsonl --out out", "There is no file nosuch.jsonl"),
        ("fit beir --model encoder --pool nosuch --out out", "No candidate pool at nosuch"),
        ("evaluate model beir --split nosuch", "no split 'nosuch'; there are ['dev', 'test', 'train']"),
        ("index model beir --column text=body --out out", "'beir' has fixed column names"),
        ("index model beir --pairs pairs.jsonl --out out", "pairs needs a corpus file"),
        ("mine beir --model encoder --max-length 65 --out out", "must be at most 64 for encoder, got 65"),
    ],
)
def test_what_is_nowhere_or_not_legal_is_named(world: Path, command: str, message: str) -> None:
    before = snapshot(world)
    assert message in fail(*command.split())
    assert snapshot(world) == before


# -------------------------------------------------------------------- folders and files in each other's place


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index model beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("fit beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("mine beir --out beir/corpus.jsonl", "--out must be a folder, beir/corpus.jsonl is a file"),
        ("train beir --model encoder --out beir/corpus.jsonl", "beir/corpus.jsonl is a file"),
        (
            "index beir/corpus.jsonl beir --out out",
            "beir/corpus.jsonl is a file; give a folder or a Hub name",
        ),
        ("search beir/corpus.jsonl query", "beir/corpus.jsonl is a file; give a folder or a Hub name"),
        ("fit beir --model encoder --pool beir/corpus.jsonl --out out", "No candidate pool at beir/corpus.j"),
        ("fit beir --model encoder --pool beir --out out", "beir/pool.json is missing"),
        ("index model folder.jsonl --pairs beir/corpus.jsonl --out out", "There is no file folder.jsonl"),
        ("index model beir/corpus.jsonl --pairs folder.jsonl --out out", "There is no file folder.jsonl"),
    ],
)
def test_folder_for_a_file_and_file_for_a_folder_are_named(world: Path, command: str, message: str) -> None:
    (world / "folder.jsonl").mkdir()
    corpus = (world / "beir/corpus.jsonl").read_text().replace("_id", "id")
    (world / "beir/corpus.jsonl").write_text(corpus)
    before = snapshot(world)
    assert message in fail(*command.split())
    assert snapshot(world) == before


def test_folder_of_documents_to_rerank_is_a_bad_argument(world: Path) -> None:
    failed = rrra("rerank", "model", "query", "beir")
    assert failed.status == 2
    assert "Is a directory" in failed.err


@pytest.mark.parametrize(
    "command",
    [
        "mine beir --model encoder --out thesis",
        "fit beir --model encoder --out thesis",
        "index model beir --out thesis",
        "train beir --model encoder --out thesis",
        "mine beir --model encoder --out model",
        "fit beir --model encoder --out pool",
        "index model beir --out beir",
        "train beir --model encoder --out retriever",
    ],
)
def test_folder_with_other_things_is_not_written_to(
    world: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "thesis").mkdir()
    (world / "thesis/thesis.tex").write_text("precious")
    before = snapshot(world)

    def encode(*_: object, **__: object) -> None:
        raise AssertionError("encoded a corpus before looking at --out")

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    message = fail(*command.split())
    assert command.split()[-1] in message
    assert "holds other files" in message or "of a training run" in message
    assert snapshot(world) == before


def test_empty_folder_and_earlier_result_may_be_written_to(world: Path) -> None:
    (world / "out").mkdir()
    for _ in range(2):
        succeed("index", "model", "beir", "--out", "out")
    succeed("index", "model", "beir", "--out", "model")
    succeed("mine", "beir", "--model", "encoder", "--out", "pool", "--depth", 3)
    assert CandidatePool.load("pool").depth == 3
    assert [hit["corpus_id"] for hit in Retriever.from_pretrained("model").search("sort", 1)[0]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_named(world: Path) -> None:
    (world / "closed").mkdir(mode=0o555)
    assert "closed" in fail("index", "model", "beir", "--out", "closed/out")
    assert list((world / "closed").iterdir()) == []


def test_run_of_other_arguments_is_refused(world: Path) -> None:
    command = ["train", "beir", "--model", "encoder", "--out", "run", *SHORT]
    succeed(*command, "--folds", 2)
    before = snapshot(world)
    message = fail(*command, "--folds", 3, "--num-negatives", 7)
    assert "run was started with other settings" in message
    assert "arguments.folds was 2, now 3; arguments.num_negatives was 4, now 7" in message
    assert snapshot(world) == before
