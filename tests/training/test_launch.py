"""A launch that was asked for several processes and started one is refused."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from forked import WAIT
from rrra_hf.training import launch
from rrra_hf.training.launch import check_launch

BIN = Path(sys.executable).parent
# The check by itself, without the package around it, which takes seconds to import.
SCRIPT = f"""
import os, runpy, sys
runpy.run_path({launch.__file__!r})["check_launch"]()
sys.stdout.write(f"process {{os.environ.get('RANK')}}\\n")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my script.py"
    path.write_text(SCRIPT)
    return path


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with this environment's programs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, timeout=WAIT, check=False
    )


@pytest.mark.slow
def test_the_silent_single_process_is_refused(script: Path) -> None:
    single = run(f"accelerate launch --cpu --num_processes 2 {shlex.quote(str(script))}")
    assert single.returncode != 0
    assert single.stdout == ""
    assert "asked for several processes and started one. To start all of them, use" in single.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("accelerate launch --cpu --num_processes 1 {}", id="one process"),
        pytest.param("MASTER_ADDR=host python {}", id="plain"),
    ],
)
def test_a_single_process_passes(script: Path, command: str) -> None:
    passed = run(command.format(shlex.quote(str(script))))
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout == "process None\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 --num_machines 1 "
            "--mixed_precision no --dynamo_backend no --main_process_port 0 {}",
            id="accelerate",
        ),
        pytest.param("ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 {}", id="torchrun"),
    ],
)
def test_the_launches_that_the_message_names_start_two(script: Path, command: str) -> None:
    several = run(command.format(shlex.quote(str(script))))
    assert several.returncode == 0, several.stderr
    assert sorted(several.stdout.splitlines()) == ["process 0", "process 1"]


@pytest.fixture
def asked_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that accelerate gives the single process."""
    for name in launch.SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in launch.LAUNCH_VARIABLES:
        monkeypatch.setenv(name, "no")


@pytest.mark.usefixtures("asked_for_several")
@pytest.mark.parametrize("name", launch.SIZE_VARIABLES)
def test_processes_of_a_launcher_pass(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(RuntimeError, match="use --num_processes 1 and unset MASTER_ADDR"):
        check_launch()
    monkeypatch.setenv(name, "2")
    check_launch()


@pytest.mark.usefixtures("asked_for_several")
@pytest.mark.parametrize("name", launch.LAUNCH_VARIABLES)
def test_without_the_variables_of_such_a_launch_a_process_passes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    check_launch()
