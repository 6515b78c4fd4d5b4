"""A launch that was asked for several processes and started one is refused; nothing else is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rrra_hf.training import check_launch, launch
from rrra_hf.training.launch import Launch, launch_words, parse_launch

BIN = Path(sys.executable).parent
SCRIPT = """
import os, subprocess, sys
from rrra_hf.training.launch import check_launch
if "--child" in sys.argv:
    sys.exit(subprocess.run([sys.executable, __file__, "is a child"]).returncode)
check_launch()
sys.stdout.write(f"process {os.environ.get('RANK')} of {sys.argv[1:]}\\n")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my script.py"
    path.write_text(SCRIPT)
    return path


def run(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with this environment's programs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


# ---------------------------------------------------------------- real launches


@pytest.mark.slow
def test_the_silent_single_process_is_refused_with_commands_that_start_two(script: Path) -> None:
    single = run(f"accelerate launch --cpu --num_processes 2 {shlex.quote(str(script))} --lr 1e-3 'a b'")
    assert single.returncode != 0
    assert single.stdout == ""
    assert "RuntimeError: accelerate launch was asked for 2 processes and started one." in single.stderr
    commands = re.findall(r"^    (ACCELERATE_USE_CPU=true .*)$", single.stderr, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["accelerate", "torchrun"]
    for command, port in zip(commands, ("--main_process_port 0", "--standalone"), strict=True):
        # Beside other tests, on a free port.
        several = run(
            command.replace("_processes 2", f"_processes 2 {port}").replace("torchrun", f"torchrun {port}")
        )
        assert several.returncode == 0, several.stderr
        assert sorted(several.stdout.splitlines()) == [
            f"process {rank} of ['--lr', '1e-3', 'a b']" for rank in range(2)
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("accelerate launch --cpu --num_processes 1 {} given", id="one process"),
        pytest.param("accelerate launch --cpu --num_processes 2 {} --child", id="script of a script"),
        pytest.param("MASTER_ADDR=host ACCELERATE_MIXED_PRECISION=no python {} given", id="plain"),
    ],
)
def test_other_launches_pass(script: Path, command: str) -> None:
    passed = run(command.format(shlex.quote(str(script))))
    assert passed.returncode == 0, passed.stderr
    assert passed.stdout.startswith("process None of ")


# ---------------------------------------------------------------- whom it asks


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> list[Launch | None]:
    """What the parent process was asked for, in the environment that accelerate gives a single process."""
    asked: list[Launch | None] = [Launch(2, 1, True, "no", ("train.py",))]
    for name in launch.SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in launch.LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, "no")
    monkeypatch.setattr(launch, "_read_launch", lambda: asked[0])
    return asked


def test_only_a_launch_for_several_is_refused(parent: list[Launch | None]) -> None:
    with pytest.raises(RuntimeError, match="asked for 2 processes and started one"):
        check_launch()
    for other in (None, Launch(1, 1, True, "no", ("train.py",))):
        parent[0] = other
        check_launch()


@pytest.mark.parametrize("name", launch.SIZE_VARIABLES)
def test_several_started_processes_pass(
    parent: list[Launch | None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "2")
    check_launch()
    monkeypatch.setenv(name, "1")
    with pytest.raises(RuntimeError):
        check_launch()


def test_a_process_group_made_by_hand_passes(
    parent: list[Launch | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    check_launch()


@pytest.mark.parametrize("name", launch.LAUNCHER_VARIABLES)
def test_without_traces_of_a_launcher_no_process_is_looked_at(
    parent: list[Launch | None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    monkeypatch.setattr(launch, "_read_launch", lambda: pytest.fail("looked at the parent process"))
    check_launch()


# ---------------------------------------------------------------- what was asked for


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python /usr/bin/accelerate launch --cpu train.py", ["--cpu", "train.py"]),
        ("/usr/bin/accelerate-launch --cpu train.py", ["--cpu", "train.py"]),
        ("python -X dev /usr/bin/accelerate launch train.py", ["train.py"]),
        ("python -m accelerate.commands.launch train.py", ["train.py"]),
        ("python -m accelerate.commands.accelerate_cli launch train.py", ["train.py"]),
        ("python /usr/bin/accelerate config", None),
        ("python train.py --num_processes 2 --accelerate launch", None),
        ("bash -c 'accelerate launch train.py'", None),
        ("", None),
    ],
)
def test_a_launch_is_known_by_its_words(command: str, words: list[str] | None) -> None:
    assert launch_words(shlex.split(command)) == words


@pytest.fixture(autouse=True)
def no_default_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Path of the default configuration of accelerate, which isn't there."""
    import accelerate.commands.config as package
    import accelerate.commands.config.config_args as module

    path = tmp_path / "default_config.yaml"
    for place in (package, module):
        monkeypatch.setattr(place, "default_config_file", str(path))
    return path


def parsed(command: str, folder: Path = Path("/")) -> Launch:
    result = parse_launch(shlex.split(command), folder)
    assert result is not None
    return result


def test_commands_keep_script_arguments_and_precision() -> None:
    asked = parsed("--cpu --num-processes 4 --mixed_precision bf16 -m my.module --name 'a b'")
    assert asked == Launch(4, 1, True, "bf16", ("-m", "my.module", "--name", "a b"))
    assert asked.accelerate_command() == (
        "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 4 --num_machines 1 "
        "--mixed_precision bf16 --dynamo_backend no -m my.module --name 'a b'"
    )
    assert asked.torchrun_command() == (
        "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 4 -m my.module --name 'a b'"
    )


def test_commands_for_several_machines_name_the_first() -> None:
    options = "--machine_rank 1 --main_process_ip 10.0.0.1 --main_process_port 5000"
    asked = parsed(f"--cpu --num_processes 4 --num_machines 2 {options} train.py")
    assert f"--num_processes 4 --num_machines 2 {options} --mixed" in asked.accelerate_command()
    assert asked.torchrun_command().endswith(
        "torchrun --nproc_per_node 2 --nnodes 2 --node_rank 1 "
        "--master_addr 10.0.0.1 --master_port 5000 train.py"
    )


@pytest.mark.parametrize(
    ("command", "processes"),
    [("--cpu train.py", 1), ("--num_processes 1 train.py", 1), ("train.py --num_processes 2", 1)],
)
def test_one_process_is_one_process(command: str, processes: int) -> None:
    assert parsed(command).processes == processes


@pytest.mark.parametrize("machine", ["cpu", "mps", "cuda"])
def test_accelerators_are_used_where_there_are_some(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(launch, "get_device_name", lambda: machine)
    assert parsed("--num_processes 2 train.py").on_cpu == (machine != "cuda")
    assert parsed("--cpu --num_processes 2 train.py").on_cpu


def configuration(**changes: Any) -> str:
    return yaml.safe_dump(
        {"distributed_type": "NO", "num_processes": 3, "mixed_precision": "fp16", **changes}
    )


def test_configuration_files_count_where_the_command_says_nothing(
    no_default_configuration: Path, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(configuration(num_processes=2, use_cpu=True))
    no_default_configuration.write_text(configuration())
    named = parsed("--config_file two.yaml train.py", tmp_path)
    assert (named.processes, named.mixed_precision, named.on_cpu) == (2, "fp16", True)
    assert parsed(f"--config_file {tmp_path}/two.yaml --num_processes 1 train.py").processes == 1
    assert parsed("train.py").processes == 3
    # As the launcher itself does, which doesn't read the default one for --cpu.
    assert parsed("--cpu train.py").processes == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"distributed_type": "XLA"},
        {"distributed_type": "MULTI_CPU", "mpirun_config": {"mpirun_hostfile": "hosts"}},
    ],
)
def test_launchers_of_their_own_are_left_alone(
    no_default_configuration: Path, changes: dict[str, Any]
) -> None:
    no_default_configuration.write_text(configuration(**changes))
    assert parse_launch(["train.py"], Path("/")) is None


@pytest.mark.parametrize("words", ["--tpu train.py", "--cpu --mpirun_hostfile hosts train.py"])
def test_options_of_such_launchers_are_left_alone(words: str) -> None:
    assert parse_launch(["--num_processes", "2", *words.split()], Path("/")) is None


def test_who_can_not_be_known_is_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import psutil

    class Parent:
        def __init__(self, words: list[str]):
            self.words = words

        def parent(self) -> Parent:
            return self

        def cmdline(self) -> list[str]:
            if not self.words:
                raise psutil.AccessDenied()
            return self.words

        def cwd(self) -> str:
            return str(tmp_path)

    def read(command: str) -> Launch | None:
        monkeypatch.setattr(psutil, "Process", lambda: Parent(shlex.split(command)))
        return launch._read_launch()

    known = read("python accelerate launch --cpu --num_processes 2 train.py")
    assert known is not None
    assert known.processes == 2
    (tmp_path / "damaged.yaml").write_text(configuration(no_such_setting=1))
    for command in (
        "",
        "python train.py",
        "python accelerate launch --config_file gone.yaml train.py",
        "python accelerate launch --config_file damaged.yaml train.py",
        "python accelerate launch --num_processes many train.py",
    ):
        assert read(command) is None
