"""Encoding and mining that are killed at any moment go on, redo one shard at most, and give the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sentence_transformers import SentenceTransformer

import forked
from alike import assert_alike
from rrra_hf.candidates import CandidatePool, mine_embeddings
from rrra_hf.embeddings import encode
from rrra_hf.indexes import search_flat
from tiny import WORDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed are forked"),
]

KILLS = 8
# Work of about half a second, so that a kill hits it anywhere.
PAUSE = 0.01


def start(work: Callable[[], object]) -> int:
    """Do the work in a process of its own, and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        # Threads of the parent's OpenMP are not there in a fork.
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end(child: int, after: float) -> bool:
    """Kill a process if it still runs after some seconds, and return whether it did."""
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0


def done(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def add(log: Path, names: list[str]) -> None:
    """Append to a file that all processes share, at once."""
    with log.open("a") as file:
        file.write("".join(f"{name}\n" for name in names))


class Encoding:
    """Sixty texts in shards of six, two batches each."""

    unit = 6

    def __init__(self, tiny_bert: Path, folder: Path):
        torch.set_num_threads(1)
        self.model = SentenceTransformer(str(tiny_bert), device="cpu")
        self.out = folder / "cache"
        self.log = folder / "log"
        self.texts = [f"{a} {b} {c}" for a in WORDS[10:14] for b in WORDS[6:11] for c in WORDS[7:10]]
        self.count = len(self.texts)
        self.expected = encode(self.model, self.texts, task="document", batch_size=3, shard_size=self.unit)
        forward = self.model.forward

        def slow(features: dict[str, torch.Tensor], **options: object) -> dict[str, torch.Tensor]:
            output = forward(features, **options)
            time.sleep(PAUSE)
            decoded = self.model.tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True)
            add(self.log, [text.replace(" ", "_") for text in decoded])
            return output

        self.model.forward = slow

    def work(self) -> np.ndarray:
        return encode(
            self.model, self.texts, task="document", batch_size=3, shard_size=self.unit, cache_dir=self.out
        )

    def check(self) -> None:
        before = done(self.log)
        assert_alike(self.work(), self.expected)
        assert done(self.log) == before
        (folder,) = self.out.iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["embeddings.arrow", "meta.json"]


class Mining:
    """Forty queries in blocks of two."""

    unit = 2

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path):
        torch.set_num_threads(1)
        draw = np.random.default_rng(0)
        self.queries, self.documents = draw.standard_normal((40, 8)), draw.standard_normal((300, 8))
        self.out = folder / "pools"
        self.log = folder / "log"
        self.count = len(self.queries)
        self.expected = self.mine()

        def slow(
            *arguments: Any, excluded: list[np.ndarray], **options: Any
        ) -> tuple[np.ndarray, np.ndarray]:
            found = search_flat(*arguments, excluded=excluded, **options)
            time.sleep(2 * PAUSE)
            # Each query's only positive has the number of the query.
            add(self.log, [str(rows[0]) for rows in excluded])
            return found

        monkeypatch.setattr("rrra_hf.candidates.mining.search_flat", slow)

    def mine(self, **options: object) -> CandidatePool:
        positives = [[query] for query in range(40)]
        return mine_embeddings(
            self.queries, self.documents, positives, depth=9, block_size=self.unit, **options
        )

    def work(self) -> CandidatePool:
        return self.mine(folder=self.out / "pool")

    def check(self) -> None:
        before = done(self.log)
        for pool in (self.work(), CandidatePool.load(self.out / "pool")):
            assert_array_equal(pool.candidates, self.expected.candidates)
            assert_alike(pool.scores, self.expected.scores)
            assert pool.positive_ids == self.expected.positive_ids
        assert done(self.log) == before
        assert [path.name for path in self.out.iterdir()] == ["pool"]


def clear(task: Encoding | Mining) -> None:
    shutil.rmtree(task.out, ignore_errors=True)
    task.log.unlink(missing_ok=True)


def kill_again_and_again(task: Encoding | Mining) -> None:
    moments = random.Random(0)
    kills = kills_of_this = 0
    while kills < KILLS:
        if end(start(task.work), after=moments.uniform(0.0, 0.25)):
            kills, kills_of_this = kills + 1, kills_of_this + 1
            continue
        # It was finished: check it, and begin another one.
        task.check()
        assert len(done(task.log)) <= task.count + kills_of_this * task.unit
        clear(task)
        kills_of_this = 0
    finish(start(task.work))
    task.check()
    assert set(map(done(task.log).count, done(task.log))) <= set(range(1, 2 + kills_of_this))
    assert len(done(task.log)) <= task.count + kills_of_this * task.unit


def kill_one_of_two(task: Encoding | Mining) -> None:
    moments = random.Random(1)
    for _ in range(3):
        clear(task)
        killed, other = start(task.work), start(task.work)
        end(killed, after=moments.uniform(0.05, 0.3))
        finish(other)
        task.check()
        assert len(done(task.log)) <= task.count + task.unit


def divide(task: Encoding | Mining) -> None:
    children = [start(partial(work_and_compare, task)) for _ in range(3)]
    for child in children:
        finish(child)
    task.check()
    assert len(done(task.log)) == task.count


def work_and_compare(task: Encoding | Mining) -> None:
    result = task.work()
    expected = task.expected
    if isinstance(result, CandidatePool):
        result, expected = result.candidates, expected.candidates
    assert_alike(result, expected)


def do(schedule: Callable[[Encoding | Mining], None], kind: str, tiny_bert: Path, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        schedule(Encoding(tiny_bert, folder) if kind == "encoding" else Mining(patch, folder))


@pytest.mark.parametrize("kind", ["encoding", "mining"])
@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(kill_again_and_again, id="killed work goes on and redoes one shard at most"),
        pytest.param(kill_one_of_two, id="a process takes over from one that is killed"),
        pytest.param(divide, id="processes divide the work"),
    ],
)
def test_nothing_is_lost_or_done_twice(
    schedule: Callable[[Encoding | Mining], None], kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    # In a process without the threads of other tests, which a fork wouldn't have.
    done = forked.run(do, schedule, kind, tiny_bert, tmp_path)
    assert done.statuses == [0], done.err
