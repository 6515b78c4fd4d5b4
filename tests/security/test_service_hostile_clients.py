"""Other clients get all their answers beside hostile ones, from a service that doesn't grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forked import WAIT

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hostile_clients.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no more than one loopback address")
def test_the_others_see_no_error(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--documents", "500", "--seconds", "6", "--parts", "1", "--out", str(out)]
    subprocess.run([sys.executable, str(SCRIPT), *options], check=True, timeout=WAIT, capture_output=True)
    calm, hostile = json.loads(out.read_text())["rows"]
    assert (calm["errors"], hostile["errors"]) == (0, 0)
    assert hostile["requests"] > calm["requests"] / 2
    assert hostile["peak MB"] < calm["peak MB"] + 500
