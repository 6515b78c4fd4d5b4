"""What cannot be trained on, or with, is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rrra_hf import RRRAModel
from rrra_hf.data import Collection
from rrra_hf.fitting import ResidualFitArguments
from rrra_hf.training import TrainArguments, train
from rrra_hf.training.contrastive import newest_complete_checkpoint
from rrra_hf.training.train_data import pair_dataset, with_development
from train_runs import ARGUMENTS, make_collection

# ---------------------------------------------------------------- data


def test_development_queries_are_those_of_dev_or_held_out() -> None:
    given = with_development(make_collection(development=True), 0.5, seed=0)
    assert len(given.split("dev").query_ids) == 10
    held_out = with_development(make_collection(), 0.25, seed=0)
    train_ids, dev_ids = (set(held_out.split(name).query_ids) for name in ("train", "dev"))
    assert (len(train_ids), len(dev_ids)) == (45, 15)
    assert not train_ids & dev_ids
    again = with_development(make_collection(), 0.25, seed=0)
    other = with_development(make_collection(), 0.25, seed=1)
    assert set(again.split("dev").query_ids) == dev_ids != set(other.split("dev").query_ids)


def test_an_encoder_with_linear_maps_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"query_map": True})
    model.save_pretrained(tmp_path / "plain", form="plain")
    with pytest.raises(ValueError, match=r"encoder must have no linear maps, .*plain has some"):
        train(make_collection(), tmp_path / "plain", tmp_path / "run", ARGUMENTS)


def test_collections_that_cannot_be_trained_on_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    collection = make_collection()
    test_only = replace(collection, qrels_by_split={"test": collection.qrels})
    with pytest.raises(ValueError, match="no split 'train'"):
        train(test_only, tiny_bert, tmp_path / "run", ARGUMENTS)
    two = dict(list(collection.qrels.items())[:2])
    with pytest.raises(ValueError, match="at least three queries, tiny has 2"):
        train(replace(collection, qrels_by_split={"train": two}), tiny_bert, tmp_path / "run", ARGUMENTS)
    with pytest.raises(OSError, match="no-such-model"):
        train(collection, tmp_path / "no-such-model", tmp_path / "run", ARGUMENTS)
    assert not (tmp_path / "run").exists()


def test_pairs_are_all_labels() -> None:
    collection = Collection(
        name="small",
        corpus=Dataset.from_dict(
            {"id": ["a", "b", "c"], "title": ["", "", ""], "text": ["apple", "bean", "corn"]}
        ),
        queries=Dataset.from_dict({"id": ["q0", "q1"], "text": ["fruit", "all"]}),
        qrels_by_split={"train": {"q0": {"a": 1}, "q1": {"a": 1, "b": 2, "c": 1}}},
    )
    rows = list(pair_dataset(collection))
    assert [(row["query"], row["positive"]) for row in rows] == [
        ("fruit", "apple"),
        ("all", "apple"),
        ("all", "bean"),
        ("all", "corn"),
    ]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "qlora"}, "mode must be one of lora, full, got 'qlora'"),
        ({"mode": "full", "lora": {"r": 2}}, "lora needs mode='lora', got mode='full'"),
        ({"stage1_epochs": 0}, "stage1_epochs must be at least 1, got 0"),
        ({"stage3_max_steps": 0}, "stage3_max_steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"gamma": -1.0}, "gamma must not be negative, got -1.0"),
        (
            {"gamma": 0.0, "drop_above_positive": True, "targets": "weights"},
            "drop_above_positive needs gamma above 0, got 0",
        ),
        ({"gamma": float("nan")}, "gamma must not be negative, got nan"),
        ({"gamma": 2.0}, "gamma needs targets='weights', got 2.0 with 'drop'"),
        ({"targets": "hard"}, "targets must be one of weights, drop, .* got 'hard'"),
        ({"targets": "distill", "fit": ResidualFitArguments()}, "needs an adapter that ranks candidates"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"development_fraction": 0.0}, r"development_fraction must lie between 0 and 1, got 0\.0"),
        ({"development_fraction": 1.0}, r"development_fraction must lie between 0 and 1, got 1\.0"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16 exclude each other"),
        ({"refresh_steps": 0}, "refresh_steps must be at least 1, got 0"),
        ({"refresh_steps": 1, "refresh_epochs": 1}, "refresh_steps and refresh_epochs exclude each other"),
    ],
)
def test_illegal_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainArguments(**changes)


def test_the_learning_rate_depends_on_the_mode_by_default() -> None:
    assert TrainArguments().peak_learning_rate == 2e-4
    assert TrainArguments(mode="full").peak_learning_rate == 2e-5
    assert TrainArguments(learning_rate=1e-3).peak_learning_rate == 1e-3


def test_settings_of_the_fit_are_recorded_with_their_kind() -> None:
    assert TrainArguments().to_dict()["fit"]["kind"] == "features"
    assert TrainArguments(fit=ResidualFitArguments()).to_dict()["fit"]["kind"] == "residual"


# ---------------------------------------------------------------- interruptions


def test_incomplete_checkpoints_are_deleted_and_the_newest_complete_one_found(tmp_path: Path) -> None:
    assert newest_complete_checkpoint(tmp_path) is None
    names = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "modules.json"]
    for step in (8, 12, 16, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in [*names, "trainer_state.json"]:
            (tmp_path / f"checkpoint-{step}" / name).write_text("{}")
    (tmp_path / "checkpoint-16/trainer_state.json").write_text('{"epoch": ')
    (tmp_path / "checkpoint-100/optimizer.pt").unlink()
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-8"]
