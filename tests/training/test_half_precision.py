"""An encoder in half precision is trained in float32, and saved in half precision."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from rrra_hf import RRRAModel
from rrra_hf.losses import RRRALoss
from rrra_hf.training import train
from train_runs import ARGUMENTS, keep, make_collection, outcome

# Few steps, so small that half precision loses them.
FULL = replace(ARGUMENTS, mode="full", learning_rate=1e-5, stage1_max_steps=4, stage3_max_steps=2)


def copied(encoder: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Save an encoder again, with its weights in a data type."""
    shutil.copytree(encoder, folder)
    AutoModel.from_pretrained(encoder, dtype=dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def half_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT in bfloat16."""
    return copied(tiny_bert, tmp_path_factory.mktemp("half") / "bert", torch.bfloat16)


@pytest.fixture(scope="module")
def same_in_float32(half_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same numbers in float32."""
    return copied(half_bert, tmp_path_factory.mktemp("single") / "bert", torch.float32)


def dtypes(folder: Path) -> set[torch.dtype]:
    weights = load_file(folder / "model.safetensors")
    return {weight.dtype for name, weight in weights.items() if name.startswith("encoder.")}


@pytest.mark.slow
def test_training_is_that_of_the_same_weights_in_float32(
    half_bert: Path,
    same_in_float32: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights of bfloat16 were trained as they were, and a learning rate of 1e-5 changed none of them."""
    keep(monkeypatch, "stage3")
    with caplog.at_level(logging.INFO, logger="rrra_hf.training"):
        train(make_collection(), half_bert, tmp_path / "half", FULL)
    assert "weights are torch.bfloat16. They are trained in float32" in caplog.text
    train(make_collection(), same_in_float32, tmp_path / "single", FULL)
    half, single = (outcome(tmp_path / name) for name in ("half", "single"))
    assert half["history"] == single["history"]
    for name, weight in half["stage 1 weights"].items():
        assert torch.equal(weight, single["stage 1 weights"][name]), name
    for stage in ("stage1", "stage3"):
        assert half["results"][stage] == single["results"][stage]
    assert dtypes(tmp_path / "half" / "stage1" / "model") == {torch.float32}
    # As it was, to the bit what float32 gives.
    assert dtypes(tmp_path / "half" / "model") == {torch.bfloat16}
    assert dtypes(tmp_path / "single" / "model") == {torch.float32}
    for name, weight in half["weights"].items():
        if name.startswith("encoder."):
            assert torch.equal(weight, single["weights"][name].bfloat16()), name


@pytest.mark.slow
def test_the_saved_data_type_may_be_chosen(half_bert: Path, tmp_path: Path) -> None:
    model = train(make_collection(), half_bert, tmp_path / "run", FULL, dtype=torch.float32)
    assert dtypes(tmp_path / "run" / "model") == {torch.float32}
    assert model.dtype == torch.float32
    assert json.loads((tmp_path / "run/model/config.json").read_text())["dtype"] == "float32"


def test_a_loss_warns_of_weights_in_half_precision(
    half_bert: Path, tiny_bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = RRRAModel.from_encoder(half_bert).to_sentence_transformer()
    RRRALoss(model)
    assert "bfloat16" in caplog.text and "float()" in caplog.text
    caplog.clear()
    RRRALoss(model.float())
    RRRALoss(SentenceTransformer(str(tiny_bert)))
    assert not caplog.text
