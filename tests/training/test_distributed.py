"""Two processes that gather their batches train exactly what one process with the whole batch trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import forked
from alike import assert_alike
from distributed_runs import do_runs, train
from tiny import save_encoder

pytestmark = pytest.mark.slow

JOINT = {"source": "adapter", "adapter_weight": 0.5}
SAME: dict[str, dict[str, Any]] = {
    f"{'cached' if cached else 'plain'}-{mode}": {
        "cached": cached,
        "mode": mode,
        "batch_size": 16,
        "steps": 4,
    }
    for cached in (False, True)
    for mode in ("lora", "full")
}
SAME |= {
    f"{'cached' if cached else 'plain'}-joint": {**SAME["plain-lora"], "cached": cached, "options": JOINT}
    for cached in (False, True)
}
SAME |= {
    f"{name}-accumulated": {**SAME[name], "accumulation": 2, "batch_size": 8, "steps": 3}
    for name in ("plain-lora", "cached-joint")
}
SAME |= {
    f"{name}-checkpointing": {**SAME[name], "checkpointing": True, "steps": 2}
    for name in ("plain-lora", "cached-full")
}
SAME |= {
    f"{'cached' if cached else 'plain'}-{targets}": {
        **SAME["plain-lora"],
        "cached": cached,
        "steps": 2,
        "options": {"targets": targets},
    }
    for cached, targets in ((False, "soft"), (True, "relabel"), (False, "distill"))
}
UNEVEN = {f"{name}-uneven": {**SAME[name], "steps": -1, "rows": 37} for name in ("plain-full", "cached-lora")}
RESUMED: dict[str, dict[str, Any]] = {}
for name in ("plain-lora", "cached-joint"):
    RESUMED[f"{name}-resumed"] = {**SAME[name], "resume": f"{name}/checkpoint-2"}
    SAME[name] |= {"save_steps": 2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without dropout, whose draws would differ between processes."""
    folder = tmp_path_factory.mktemp("distributed") / "encoder"
    return save_encoder(folder, "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture(scope="module")
def on_two(encoder: Path) -> dict[str, Any]:
    """What two processes got in each run."""
    folder = encoder.parent
    runs = {name: {**run, "encoder": str(encoder)} for name, run in (SAME | UNEVEN | RESUMED).items()}
    (folder / "runs.json").write_text(json.dumps(runs))
    done = forked.run(do_runs, folder, processes=2)
    assert done.statuses == [0, 0], done.err
    results = json.loads((folder / "results.json").read_text())
    assert all(result["processes"] == 2 for result in results.values())
    return results


@pytest.mark.parametrize("name", SAME)
def test_two_processes_equal_one(name: str, on_two: dict[str, Any], encoder: Path, tmp_path: Path) -> None:
    alone = train({**SAME[name], "encoder": str(encoder)}, tmp_path)
    together = on_two[name]
    assert len(alone["losses"]) == SAME[name]["steps"]
    assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert together["grad_norms"] == pytest.approx(alone["grad_norms"], abs=1e-4)
    assert len(set(together["checksums"])) == 1


@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_last_batches_are_trained_on(name: str, on_two: dict[str, Any]) -> None:
    result = on_two[name]
    # sentence-transformers drops the last batch where there are several processes.
    assert len(result["losses"]) == 37 // 16
    assert len(result["checksums"]) == 2
    assert len(set(result["checksums"])) == 1


@pytest.mark.parametrize("name", ["plain-lora", "cached-joint"])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, on_two: dict[str, Any]) -> None:
    whole, resumed = on_two[name], on_two[f"{name}-resumed"]
    assert_alike(resumed["losses"], whole["losses"])
    assert_alike(resumed["sums"], whole["sums"])
