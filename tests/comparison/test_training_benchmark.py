"""The scripts that fill docs/training.md, at small size."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rrra_hf.training.choice import FROZEN, NAMES
from tiny import word_collection

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--steps", "2", "--batch-size", "4", "--methods", "untrained", "in-batch", "drop"]
Run = Callable[..., ModuleType]


@pytest.fixture
def run(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a script in this process, on a collection that it knows the name of, and returns its module."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(script: str, *options: str | Path) -> ModuleType:
        module = importlib.import_module(script)
        if hasattr(module, "ENCODER"):
            monkeypatch.setattr(module, "ENCODER", str(tiny_bert))
        monkeypatch.setattr(sys, "argv", [script, "--collections", "healthver", *map(str, options)])
        module.main()
        return module

    yield run
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a small collection."""
    word_collection(40, dev=30, test=12).save(tmp_path / "data/healthver")
    return tmp_path / "data"


@pytest.mark.slow
def test_strategies_are_compared_and_finished_cells_kept(
    run: Run, data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    kept, page, picture = tmp_path / "kept", tmp_path / "page.md", tmp_path / "gains.svg"
    given = ["--data", data, "--kept", kept, "--cache", tmp_path / "cache", "--model", tiny_bert, *SMALL]
    given += ["--markdown", page, "--picture", picture]
    run("training", *given, "--float32")
    first = page.read_text()
    assert "| healthver | 12 |" in first
    names = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")]
    assert names[-5:] == ["strategy", ":---", "untrained", "in-batch", "drop"]
    assert picture.read_text().startswith("<?xml")
    cells = {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")}
    assert len(cells) == 3
    # The other precision finds the cells, too, and trains nothing.
    run("training", *given)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")} == cells
    assert page.read_text() == first


@pytest.mark.slow
def test_the_comparison_for_a_gpu_runs(
    run: Run, data: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", data, "--kept", tmp_path / "kept", "--model", tiny_bert, *SMALL]
    run("gpu_training", *given, "--float32")
    assert "untrained" in capsys.readouterr().out
    assert len(list((tmp_path / "kept").rglob("strategies/*/*.json"))) == 3


@pytest.mark.slow
def test_a_run_is_compared_with_a_fit(run: Run, data: Path, tmp_path: Path, quick: None) -> None:
    kept = tmp_path / "kept"
    run("train_or_fit", "--data", data, "--kept", kept, "--cache", tmp_path / "cache", "--steps", "1")
    row = json.loads((kept / "healthver.json").read_text())
    assert row["encoder kept"] in NAMES
    assert min(row["encoder"], row["fit"], row["train"]) > 0
    assert row["fit"] == row["train"] or row["encoder kept"] != FROZEN
