"""Refusing the launch that was asked for several processes and silently started one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from sentence_transformers.util import get_device_name

# Where launchers say how many processes they started.
SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# `accelerate launch` sets the first one always, and the second one if it was asked for several processes.
LAUNCHER_VARIABLES = ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR")


def check_launch() -> None:
    """Refuse to run alone where `accelerate launch` was asked for several processes.

    `accelerate launch --cpu --num_processes 2 script.py` starts a single process and says nothing: the
    training runs with half the batch that was meant, and no gathered negatives. Whatever was started in
    another way, with several processes or for one, passes at the cost of a look at the environment.

    Raises:
        RuntimeError: If this is the only process of such a launch; the message has the command that starts
            them all.

    Example:
        >>> check_launch()  # started without accelerate
    """
    if not all(name in os.environ for name in LAUNCHER_VARIABLES) or _started_processes() > 1:
        return
    launch = _read_launch()
    if launch is not None and launch.processes > 1:
        raise RuntimeError(
            f"accelerate launch was asked for {launch.processes} processes and started one. "
            f"This command starts them all:\n    {launch.accelerate_command()}\n"
            f"or, without accelerate:\n    {launch.torchrun_command()}\n"
            "For a single process, give --num_processes 1."
        )


def _started_processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    sizes = (os.environ.get(name, "") for name in SIZE_VARIABLES)
    return max((int(size) for size in sizes if size.isdecimal()), default=1)


@dataclass(frozen=True)
class Launch:
    """What an `accelerate launch` was asked for.

    Args:
        processes: Processes on all machines together.
        machines: Number of machines.
        on_cpu: Whether to train on CPUs.
        mixed_precision: `"no"`, `"bf16"`, ...
        program: The script and its arguments, with `-m` or `--no_python` in front if that was given.
        rank: Number of this machine.
        address: Address of the first machine.
        port: Port of the first machine.
    """

    processes: int
    machines: int
    on_cpu: bool
    mixed_precision: str
    program: tuple[str, ...]
    rank: int = 0
    address: str | None = None
    port: int | None = None

    def accelerate_command(self) -> str:
        """Return the `accelerate launch` that starts all processes."""
        place = self._place("--machine_rank", "--main_process_ip", "--main_process_port")
        return self._command(
            *("accelerate", "launch", "--multi_gpu", "--num_processes", str(self.processes)),
            *("--num_machines", str(self.machines), *place),
            *("--mixed_precision", self.mixed_precision, "--dynamo_backend", "no"),
        )

    def torchrun_command(self) -> str:
        """Return the `torchrun` that starts all processes."""
        place = self._place("--node_rank", "--master_addr", "--master_port")
        machines = ("--nnodes", str(self.machines), *place) if place else ()
        return self._command(
            "torchrun", "--nproc_per_node", str(max(1, self.processes // self.machines)), *machines
        )

    def _place(self, *options: str) -> list[str]:
        if self.machines == 1:
            return []
        values = (self.rank, self.address, self.port)
        given = ((option, value) for option, value in zip(options, values, strict=True) if value is not None)
        return [str(word) for pair in given for word in pair]

    def _command(self, *words: str) -> str:
        environment = "ACCELERATE_USE_CPU=true " if self.on_cpu else ""
        return environment + shlex.join([*words, *self.program])


def launch_words(command: Sequence[str]) -> list[str] | None:
    """Return what follows `accelerate launch` in a process's command line, None for other commands.

    Args:
        command: The process's words, with or without an interpreter and its options in front.

    Example:
        >>> launch_words(["python", "/usr/bin/accelerate", "launch", "--cpu", "train.py"])
        ['--cpu', 'train.py']
        >>> launch_words(["python", "train.py", "launch"])
    """
    for position, word in enumerate(command[:4]):
        after = list(command[position + 1 :])
        name = PurePath(word).stem
        if name == "accelerate-launch" or word == "accelerate.commands.launch":
            return after
        if (name == "accelerate" or word == "accelerate.commands.accelerate_cli") and after[:1] == ["launch"]:
            return after[1:]
    return None


def parse_launch(words: Sequence[str], folder: Path) -> Launch | None:
    """Return what a launch was asked for; None for launchers that start processes in ways of their own.

    Args:
        words: What follows `accelerate launch`.
        folder: Folder that it was given in.

    Raises:
        OSError: If its configuration file is gone.
        ValueError: If its configuration file is damaged.
    """
    from accelerate.commands.launch import launch_command_parser

    given = launch_command_parser().parse_args(list(words))
    config = _configuration(given, folder)

    def setting(name: str) -> Any:
        value = getattr(given, name, None)
        return getattr(config, name, None) if value is None else value

    # TPUs have a launcher of their own, and mpirun sets no variables that all versions of it share.
    kind = str(getattr(config, "distributed_type", ""))
    if (
        given.tpu
        or kind.endswith("XLA")
        or setting("mpirun_hostfile")
        or getattr(config, "mpirun_config", None)
    ):
        return None
    machines = setting("num_machines") or 1
    options = ["-m"] if given.module else ["--no_python"] if given.no_python else []
    return Launch(
        processes=max(setting("num_processes") or 1, machines),
        machines=machines,
        on_cpu=bool(given.cpu or getattr(config, "use_cpu", False)) or get_device_name() in ("cpu", "mps"),
        mixed_precision=setting("mixed_precision") or "no",
        program=(*options, given.training_script, *given.training_script_args),
        rank=int(setting("machine_rank") or 0),
        address=setting("main_process_ip"),
        port=setting("main_process_port"),
    )


def _configuration(given: Any, folder: Path) -> Any:
    """Return the configuration file that the launcher read, None if it read none."""
    from accelerate.commands.config import default_config_file, load_config_from_file

    if given.config_file is not None:
        return load_config_from_file(str(folder / given.config_file))
    if Path(default_config_file).is_file() and not given.cpu:
        return load_config_from_file(None)
    return None


def _read_launch() -> Launch | None:
    """Return what the parent process was asked for, None if it is no `accelerate launch`."""
    import psutil  # type: ignore[import-untyped]

    try:
        parent = psutil.Process().parent()
        words = None if parent is None else launch_words(parent.cmdline())
        return None if parent is None or words is None else parse_launch(words, Path(parent.cwd()))
    except (psutil.Error, OSError, ValueError, SystemExit):  # SystemExit: words that argparse doesn't know
        # Without knowing, nobody is refused.
        return None
