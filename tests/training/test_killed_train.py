"""A run that is killed anywhere ends as if it had not been."""

from __future__ import annotations

import importlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alike import assert_alike
from forked import run
from rrra_hf.data import load_collection
from rrra_hf.training import train
from train_runs import ARGUMENTS, make_collection, outcome

LOSS = (
    "sentence_transformers.sentence_transformer.losses:"
    "MultipleNegativesRankingLoss.compute_loss_from_embeddings"
)
KILLS = [
    (LOSS, 3),  # stage 1: before a checkpoint
    (LOSS, 6),  # in epoch 1, after checkpoint 4
    ("transformers:Trainer._save_rng_state", 1),  # in the midst of checkpoint 8
    (LOSS, 7),  # in epoch 2, at step 11
    ("rrra_hf.training.stages:write_json", 1),  # after the last step
    ("rrra_hf.training.stages:evaluate_embeddings", 1),  # after the model was saved
    ("rrra_hf.training.stages:cross_fit", 1),  # stage 2
    ("rrra_hf.candidates:CandidatePool.save", 1),
    ("rrra_hf.losses:RRRALoss.compute_loss_from_embeddings", 10),  # stage 3
    ("rrra_hf.training.stages:fit_model", 2),  # while encoders are compared
    ("rrra_hf:RRRAModel.save_pretrained", 1),  # the result
    ("rrra_hf.training.stages:plot_run", 1),
    ("rrra_hf.training.run_folder:RunFolder.summarize", 1),  # after all
]


class Killed:
    """Trains in processes of their own, which may kill themselves at the n-th call of a function."""

    def __init__(self, encoder: Path, collection: Path, **changes: Any):
        self.encoder, self.collection, self.changes = encoder, collection, changes

    def __call__(self, folder: Path, function: str = "", call: int = 0) -> int:
        done = run(train_until, self.encoder, self.collection, self.changes, folder, function, call)
        assert done.statuses[0] in (0, -signal.SIGKILL), done.err
        return done.statuses[0]


def train_until(
    encoder: Path, collection: Path, changes: dict[str, Any], folder: Path, function: str, call: int
) -> None:
    if function:
        kill_at(function, call)
    train(load_collection(collection), encoder, folder, replace(ARGUMENTS, **changes))


def kill_at(function: str, call: int) -> None:
    """Make the n-th call of a function, given as `module:name.name`, the last thing this process does."""
    module, names = function.split(":")
    owner: Any = importlib.import_module(module)
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, killing)


@pytest.fixture(scope="module")
def train_process(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    make_collection(development=True).save(folder / "collection")
    return Killed(tiny_bert, folder / "collection", eval_steps=3)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_continues_to_the_same_result(
    train_process: Killed, tmp_path: Path
) -> None:
    assert train_process(tmp_path / "whole") == 0
    folder = tmp_path / "run"
    for function, call in KILLS:
        assert train_process(folder, function, call) == -signal.SIGKILL, function
        assert not (folder / "results.json").exists()
    assert train_process(folder) == 0
    assert_alike(outcome(folder), outcome(tmp_path / "whole"))
    assert (folder / "training.svg").read_bytes() == (tmp_path / "whole/training.svg").read_bytes()


@pytest.mark.slow
def test_a_run_with_refreshes_that_is_killed_twice_continues_to_the_same_result(
    tiny_bert: Path, train_process: Killed, tmp_path: Path
) -> None:
    killed = Killed(tiny_bert, train_process.collection, refresh_steps=3)
    assert killed(tmp_path / "whole") == 0
    folder = tmp_path / "run"
    # Once in the midst of a refresh, and once in an epoch that has seen one.
    assert killed(folder, "rrra_hf.training.refresh:fit_adapter", 3) == -signal.SIGKILL
    assert list((folder / "stage3/checkpoints/refresh").glob("step-*"))
    assert killed(folder, "rrra_hf.losses:RRRALoss.compute_loss_from_embeddings", 4) == -signal.SIGKILL
    assert killed(folder) == 0
    assert_alike(outcome(folder), outcome(tmp_path / "whole"))


@pytest.mark.slow
def test_a_run_that_is_killed_after_its_last_step_does_no_further_one(
    tiny_bert: Path, train_process: Killed, tmp_path: Path
) -> None:
    # In the midst of an epoch, where transformers would go on.
    killed = Killed(tiny_bert, train_process.collection, stage1_max_steps=4, stage3_max_steps=4)
    assert killed(tmp_path / "whole") == 0
    folder = tmp_path / "run"
    for _ in range(2):
        assert killed(folder, "rrra_hf.training.stages:write_json", 1) == -signal.SIGKILL
    assert killed(folder) == 0
    assert_alike(outcome(folder), outcome(tmp_path / "whole"))
