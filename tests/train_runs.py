"""Runs of `train` at small size, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from rrra_hf.data import Collection
from rrra_hf.fitting import ResidualFitArguments
from rrra_hf.training import TrainArguments
from rrra_hf.training.choice import Choice, choose_encoder
from tiny import word_collection

FIT = ResidualFitArguments(max_steps=20, eval_steps=10, depth=10, hidden_size=16, batch_size=16)
ARGUMENTS = TrainArguments(
    batch_size=8,
    stage1_epochs=2,
    stage3_epochs=2,
    learning_rate=1e-3,
    save_steps=4,
    folds=2,
    fit=FIT,
)


def make_collection(development: bool = False) -> Collection:
    return word_collection(40, train=50, dev=10) if development else word_collection(40, train=60)


def keep(patch: pytest.MonkeyPatch, encoder: str) -> None:
    """Let runs keep an encoder, whatever the comparison finds."""

    def choose(quality: dict[str, np.ndarray]) -> Choice:
        return choose_encoder(quality)._replace(encoder=encoder)

    patch.setattr("rrra_hf.training.stages.choose_encoder", choose)


def without_seconds(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: without_seconds(value) for name, value in results.items() if name != "seconds"}
    return results


def outcome(run: Path) -> dict[str, Any]:
    """Everything that two equal runs have in common."""
    return {
        "results": without_seconds(json.loads((run / "results.json").read_text())),
        "history": [json.loads((run / stage / "history.json").read_text()) for stage in ("stage1", "stage3")],
        "weights": load_file(run / "model/model.safetensors"),
        "config": json.loads((run / "model/config.json").read_text()),
        "stage 1 weights": load_file(run / "stage1/model/model.safetensors"),
    }
