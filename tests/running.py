"""Starts servers in other processes and sends them requests."""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from forked import WAIT, Process
from rrra_hf import RRRAModel
from rrra_hf.cli import main
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import Limits, create_app, listen
from rrra_hf.serving import run as run_server

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line", "passage", "old", "new"]
CORPUS = {
    f"d{number}": {"title": first, "text": f"{second} the {third}", "metadata": {"number": number}}
    for number, (first, second, third) in enumerate(
        (a, b, c) for a in WORDS[:4] for b in WORDS[3:7] for c in WORDS[6:10]
    )
}
QUERIES = [f"how do i {a} {b}" for a in WORDS[:4] for b in WORDS[3:]]
# No server of the tests gives up because the machine is slow, but for the one that is tested for it.
PATIENT = {"body_seconds": WAIT, "work_seconds": WAIT}
SMALL = Limits(
    body_bytes=20_000,
    queries=8,
    documents=5,
    text_length=50,
    top_k=20,
    depth=110,
    waiting=2,
    idle_seconds=WAIT,
    **PATIENT,
)
HASTY = Limits(waiting=2, body_seconds=0.4, work_seconds=5, idle_seconds=1.0)


def save_retriever(encoder: Path, path: Path) -> Path:
    """Save a retriever with an adapter that changes the ranking."""
    torch.manual_seed(0)
    model = RRRAModel.from_encoder(encoder, adapter={"hidden_size": 8, "lambda_": 0.5})
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    Retriever(model).index(CORPUS).save_pretrained(path)
    return path


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class Gate:
    """Lets a test hold back searches that run in another process."""

    def __init__(self, folder: Path):
        self.folder = folder

    def hold(self, query: str) -> None:
        (self.folder / f"{query} has begun").touch()
        wait_for((self.folder / f"{query} may go on").exists)

    def wait_until_begun(self, query: str) -> None:
        wait_for((self.folder / f"{query} has begun").exists)

    def open(self, query: str) -> None:
        (self.folder / f"{query} may go on").touch()


class Slow(Retriever):
    """A retriever whose searches for `slow ...` wait at a gate, and which fails to rank `broken`."""

    gate: Gate

    def search(self, queries: Any, *arguments: Any, **options: Any) -> Any:
        for query in queries:
            if query.startswith("slow"):
                self.gate.hold(query)
        return super().search(queries, *arguments, **options)

    def rank(self, query: Any, documents: Any, *arguments: Any, **options: Any) -> Any:
        if "broken" in documents:
            raise RuntimeError("damaged weights of a secret name")
        return super().rank(query, documents, *arguments, **options)


def serve(folder: Path, gate: Gate, limits: Limits) -> None:
    retriever = Slow.from_pretrained(folder, device="cpu")
    retriever.gate = gate
    with listen("127.0.0.1", 0) as listener:
        sys.stdout.write(f"at http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        run_server(create_app(retriever, limits), listener, limits)


def serve_by_command(folder: Path) -> None:
    limits = [f"--limit={name}={value}" for name, value in {**PATIENT, "top_k": 7}.items()]
    sys.argv = ["rrra", "serve", str(folder), "--port", "0", *limits]
    main()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problems(self) -> list[tuple[str | None, str]]:
        return [(entry["field"], entry["message"]) for entry in self.json["detail"]]


class Server:
    """A server process. Its first line of output has the port."""

    def __init__(self, function: Callable[..., None], *arguments: Any):
        self.process = Process(function, *arguments, CUDA_VISIBLE_DEVICES="")

    def wait_until_it_listens(self) -> Server:
        wait_for(lambda: "\n" in self.process.out or not self.process.process.is_alive())
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.out)
        assert found, (self.process.out, self.process.err)
        self.port = int(found[1])
        return self

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)


class Servers(NamedTuple):
    """One with small limits, one from the command line, and one that soon gives up."""

    small: Server
    usual: Server
    hasty: Server
    gate: Gate


@contextmanager
def started(folder: Path, gate_folder: Path) -> Iterator[Servers]:
    gate = Gate(gate_folder)
    servers = [
        Server(serve, folder, gate, SMALL),
        Server(serve_by_command, folder),
        Server(serve, folder, gate, HASTY),
    ]
    try:
        yield Servers(*(server.wait_until_it_listens() for server in servers), gate)
    finally:
        for server in servers:
            server.process.kill()


def assert_same_hits(found: list[list[dict]], expected: list[list[Any]]) -> None:
    """Check that hits are equal up to rounding, which may swap documents with equal scores."""
    assert len(found) == len(expected)
    for hits, wanted in zip(found, expected, strict=True):
        assert [list(hit) for hit in hits] == [list(hit) for hit in wanted]
        for name in set(*wanted[:1]) - {"corpus_id", "document", "text"}:
            np.testing.assert_allclose(
                [hit[name] for hit in hits], [hit[name] for hit in wanted], rtol=1e-4, atol=1e-4
            )
        scores = np.array([hit["score"] for hit in wanted])
        apart = np.r_[np.inf, -np.diff(scores)] > 1e-3
        for place in np.flatnonzero(apart & np.r_[apart[1:], False]):
            assert hits[place]["corpus_id"] == wanted[place]["corpus_id"]
