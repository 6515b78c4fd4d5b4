"""Fitted models and their cards, for tests of cards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import rrra
from rrra_hf.fitting import FitArguments, ResidualFitArguments
from rrra_hf.hub import model_card
from rrra_hf.hub.layout import CARD_NAME, EVALUATION_NAME

PNG = b"\x89PNG\r\n\x1a\n"


# What is measured, without and with linear maps, and of a head of either kind.
PRESETS = {
    "residual": ResidualFitArguments(hidden_size=8, depth=10, max_steps=20, eval_steps=10),
    "features": FitArguments(depth=10),
}


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def config_of(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    return config if config["model_type"] == "rrra_adapter" else config["adapter"]


def forget(folder: Path, *names: str) -> None:
    """Delete what newer releases record of a fit."""
    config = json.loads((folder / "config.json").read_text())
    for name in names or list(config["adapter"]["fit"]):
        del config["adapter"]["fit"][name]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / EVALUATION_NAME).unlink(missing_ok=True)


def check_bins(bins: dict[str, list[float]], pairs: int, relevant: int) -> None:
    """Bins are tenths, each mean in its own, and hold what there is."""
    assert sum(bins["pairs"]) == pairs
    assert np.dot(bins["share"], bins["pairs"]) == pytest.approx(relevant)
    tenths = np.floor(np.multiply(bins["probability"], 10))
    assert (np.diff(tenths) > 0).all()


def card_of(folder: Path, repo_id: str | None = None) -> str:
    return model_card(folder, repo_id).text


def written(folder: Path) -> str:
    """Write the card of a folder, as the command does, and return its text."""
    outcome = rrra("card", folder)
    assert outcome.status == 0, outcome.err
    return (folder / CARD_NAME).read_text()


def run_snippets(card: str, place: Path, monkeypatch: pytest.MonkeyPatch, **replaced: str) -> list[dict]:
    """Run each Python snippet of a card where the folder is found by its name."""
    monkeypatch.chdir(place)
    namespaces = []
    for snippet in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        for old, new in replaced.items():
            snippet = snippet.replace(old.replace("_", "-"), new)
        namespaces.append({})
        exec(snippet, namespaces[-1])
    return namespaces
