"""Requests that are made to cost much are refused at once, in a few words, and the service goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forked import WAIT
from rrra_hf.serving import Limits
from running import Gate, Server, save_retriever, serve, wait_for

LONG = "x" * 3_000_000
MAX_ANSWER = 1000
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def server(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_retriever(tiny_bert, tmp_path_factory.mktemp("attacked") / "retriever")
    limits = Limits(body_seconds=WAIT, work_seconds=WAIT)
    running = Server(serve, folder, Gate(folder), limits).wait_until_it_listens()
    yield running
    running.process.kill()
    assert "Traceback" not in running.process.err


def items(item: str, size: int = 4_000_000) -> str:
    """Return a JSON list of as many equal items as fit."""
    return "[" + ",".join([item] * (size // (len(item) + 1))) + "]"


def fields(count: int) -> str:
    return ",".join(f'"field {number}":1' for number in range(count))


ROW = json.dumps(["x"] * 32)
FLOODS = {
    "empty queries": (
        "/search",
        f'{{"queries":{items(chr(34) * 2)}}}',
        "body",
        "at most 3212 values, got 1333333",
    ),
    "lists for queries": ("/search", f'{{"queries":{items("[]")}}}', "body", "at most 3212 values"),
    "queries of another type": ("/search", f'{{"queries":{items("1")}}}', "body", "at most 3212 values"),
    "empty documents": (
        "/rank",
        f'{{"query":"a","documents":{items(chr(34) * 2)}}}',
        "body",
        "at most 3212 values",
    ),
    "objects to rerank": ("/v1/rerank", f'{{"query":"a","documents":{items("{}")}}}', "body", "at most 3212"),
    "fields of an object to rerank": (
        "/v1/rerank",
        f'{{"query":"a","documents":[{{{fields(3000)}}}]}}',
        "documents.0",
        "the field text only",
    ),
    "inputs to encode": (
        "/v1/embeddings",
        f'{{"input":{items(chr(34) * 2)}}}',
        "body",
        "at most 3212 values",
    ),
    "many inputs to encode": ("/v1/embeddings", f'{{"input":{items("0", 5000)}}}', "input", "at most 1000"),
    "a long name of a model": ("/v1/embeddings", f'{{"input":"a","model":"{LONG}"}}', "model", "at most 200"),
    "a long user": ("/v1/embeddings", f'{{"input":"a","user":"{LONG}"}}', "user", "at most 200"),
    "embeddings": (
        "/search",
        f'{{"query_embeddings":{items("[1]")}}}',
        "body",
        "at most 3212 values",
    ),
    "one embedding": (
        "/search",
        f'{{"query_embeddings":[{items("1")}]}}',
        "body",
        "at most 3212 values, got 2000000",
    ),
    "many queries": ("/search", f'{{"queries":{items("0", 10_000)}}}', "queries", "at most 64 queries"),
    "embeddings of texts": (
        "/search",
        f'{{"query_embeddings":[{",".join([ROW] * 64)}]}}',
        "query_embeddings.0.0",
        "valid number",
    ),
    "unknown fields": (
        "/search",
        f'{{"queries":"a",{fields(200_000)}}}',
        "body",
        "at most 3212 values, got 200001",
    ),
    "a few unknown fields": ("/search", f'{{"queries":"a",{fields(100)}}}', "body", "at most 9 fields"),
    "a long name": ("/search", f'{{"queries":"a","{LONG}":1}}', "x" * 200 + " …", "not permitted"),
    "a long value": ("/search", f'{{"queries":"a","mode":"{LONG}"}}', "mode", "'hybrid' or 'dense'"),
    "a long query": (
        "/search",
        f'{{"queries":"{LONG}"}}',
        "queries.0",
        "at most 20000 characters",
    ),
    "a long number": ("/search", f'{{"queries":"a","top_k":{"9" * 4000}}}', "top_k", "at most 1000, got 999"),
    "documents to return": (
        "/search",
        f'{{"queries":{json.dumps(["a"] * 64)},"top_k":1000,"return_documents":true}}',
        "return_documents",
        "at most 5000 documents, got 64 times 1000",
    ),
}
BROKEN = {
    "deep lists": "[" * 1_000_000,
    "deep objects": '{"queries":' * 100_000,
    "a number of many digits": '{"queries":"a","top_k":' + "9" * 5000 + "}",
    "no end": '{"queries":"' + LONG,
    "bytes": b"\xff" * 1_000_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_are_refused_in_a_few_words(server: Server, name: str) -> None:
    path, body, field, message = FLOODS[name]
    answer = server.post(path, body.encode())
    assert (answer.status, answer.problems[0][0]) == (422, field)
    assert message in answer.problems[0][1]
    assert len(answer.body) <= MAX_ANSWER


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bodies_are_refused_in_a_few_words(server: Server, name: str) -> None:
    body = BROKEN[name]
    answer = server.post("/search", body if isinstance(body, bytes) else body.encode())
    assert answer.status == 400
    assert answer.problems[0][1].startswith("The body isn't valid JSON: ")
    assert len(answer.body) <= MAX_ANSWER


def test_floods_leave_the_service_reachable_and_its_memory_as_it_was(server: Server) -> None:
    process = psutil.Process(server.process.process.pid)
    before = process.memory_info().rss
    peak, waits = [before], [0.0]

    def flood() -> None:
        for name in ("empty queries", "unknown fields"):
            path, body, *_ = FLOODS[name]
            server.post(path, body.encode())

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        begun = time.monotonic()
        assert server.ask("GET", "/healthz").status == 200
        waits.append(time.monotonic() - begun)
        peak.append(process.memory_info().rss)
    # One of them took 2.6 GB and kept others waiting for 20 seconds.
    assert max(peak) - before < 500 * MEGABYTE
    assert max(waits) < 10
    assert server.post("/search", {"queries": "sort"}).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 100_000,
        b"GET /" + b"x" * 1_000_000,
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10,
        b"garbage\r\n\r\n",
    ],
    ids=[
        "a long header",
        "many headers",
        "a long path",
        "a long length",
        "a negative length",
        "TLS",
        "garbage",
    ],
)
def test_broken_heads_are_refused(server: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        answer = b""
        try:
            connection.sendall(head)
            while chunk := connection.recv(2**16):
                answer += chunk
        except ConnectionError:
            pass  # The service closed it while the head was being sent.
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 413")
    assert len(answer) <= MAX_ANSWER
    assert server.ask("GET", "/healthz").status == 200


def test_requests_that_are_sent_together_are_answered_one_after_the_other(server: Server) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 1000)
    last = ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(200 * ask + last)
        answer = b""
        while chunk := connection.recv(2**16):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 ") == 201


@pytest.mark.parametrize(
    "beginning",
    [
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}GET /healthz HTTP/1.1\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
    ids=["a head after a request", "trailers"],
)
def test_headers_without_end_are_not_kept(server: Server, beginning: bytes) -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection,
        pytest.raises(ConnectionError),
    ):
        connection.sendall(beginning)
        for _ in range(1000):
            connection.sendall(b"X: x\r\n" * 1000)


def test_metrics_and_logs_tell_no_query(server: Server) -> None:
    server.post("/search", {"queries": "SECRET"})
    server.post("/search?q=SECRET", {"queries": "SECRET", "mode": "SECRET", "SECRET": 1})
    server.ask("GET", "/SECRET")
    server.ask("SECRET", "/search")
    wait_for(lambda: b'path="other",status="404"' in server.ask("GET", "/metrics").body)
    assert b"SECRET" not in server.ask("GET", "/metrics").body
    assert "SECRET" not in server.process.out + server.process.err
