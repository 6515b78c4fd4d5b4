"""Several processes train one model, and end as one process or an uninterrupted run does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import forked
from alike import assert_alike
from rrra_hf.data import load_collection
from rrra_hf.training import train
from rrra_hf.training.batches import EqualShares
from rrra_hf.training.contrastive import newest_complete_checkpoint
from rrra_hf.training.processes import Processes
from train_runs import ARGUMENTS, make_collection, outcome

EVALUATED = replace(ARGUMENTS, eval_steps=7)

# ---------------------------------------------------------------- shares of a batch


@given(
    st.lists(st.lists(st.integers(), min_size=1, max_size=9, unique=True), max_size=5),
    st.integers(min_value=1, max_value=5),
)
def test_shares_are_equal_and_of_one_batch(batches: list[list[int]], processes: int) -> None:
    shares = list(EqualShares(batches, processes))
    assert len(shares) == len(EqualShares(batches, processes)) == len(batches) * processes
    for i, batch in enumerate(batches):
        own = shares[i * processes : (i + 1) * processes]
        assert {len(share) for share in own} == {max(1, len(batch) // processes)}
        rows = [row for share in own for row in share]
        if len(batch) >= processes:
            assert rows == batch[: len(rows)]
            assert len(batch) - len(rows) < processes
        else:
            assert set(rows) == set(batch)


def test_checkpoints_need_the_random_state_of_every_process(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for name in (
            "model.safetensors",
            "optimizer.pt",
            "scheduler.pt",
            "modules.json",
            "trainer_state.json",
        ):
            (checkpoint / name).write_text("{}")
        for index in range(2):
            torch.save(torch.arange(1000), checkpoint / f"rng_state_{index}.pth")
    (tmp_path / "checkpoint-12/rng_state_1.pth").unlink()
    half = (tmp_path / "checkpoint-8/rng_state_1.pth").read_bytes()[:1000]
    (tmp_path / "checkpoint-8/rng_state_1.pth").write_bytes(half)
    assert newest_complete_checkpoint(tmp_path, processes=2) == tmp_path / "checkpoint-4"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    # One of another number of processes would not continue the same run.
    assert newest_complete_checkpoint(tmp_path) is None


def test_one_process_does_all_work_and_raises_its_own_errors() -> None:
    assert Processes().on_main(lambda: [1]) == [1]
    with pytest.raises(ZeroDivisionError):
        Processes().on_main(lambda: 1 // 0)


# ---------------------------------------------------------------- real runs of two processes


@pytest.fixture(scope="module")
def steady_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder without dropout: each process has masks of its own, for half of the batch."""
    folder = tmp_path_factory.mktemp("steady") / "steady-bert"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes") / "collection"
    make_collection(development=True).save(folder)
    return folder


@pytest.fixture(scope="module")
def run(steady_bert: Path, collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two processes."""
    folder = tmp_path_factory.mktemp("launched") / "run"
    finished = forked.run(train_and_tell, steady_bert, collection, folder, processes=2)
    assert finished.statuses == [0, 0], finished.err
    assert finished.out == ""
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_two_processes_make_what_one_makes(run: Path, steady_bert: Path, tmp_path: Path) -> None:
    train(make_collection(development=True), steady_bert, tmp_path / "run", EVALUATED)
    without_cache = [
        {name for name in files(folder) if not name.startswith("embeddings/")}
        for folder in (run, tmp_path / "run")
    ]
    assert without_cache[0] == without_cache[1]
    two, one = outcome(run), outcome(tmp_path / "run")
    for of_two, of_one in zip(two["history"], one["history"], strict=True):
        assert [entry["step"] for entry in of_two] == [entry["step"] for entry in of_one]
    # The first epoch's full batches, before rounding adds up: 50 pairs in batches of 8.
    for name in ("loss", "grad_norm", "learning_rate"):
        assert_allclose(
            *([entry[name] for entry in side["history"][0][:6]] for side in (two, one)), rtol=2e-3
        )
    # Rounding changes the pool, and with it the negatives of some steps. In the other steps, they are the
    # same, and so is their mean probability over the processes.
    probabilities = [
        [entry["false_negative_probability"] for entry in side["history"][1] if "loss" in entry]
        for side in (two, one)
    ]
    assert np.isclose(*probabilities, atol=2e-4).mean() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_both_processes_hold_the_same_weights(run: Path, stage: int) -> None:
    digests = {(run.parent / f"stage{stage}-process{index}").read_text() for index in range(2)}
    assert len(digests) == 1


@pytest.mark.slow
def test_another_number_of_processes_is_refused(run: Path, steady_bert: Path) -> None:
    with pytest.raises(ValueError, match="processes was 2, now 1"):
        train(make_collection(development=True), steady_bert, run, EVALUATED)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_continues_to_the_same_result(
    run: Path, steady_bert: Path, collection: Path, tmp_path: Path
) -> None:
    again = tmp_path / "run"
    # Stage 1 has 14 steps and checkpoints every 4: killed in epoch 2, and in stage 3.
    for stage, step in ((1, 11), (3, 6 + 11)):
        killed = forked.run(killed_in_step, steady_bert, collection, again, step, processes=2)
        assert killed.statuses == [-signal.SIGKILL, -signal.SIGKILL], killed.err
        assert list(again.glob(f"stage{stage}/checkpoints/checkpoint-8/rng_state_1.pth"))
    finished = forked.run(train_and_tell, steady_bert, collection, again, processes=2)
    assert finished.statuses == [0, 0], finished.err
    assert_alike(outcome(again), outcome(run))


@pytest.mark.slow
def test_errors_reach_all_processes(run: Path, steady_bert: Path, collection: Path, tmp_path: Path) -> None:
    done = forked.run(tell_errors, steady_bert, collection, run, tmp_path, processes=2)
    assert done.statuses == [0, 0], done.err
    main, other = (json.loads((tmp_path / f"errors-{index}").read_text()) for index in range(2))
    odd = "ValueError: batch_size must be a multiple of the 2 processes, got 7."
    assert main["odd"] == other["odd"] == odd
    assert "ValueError" in main["settings"]
    assert "arguments.folds was 2, now 3" in main["settings"]
    assert other["settings"] == f"RuntimeError: The main process failed: {main['settings']}"
    assert main["loss"] == other["loss"]
    checkpoint = tmp_path / "loss/stage1/checkpoints/checkpoint-2"
    assert main["loss"].startswith("FloatingPointError: The loss of step 3 is not finite.")
    assert f"saved in {checkpoint}." in main["loss"]
    assert "process 1: '" in main["loss"]
    assert "process 0" not in main["loss"]
    assert newest_complete_checkpoint(checkpoint.parent, processes=2) == checkpoint


# ---------------------------------------------------------------- what the processes do


def train_and_tell(encoder: str, collection: str, run: str) -> None:
    """Train, and write a digest of this process's weights after each stage."""
    module: Any = sys.modules["rrra_hf.training.stages"]
    original = module.train_contrastive

    def train_contrastive(model: torch.nn.Module, *args: Any, stage: int, **kwargs: Any) -> Any:
        history = original(model, *args, stage=stage, **kwargs)
        weights = hashlib.sha256(b"".join(w.numpy().tobytes() for w in model.state_dict().values()))
        place = Path(run).parent / f"stage{stage}-process{os.environ['RANK']}"
        place.write_text(weights.hexdigest())
        return history

    module.train_contrastive = train_contrastive
    train(load_collection(collection), encoder, run, EVALUATED)


def on_call(number: int, action: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the second process do something to the n-th loss."""
    original, calls = MultipleNegativesRankingLoss.forward, 0

    def forward(self: MultipleNegativesRankingLoss, *args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = original(self, *args, **kwargs)
        return action(loss) if calls == number and os.environ["RANK"] == "1" else loss

    MultipleNegativesRankingLoss.forward = forward  # type: ignore[method-assign]


def killed_in_step(encoder: str, collection: str, run: str, step: int) -> None:
    """Train until both processes are killed at once."""

    def kill(loss: torch.Tensor) -> torch.Tensor:
        for process in (int(os.environ["MAIN_PID"]), os.getpid()):
            os.kill(process, signal.SIGKILL)
        return loss

    on_call(step, kill)
    train(load_collection(collection), encoder, run, EVALUATED)


def tell_errors(encoder: str, collection: str, run: str, out: str) -> None:
    """Fail in several ways, one after the other, and write what this process raised."""
    errors = {}
    for name, folder, changes in (
        ("odd", run, {"batch_size": 7}),
        ("settings", run, {"folds": 3}),
        ("loss", f"{out}/loss", {}),
    ):
        if name == "loss":
            on_call(3, lambda loss: loss * float("nan"))
        try:
            train(load_collection(collection), encoder, folder, replace(EVALUATED, **changes))
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    Path(out, f"errors-{os.environ['RANK']}").write_text(json.dumps(errors))
