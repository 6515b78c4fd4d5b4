"""Starts servers in other processes and sends them requests."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line", "passage", "old", "new"]


CORPUS = {
    f"d{number}": {"title": first, "text": f"{second} the {third}"}
    for number, (first, second, third) in enumerate(
        (a, b, c) for a in WORDS[:4] for b in WORDS[3:7] for c in WORDS[6:10]
    )
}


QUERIES = [f"how do i {a} {b}" for a in WORDS[:4] for b in WORDS[3:]]


# A server where searches for `slow` take a second and ranking the document `broken` fails.
SCRIPT = """
import sys, time
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import Limits, create_app, listen, run

class Slow(Retriever):
    def search(self, queries, *arguments, **options):
        if any("slow" in query for query in queries):
            time.sleep(1.0)
        return super().search(queries, *arguments, **options)

    def rank(self, query, documents, *arguments):
        if "broken" in documents:
            raise RuntimeError("damaged weights of a secret name")
        return super().rank(query, documents, *arguments)

limits = Limits(body_bytes=20_000, queries=8, documents=5, text_length=50, top_k=20, depth=110, waiting=2,
                body_seconds=0.4, work_seconds=1.6, idle_seconds=1)
app = create_app(Slow.from_pretrained(sys.argv[1], device="cpu"), limits)
with listen("127.0.0.1", 0) as listener:
    print(f"at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    run(app, listener, limits)
"""


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

    def __init__(self, *command: object):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_it_listens(self) -> Server:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, (line, self.process.communicate()[1])
        self.port = int(found[1])
        return self

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)


@contextmanager
def started(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Start a server with small limits and slow queries, and one from the command line."""
    script = folder.parent / "server.py"
    script.write_text(SCRIPT)
    command = ("from rrra_hf.cli import main; main()", "serve", folder, "--port", 0, "--limit", "top_k=7")
    both = Server(script, folder), Server("-c", *command)
    try:
        yield both[0].wait_until_it_listens(), both[1].wait_until_it_listens()
    finally:
        for server in both:
            server.process.kill()
            server.process.communicate()


def assert_same_hits(found: list[list[dict]], expected: list[list[Any]]) -> None:
    """Check that hits are equal up to rounding, which may swap documents with equal scores."""
    assert len(found) == len(expected)
    for hits, wanted in zip(found, expected, strict=True):
        assert [list(hit) for hit in hits] == [list(hit) for hit in wanted]
        for name in set(wanted[0]) - {"corpus_id", "document", "text"}:
            np.testing.assert_allclose(
                [hit[name] for hit in hits], [hit[name] for hit in wanted], rtol=1e-4, atol=1e-4
            )
        scores = np.array([hit["score"] for hit in wanted])
        apart = np.r_[np.inf, -np.diff(scores)] > 1e-3
        for place in np.flatnonzero(apart & np.r_[apart[1:], False]):
            assert hits[place]["corpus_id"] == wanted[place]["corpus_id"]
