"""Processes of their own in which the package is imported already: forked from one that has imported it.

A new Python takes seconds to import torch and transformers, before it does anything that is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

# Seconds that a test waits for a process: only one that hangs takes as long, on the slowest machine too.
WAIT = 1200

# Windows has no fork: there they are started anew.
CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    CONTEXT.set_forkserver_preload(["preloaded"])


class Done(NamedTuple):
    """Exit statuses of processes that have ended, negative where a signal ended one, and all they wrote."""

    statuses: list[int]
    out: str
    err: str


class Process:
    """A process that calls a function, and writes its output into two files."""

    def __init__(self, function: Callable[..., object], *arguments: Any, **environment: str):
        self._folder = TemporaryDirectory()
        self._streams = [Path(self._folder.name, name) for name in ("out", "err")]
        for path in self._streams:
            path.touch()
        self.process = CONTEXT.Process(target=_call, args=(function, arguments, environment, self._streams))
        self.process.start()

    @property
    def out(self) -> str:
        return self._streams[0].read_text()

    @property
    def err(self) -> str:
        return self._streams[1].read_text()

    def wait(self) -> int:
        """Return the exit status."""
        self.process.join(WAIT)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"{self.process} had not ended after {WAIT} seconds: {self.err}")
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def run(function: Callable[..., object], *arguments: Any, processes: int = 1, **environment: str) -> Done:
    """Call a function in a process of its own, or in several that find each other as under `torchrun`.

    As under `torchrun`, the others are killed when one fails. `MAIN_PID` is the number of the first process.
    """
    if processes == 1:
        one = Process(function, *arguments, **environment)
        return Done([one.wait()], one.out, one.err)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true"}
    environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    started: list[Process] = []
    for rank in map(str, range(processes)):
        main = {"MAIN_PID": str(started[0].process.pid)} if started else {}
        each = {"RANK": rank, "LOCAL_RANK": rank, **main}
        started.append(Process(function, *arguments, **environment, **each))
    running = {one.process.sentinel: one for one in started}
    while running:
        ended = [running.pop(sentinel) for sentinel in wait(list(running), WAIT)]
        if not ended or any(one.wait() for one in ended):
            for one in running.values():
                one.kill()
            break
    outputs = ("".join(parts) for parts in zip(*((one.out, one.err) for one in started), strict=True))
    return Done([one.wait() for one in started], *outputs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _call(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    streams: list[Path],
) -> None:
    os.environ.update(environment)
    for stream, path in zip((sys.stdout, sys.stderr), streams, strict=True):
        stream.flush()
        with path.open("a") as file:
            os.dup2(file.fileno(), stream.fileno())
    try:
        function(*arguments)
        status = 0
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Without waiting for threads of libraries, which a failed partner may keep waiting.
    os._exit(status)
