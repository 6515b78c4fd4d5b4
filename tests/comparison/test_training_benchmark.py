"""The scripts that fill docs/training.md, at small size."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrra_hf.training.choice import FROZEN, NAMES
from tiny import word_collection

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--steps", "2", "--batch-size", "4", "--methods", "untrained", "in-batch", "drop"]
Run = Callable[..., None]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the scripts be imported."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def run(data: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script in this process, on a collection that it knows the name of."""

    def run(script: str, *options: str | Path) -> None:
        module = importlib.import_module(script)
        given = ["--data", data, "--model", tiny_bert, "--collections", "healthver", *options]
        monkeypatch.setattr(sys, "argv", [script, *map(str, given)])
        module.main()

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a small collection."""
    word_collection(40, dev=30, test=12).save(tmp_path / "data/healthver")
    return tmp_path / "data"


@pytest.mark.slow
def test_strategies_are_compared_and_finished_cells_kept(run: Run, tmp_path: Path) -> None:
    kept, page, picture = tmp_path / "kept", tmp_path / "page.md", tmp_path / "gains.svg"
    given = ["--kept", kept, "--cache", tmp_path / "cache", *SMALL, "--train", "full", "lora"]
    given += ["--markdown", page, "--picture", picture]
    run("training", *given, "--float32")
    first = page.read_text()
    assert "| healthver | 12 |" in first
    names = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")]
    assert names[-10:] == 2 * ["strategy", ":---", "untrained", "in-batch", "drop"]
    assert re.findall(r"## nDCG@10, (.+)", first) == ["all weights", "LoRA"]
    assert picture.read_text().startswith("<?xml")
    cells = {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")}
    assert len(cells) == 6
    # The other precision finds the cells, too, and trains nothing.
    run("training", *given)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.json")} == cells
    assert page.read_text() == first


def test_a_strategy_is_compared_where_both_were_run() -> None:
    def table(collection: str, reference: str, **differences: float) -> dict[str, Any]:
        rows = [{"method": reference, "nDCG@10": {"all": 0.5}, "difference": {"all": None}}]
        for method, mean in differences.items():
            difference = {"all": {"mean": mean, "p (Holm)": 0.5}}
            rows.append({"method": method, "nDCG@10": {"all": 0.6}, "difference": difference})
        return {"collection": collection, "reference": reference, "rows": rows}

    page = importlib.import_module("training_page")
    tables = page.Tables(
        [table("a", "in-batch", drop=0.02, gist=0.03), table("b", "in-batch", drop=0.06)],
        # On one of them, drop was not run on all seeds that gist was.
        [table("a", "drop", **{"in-batch": -0.02, "gist": 0.025}), table("b", "drop", **{"in-batch": -0.06})],
    )
    rows = {row["strategy"]: row for row in page.strategy_rows(tables, {"drop": 9.4})}
    found = {name: (row["to in-batch"], row["to drop"], row["seconds"]) for name, row in rows.items()}
    assert found == {
        "in-batch": ("", "-0.040", ""),
        "drop": ("+0.040", "", "9"),
        "gist": ("+0.030", "+0.025", ""),
    }
    assert (rows["gist"]["a"], rows["gist"]["b"]) == ("0.530", "")


def test_without_a_finished_cell_there_is_no_page(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(SystemExit, match="no finished cell"):
        run("training", "--kept", tmp_path, "--cache", tmp_path / "cache", "--finished", "--markdown", page)
    assert not page.exists()


@pytest.mark.slow
def test_the_comparison_for_a_gpu_runs(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("gpu_training", "--kept", tmp_path / "kept", *SMALL, "--float32")
    assert "untrained" in capsys.readouterr().out
    assert len(list((tmp_path / "kept").rglob("strategies/*/*.json"))) == 3


@pytest.mark.slow
def test_a_run_is_compared_with_a_fit(run: Run, tmp_path: Path, quick: None) -> None:
    kept = tmp_path / "kept"
    run("train_or_fit", "--kept", kept, "--cache", tmp_path / "cache", "--steps", "1")
    row = json.loads((kept / "healthver.json").read_text())
    assert row["encoder kept"] in NAMES
    assert min(row["encoder"], row["fit"], row["train"]) > 0
    assert row["fit"] == row["train"] or row["encoder kept"] != FROZEN
