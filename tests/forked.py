"""Processes of their own in which the package is imported already: forked from one that has imported it.

A new Python takes seconds to import torch and transformers, before it does anything that is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from launching import WAIT

# Windows has no fork: there they are started anew.
CONTEXT = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    CONTEXT.set_forkserver_preload(["rrra_hf.retrieval", "rrra_hf.training", "rrra_hf.cli"])


class Done(NamedTuple):
    """Exit statuses of processes that have ended, negative where a signal ended one, and all they wrote."""

    statuses: list[int]
    out: str
    err: str


def run(function: Callable[..., object], *arguments: Any, processes: int = 1, **environment: str) -> Done:
    """Call a function in a process of its own, or in several that find each other as under `torchrun`.

    As under `torchrun`, the others are killed when one fails. `MAIN_PID` is the number of the first process.
    """
    if processes > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        environment |= {"ACCELERATE_USE_CPU": "true"}
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "out"), Path(folder, "err")
        started: list[BaseProcess] = []
        for rank in range(processes):
            if processes > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            if started:
                environment |= {"MAIN_PID": str(started[0].pid)}
            child = CONTEXT.Process(target=_call, args=(function, arguments, dict(environment), streams))
            child.start()
            started.append(child)
        statuses = _wait(started)
        out, err = (path.read_text() if path.exists() else "" for path in streams)
    return Done(statuses, out, err)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(started: list[BaseProcess]) -> list[int]:
    running = {child.sentinel: child for child in started}
    while running:
        ended = multiprocessing.connection.wait(list(running), timeout=WAIT)
        for sentinel in ended:
            child = running.pop(sentinel)
            child.join()
        if not ended or any(child.exitcode for child in started if child not in running.values()):
            for child in running.values():
                child.kill()
                child.join()
            running = {}
    return [int(child.exitcode or 0) for child in started]


def _call(
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    streams: tuple[Path, Path],
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
