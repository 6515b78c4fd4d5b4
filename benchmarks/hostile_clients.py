"""The HTTP service beside hostile clients: latency and errors of the others, and the memory of the service.

A retriever over synthetic documents is saved, and `rrra serve` is started on its folder in a separate
process, as in `serve.py`. Of 64 clients, two thirds send a query, wait for the answer, and pause a second.
In the calm run they are alone. In the other run, the hostile third acts from a third process, each client
from its own address of this machine: garbage, silence, slow heads, slow bodies, requests that are cancelled,
bodies that are too large, and floods of empty queries. Each begins anew a tenth of a second after it was
refused. Silent and slow ones together open more connections than the service allows.

With --apart, the service has half of the cores for itself in both runs, and all clients the others, as if
they were on another machine.

Run: OMP_NUM_THREADS=1 python benchmarks/hostile_clients.py --out results/hostile_clients.json
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from transformers.utils import logging

from common import report
from serve import HEAD, bodies, save_retriever, serving, summary

CLIENTS = 64
HOSTILE = CLIENTS // 3
PAUSE_SECONDS, HOSTILE_PAUSE_SECONDS, WARM_UP_SECONDS = 1.0, 0.1, 5.0
# Connections of each silent or slow client.
CONNECTIONS = 60
# One request in so many is a text that is encoded; the others are embeddings with texts.
TEXT_EVERY = 4
MEGABYTE = 2**20
FLOOD = b'{"queries":[%s]}' % b",".join([b'""'] * 1_300_000)
CANCELLED = b'{"queries": "find files by size"}'

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int, address: str) -> Streams:
    """Connect from an address of this machine."""
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


# -------------------------------------------------------------------- the others


async def client(port: int, address: str, requests: list[bytes], until: float) -> list[tuple[float, bool]]:
    """Send queries with pauses, and return the latency of each and whether it was answered."""
    loop = asyncio.get_running_loop()
    found, number, streams = [], hash(address) % len(requests), None
    while loop.time() < until:
        start, answered = loop.time(), False
        with suppress(OSError, EOFError):
            streams = streams or await connect(port, address)
            answered = await ask(*streams, requests[number % len(requests)])
        found.append((1000 * (loop.time() - start), answered))
        streams, number = streams if answered else None, number + 1
        await asyncio.sleep(PAUSE_SECONDS)
    return found


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bool:
    """Send a request, read the answer, and return whether its status is 200."""
    writer.write(HEAD % len(body) + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    return head.startswith("http/1.1 200")


async def clients(port: int, seconds: float) -> list[tuple[float, bool]]:
    """Run all clients that aren't hostile, begun over one pause."""
    texts, both = bodies("texts", 1000), bodies("both", 1000)
    requests = [(both if number % TEXT_EVERY else texts)[number] for number in range(1000)]
    loop = asyncio.get_running_loop()
    until, running = loop.time() + seconds, []
    for number in range(CLIENTS - HOSTILE):
        running.append(asyncio.create_task(client(port, f"127.0.2.{number + 1}", requests, until)))
        await asyncio.sleep(PAUSE_SECONDS / (CLIENTS - HOSTILE))
    return [answer for answers in await asyncio.gather(*running) for answer in answers]


# -------------------------------------------------------------------- hostile clients


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what isn't HTTP."""
    writer.write(os.urandom(1000) + b"\r\n\r\n")
    await reader.read()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send nothing."""
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends."""
    await drip(reader, writer, b"POST /search HTTP/1.1\r\nX: ")


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body that never ends."""
    await drip(reader, writer, HEAD % 1_000_000)


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beginning: bytes) -> None:
    """Send a byte each second until the service answers or closes the connection."""
    writer.write(beginning)
    while not reader.at_eof():
        writer.write(b"x")
        await writer.drain()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1000), 1)


async def cancelled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask, and don't wait for the answer."""
    writer.write(HEAD % len(CANCELLED) + CANCELLED)
    await writer.drain()


async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body of 10 MB."""
    writer.write(HEAD % (10 * MEGABYTE) + b"x" * 10 * MEGABYTE)
    await reader.read(1000)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send 1.3 million empty queries."""
    writer.write(HEAD % len(FLOOD) + FLOOD)
    await reader.read(1000)


ATTACKS: list[tuple[Callable[..., Awaitable[None]], int]] = [
    (garbage, 1),
    (silent, CONNECTIONS),
    (slow_head, CONNECTIONS),
    (slow_body, CONNECTIONS),
    (cancelled, 1),
    (too_large, 1),
    (flood, 1),
]


async def attack_again(port: int, address: str, attack: Callable[..., Awaitable[None]]) -> None:
    """Attack again and again."""
    while True:
        with suppress(OSError, EOFError):
            reader, writer = await connect(port, address)
            try:
                await attack(reader, writer)
            finally:
                writer.close()
        await asyncio.sleep(HOSTILE_PAUSE_SECONDS)


async def all_hostile(port: int) -> None:
    """Run all hostile clients until the process ends."""
    chosen = [ATTACKS[number % len(ATTACKS)] for number in range(HOSTILE)]
    await asyncio.gather(
        *(
            attack_again(port, f"127.0.1.{number + 1}", attack)
            for number, (attack, connections) in enumerate(chosen)
            for _ in range(connections)
        )
    )


def attack_in_process(port: int, begun: Event) -> None:
    """Run all hostile clients; called in a process of its own."""
    begun.set()
    asyncio.run(all_hostile(port))


@contextmanager
def attacked(port: int) -> Iterator[None]:
    """Attack the service until the end of the block."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=attack_in_process, args=(port, begun), daemon=True)
    process.start()
    try:
        while not begun.wait(timeout=1):
            if not process.is_alive():
                raise RuntimeError("The hostile clients did not start; their error is above.")
        time.sleep(WARM_UP_SECONDS)
        yield
    finally:
        process.kill()
        process.join()


# -------------------------------------------------------------------- measurement


def keep_apart(service: psutil.Process) -> None:
    """Give the service half of the cores, and the others to this process and those that it starts."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in service.threads():
        os.sched_setaffinity(thread.id, cores[: len(cores) // 2])
    os.sched_setaffinity(0, cores[len(cores) // 2 :])


class Run:
    """The answers of a run, which may have several parts, and the most memory that the service had.

    Args:
        port: Port of the service.
        service: Process of the service.
    """

    def __init__(self, port: int, service: psutil.Process):
        self.port, self.service = port, service
        self.answers: list[tuple[float, bool]] = []
        self.seconds, self.peak = 0.0, 0

    async def go_on(self, seconds: float) -> None:
        """Run the clients for some time."""
        watching = asyncio.create_task(self._watch())
        start = time.perf_counter()
        self.answers += await clients(self.port, seconds)
        self.seconds += time.perf_counter() - start
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.service.memory_info().rss)
            await asyncio.sleep(0.1)

    def row(self, name: str) -> dict[str, Any]:
        """Return a row of the table."""
        latencies = np.array([latency for latency, _ in self.answers])
        errors = sum(not answered for _, answered in self.answers)
        return {
            "clients": name, **summary(latencies, self.seconds, errors), "peak MB": self.peak // MEGABYTE
        }  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each run")
    parser.add_argument("--parts", type=int, default=3, help="parts of each run, which take turns")
    parser.add_argument("--apart", action="store_true", help="the service shares no core with clients")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save_retriever(Path(folder) / "retriever", arguments.documents)
        with serving(Path(folder) / "retriever") as port:
            (service,) = psutil.Process().children()
            if arguments.apart:
                keep_apart(service)
            asyncio.run(clients(port, WARM_UP_SECONDS))
            calm, hostile = Run(port, service), Run(port, service)
            for _ in range(arguments.parts):
                asyncio.run(calm.go_on(arguments.seconds / arguments.parts))
                with attacked(port):
                    asyncio.run(hostile.go_on(arguments.seconds / arguments.parts))
    title = f"{CLIENTS - HOSTILE} clients, without and with {HOSTILE} hostile ones, {arguments.seconds:g} s"
    report(title, [calm.row("calm"), hostile.row("hostile")], arguments.out)


if __name__ == "__main__":
    main()
