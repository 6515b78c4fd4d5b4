"""Work that is killed at random moments loses nothing, deletes nothing of others, and ends as if it were not.

`KILLS=15 pytest tests/security/test_killed_anywhere.py` kills each kind of work fifteen times.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import forked
from alike import assert_alike
from command_line import rrra
from fuzzed import TEXTS
from hub_server import WRITER, HubServer
from rrra_hf import CandidatePool, Retriever, RRRAModel
from rrra_hf.embeddings import encode
from tiny import word_collection
from train_runs import outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed are forked"),
]

KILLS = int(os.environ.get("KILLS", "2"))
REPOSITORY = "tester/killed"
SHORT = "--stage1-steps 4 --stage3-steps 4 --save-steps 2 --train-batch-size 4 --folds 2 --fit-steps 4"
# Of others, in the folder of the work and beside it.
THEIRS = {"README.txt": "theirs", "out/notes/thesis.txt": "years", "out/.hidden": "theirs"}
BESIDE = {"README.txt": "theirs", ".out.txt": "theirs"}


class Work(NamedTuple):
    """Work that can be killed.

    Args:
        do: Does it in a folder.
        result: Returns what came of it.
        theirs: Files of others that must stay as they are.
        check: Checks what is there after a kill.
        prepare: Writes what is there before.
    """

    do: Callable[[Path], object]
    result: Callable[[Path], Any]
    theirs: dict[str, str] = BESIDE
    check: Callable[[Path], object] = lambda folder: None
    prepare: Callable[[Path], object] = lambda folder: None


def command(line: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        os.chdir(folder)
        done = rrra(*line.split())
        assert done.status == 0, done.err

    return run


def embed(folder: Path) -> np.ndarray:
    encoder = SentenceTransformer(str(folder / "encoder"), device="cpu")
    texts = word_collection(60, train=1).document_texts
    return encode(encoder, texts, task="document", batch_size=2, shard_size=4, cache_dir=folder / "cache")


def searched(folder: Path) -> Any:
    return Retriever.from_pretrained(folder / "out").search(TEXTS, 3, show_progress_bar=False)


def index_earlier(folder: Path) -> None:
    Retriever(RRRAModel.from_encoder(folder / "encoder")).index({"old": "sort"}).save_pretrained(
        folder / "out"
    )


def old_or_new(folder: Path) -> None:
    found = {hit["corpus_id"] for hits in searched(folder) for hit in hits}
    assert found == {"old"} or all(name.startswith("d") for name in found)


def index_most(folder: Path) -> None:
    # Not from inside of the folder, in which this process would stay.
    done = rrra("index", folder / "encoder", folder / "beir", "--kind", "hnsw", "--out", folder / "out")
    assert done.status == 0, done.err
    texts = [{"_id": f"d{number}", "text": f"sort {number}"} for number in range(50, 70)]
    (folder / "new.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))


def before_or_after(folder: Path) -> None:
    documents = Retriever.from_pretrained(folder / "out").documents.to_pylist()
    texts = {document["id"]: document["text"] for document in documents}
    assert len(texts) == (60 if "d0" in texts else 69)
    assert ("d69" in texts) is (texts["d55"] == "sort 55") is ("d0" not in texts)


def save_model(folder: Path) -> None:
    RRRAModel.from_encoder(folder / "encoder").save_pretrained(folder / "model")


def push(folder: Path) -> None:
    """Push from a forked process, whose client took its settings from the environment long ago."""
    from huggingface_hub import constants, hf_api

    hf_api.api.endpoint = constants.ENDPOINT = (folder / "hub.txt").read_text()
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    os.environ.update({"HF_TOKEN": WRITER, "NO_PROXY": "127.0.0.1,localhost"})
    command(f"push model {REPOSITORY} --yes")(folder)


WORK = {
    "encode": Work(embed, embed),
    "mine": Work(
        command("mine beir --model encoder --depth 5 --cache-dir cache --out out"),
        lambda folder: CandidatePool.load(folder / "out").candidate_ids,
    ),
    "fit": Work(
        command("fit beir --model encoder --preset residual --max-steps 20 --cache-dir cache --out out"),
        lambda folder: [
            (folder / "out" / name).read_bytes() for name in ("model.safetensors", "config.json")
        ],
    ),
    "train": Work(
        command(f"train beir --model encoder --preset residual {SHORT} --out out"),
        lambda folder: outcome(folder / "out"),
    ),
    "index": Work(
        command("index encoder beir --out out"), searched, THEIRS, old_or_new, prepare=index_earlier
    ),
    "update": Work(
        command("update out new.jsonl --delete d0"), searched, THEIRS, before_or_after, prepare=index_most
    ),
}


def prepare(work: Work, world: Path, folder: Path) -> None:
    shutil.copytree(world, folder)
    work.prepare(folder)
    for name, text in work.theirs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def begin(name: str, folder: Path) -> forked.Process:
    """Begin the work in a process of its own."""
    (folder / "began").unlink(missing_ok=True)
    process = forked.Process(do, name, folder)
    while not (folder / "began").exists() and process.process.is_alive():
        time.sleep(0.001)
    return process


def duration(process: forked.Process) -> float:
    """Wait for work that has just begun, and return how long it took."""
    began = time.perf_counter()
    assert process.wait() == 0, process.err
    return time.perf_counter() - began


def do(name: str, folder: Path) -> None:
    (folder / "began").touch()
    (push if name == "push" else WORK[name].do)(folder)


def left_over(folder: Path) -> list[str]:
    """Return what only an unfinished process needs."""
    return [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".lock"))]


@pytest.fixture(scope="module")
def world(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    word_collection(60, train=60, dev=10, test=10).save(folder / "beir")
    shutil.copytree(tiny_bert, folder / "encoder")
    return folder


@pytest.mark.parametrize("name", WORK)
def test_killed_work_ends_as_if_it_had_not_been(name: str, world: Path, tmp_path: Path) -> None:
    work = WORK[name]
    prepare(work, world, tmp_path / "whole")
    seconds = duration(begin(name, tmp_path / "whole"))
    expected = work.result(tmp_path / "whole")
    moments = random.Random(name)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        prepare(work, world, folder)
        kill_until_done(name, folder, [moments.uniform(0, seconds) for _ in range(1 + number % 2)])
        assert_alike(work.result(folder), expected)
        assert not left_over(folder)
        shutil.rmtree(folder)


def kill_until_done(name: str, folder: Path, moments: list[float]) -> None:
    """Kill the work at some moments, the same work again and again, and let it end then."""
    work = WORK[name]
    for moment in moments:
        process = begin(name, folder)
        time.sleep(moment)
        process.kill()
        assert process.process.exitcode in (0, -signal.SIGKILL), process.err
        assert {file: (folder / file).read_text() for file in work.theirs} == work.theirs
        work.check(folder)
    process = begin(name, folder)
    assert process.wait() == 0, process.err
    assert {file: (folder / file).read_text() for file in work.theirs} == work.theirs


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def test_a_killed_upload_commits_all_or_nothing(hub: HubServer, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(world, folder)
    save_model(folder)
    (folder / "hub.txt").write_text(hub.url)
    seconds = duration(begin("push", folder))
    expected = hub.files(REPOSITORY)
    before = snapshot(folder)
    moments = random.Random("push")
    for _ in range(KILLS):
        hub.repositories.clear()
        process = begin("push", folder)
        time.sleep(moments.uniform(0, seconds))
        process.kill()
        assert process.process.exitcode in (0, -signal.SIGKILL), process.err
        committed = hub.files(REPOSITORY) if REPOSITORY in hub.repositories else {}
        assert set(committed) <= {".gitattributes"} or committed == expected
        process = begin("push", folder)
        assert process.wait() == 0, process.err
        assert hub.files(REPOSITORY) == expected
        assert snapshot(folder) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
