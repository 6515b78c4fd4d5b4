"""What is expected of a trainer: reports, evaluation in its course, callbacks, and resuming on request."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState

from alike import assert_alike
from rrra_hf.candidates import CandidatePool
from rrra_hf.training import TrainArguments, evaluator, train
from rrra_hf.training.evaluator import METRIC, development_evaluator, evaluated_rows
from rrra_hf.training.run_folder import RunFolder
from train_runs import ARGUMENTS, make_collection, outcome

QUICK = replace(ARGUMENTS, stage1_max_steps=4, stage3_max_steps=4)


def history(run: Path, stage: str) -> list[dict[str, float]]:
    return json.loads((run / stage / "history.json").read_text())


class Watch(TrainerCallback):
    """Keeps the steps of a run, and what it logs."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps.append(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.logs.append(dict(kwargs["logs"]))


@pytest.fixture(scope="module")
def watched(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watch]:
    """A run that reports to TensorBoard and evaluates every two steps, and what a callback saw."""
    pytest.importorskip("tensorboard")
    folder, watch = tmp_path_factory.mktemp("watched") / "run", Watch()
    arguments = replace(QUICK, eval_steps=2, report_to="tensorboard")
    train(make_collection(), tiny_bert, folder, arguments, callbacks=[watch])
    return folder, watch


def test_callbacks_see_both_stages(watched: tuple[Path, Watch]) -> None:
    _, watch = watched
    assert watch.steps == [1, 2, 3, 4] * 2
    assert sum(METRIC in log for log in watch.logs) == 4
    assert sum("suspects" in log for log in watch.logs) == 4


def test_tensorboard_has_losses_evaluations_and_suspects(watched: tuple[Path, Watch]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = watched
    for stage, further in (
        ("stage1", set()),
        ("stage3", {"train/suspects", "train/false_negative_probability"}),
    ):
        [file] = (run / stage / "logs").glob("events.out.tfevents.*")
        events = EventAccumulator(str(file)).Reload()
        scalars = set(events.Tags()["scalars"])
        assert {"train/loss", f"eval/{METRIC.removeprefix('eval_')}", *further} <= scalars
        losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
        expected = [(entry["step"], entry["loss"]) for entry in history(run, stage) if "loss" in entry]
        assert losses == [(step, pytest.approx(loss)) for step, loss in expected]


def test_an_evaluation_changes_nothing_in_the_training(
    watched: tuple[Path, Watch], tiny_bert: Path, tmp_path: Path
) -> None:
    run, _ = watched
    train(make_collection(), tiny_bert, tmp_path / "run", QUICK)
    for stage in ("stage1", "stage3"):
        evaluated = history(run, stage)
        assert [entry["step"] for entry in evaluated if METRIC in entry] == [2, 4]
        assert [entry for entry in evaluated if "loss" in entry] == history(tmp_path / "run", stage)
    assert_alike(outcome(run)["stage 1 weights"], outcome(tmp_path / "run")["stage 1 weights"])
    assert "labelled and mined documents" in (run / "training.svg").read_text()
    assert "labelled and mined documents" not in (tmp_path / "run/training.svg").read_text()


def test_a_callback_may_stop_early(tiny_bert: Path, tmp_path: Path) -> None:
    # A learning rate at which nothing gets better.
    arguments = replace(QUICK, eval_steps=1, learning_rate=1e-9)
    train(make_collection(), tiny_bert, tmp_path / "run", arguments, callbacks=[EarlyStoppingCallback(2)])
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["stage1"]["steps"], results["stage3"]["steps"]) == (3, 3)


# ---------------------------------------------------------------- what is evaluated on


def test_evaluation_is_on_labelled_and_mined_documents_of_some_queries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "QUERIES", 2)
    pool = CandidatePool(
        query_ids=["a", "b", "c"],
        document_ids=[str(row) for row in range(9)],
        positives=[np.array([0]), np.array([1, 8]), np.array([2])],
        candidates=np.array([[3, 4], [4, -1], [5, 6]]),
        scores=np.array([[0.5, 0.4], [0.5, -np.inf], [0.5, 0.4]]),
    )
    documents = {(0, 1): [0, 1, 3, 4, 8], (0, 2): [0, 2, 3, 4, 5, 6], (1, 2): [1, 2, 4, 5, 6, 8]}
    seen = set()
    for seed in range(20):
        queries, found = evaluated_rows(pool, seed)
        assert found == documents[tuple(queries)]
        seen.add(tuple(queries))
    assert seen == set(documents)


def test_the_evaluator_takes_texts_and_grades_by_id() -> None:
    development = make_collection(development=True).split("dev")
    made = development_evaluator(development, [1, 3], [11, 13, 20], batch_size=8)
    ids = [development.query_ids[row] for row in (1, 3)]
    assert made.queries_ids == ids
    assert made.queries == [development.query_texts[row] for row in (1, 3)]
    assert made.corpus == [development.document_texts[row] for row in (11, 13, 20)]
    assert made.relevant_docs == {name: set(development.qrels[name]) for name in ids}


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report_to": "paper"}, r"report_to must be none or among .*tensorboard.*, got 'paper'"),
        ({"report_to": ["none"]}, r"report_to must be none or among"),
        ({"eval_steps": 0}, "eval_steps must be at least 1, got 0"),
        ({"save_total_limit": 0}, "save_total_limit must be at least 1, got 0"),
    ],
)
def test_illegal_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainArguments(**changes)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrra_hf.training.reporting.get_available_reporting_integrations", list)
    with pytest.raises(ImportError, match=r"report_to='tensorboard' .* pip install tensorboard"):
        TrainArguments(report_to="tensorboard")


def test_without_matplotlib_a_run_has_no_plot(
    watched: tuple[Path, Watch], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from rrra_hf.training.plot import plot_run

    run, _ = watched
    plot = (run / "training.svg").read_bytes()
    (run / "training.svg").unlink()
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="rrra_hf"):
        patch.setitem(sys.modules, "matplotlib", None)
        plot_run(run)
    assert not (run / "training.svg").exists()
    assert "training.svg is left out: it needs matplotlib" in caplog.text
    plot_run(run)
    assert (run / "training.svg").read_bytes() == plot


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run has no training run to resume"):
        RunFolder(tmp_path / "run", {}, resume=True)
    assert not (tmp_path / "run").exists()
    RunFolder(tmp_path / "run", {})
    RunFolder(tmp_path / "run", {}, resume=True)


def test_a_run_is_resumed_with_other_reports(watched: tuple[Path, Watch], tiny_bert: Path) -> None:
    run, watch = watched
    arguments = replace(QUICK, eval_steps=2, save_total_limit=1)
    train(make_collection(), tiny_bert, run, arguments, callbacks=[watch], resume=True)
    assert len(watch.steps) == 8
