"""Clients that are silent, slow, greedy or gone don't keep the service from others, nor from stopping."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from forked import WAIT
from rrra_hf.cli import main
from rrra_hf.serving import Limits
from running import CORPUS, Gate, Server, save_retriever, serve, wait_for

CONNECTIONS = 20
PATIENT = {"body_seconds": WAIT, "work_seconds": WAIT, "idle_seconds": WAIT}
HEAD = (
    b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
# What a client may send before it falls silent.
BEGINNINGS = {
    "nothing": b"",
    "half a line": b"POST /sea",
    "half a head": b"POST /search HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": HEAD % 100 + b'{"queries": ',
    "most of a large body": HEAD % 1_000_000 + b"x" * 100_000,
}


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_retriever(tiny_bert, tmp_path_factory.mktemp("attacked") / "retriever")


@contextmanager
def served(folder: Path, gate: Path, **limits: float) -> Iterator[Server]:
    server = Server(serve, folder, Gate(gate), Limits(**{**PATIENT, **limits}))
    try:
        yield server.wait_until_it_listens()
    finally:
        server.process.kill()
    assert "Traceback" not in server.process.err


@pytest.fixture(scope="module")
def patient(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that would wait for silent clients for ever, with few connections."""
    with served(folder, tmp_path_factory.mktemp("gate"), connections=CONNECTIONS) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(folder, tmp_path_factory.mktemp("gate"), body_seconds=0.5, work_seconds=5) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """A function that opens connections, which are closed after the test."""
    with ExitStack() as stack:

        def connected(server: Server, address: str = "127.0.0.1") -> socket.socket:
            made = socket.create_connection(("127.0.0.1", server.port), WAIT, (address, 0))
            return stack.enter_context(made)

        yield connected


def is_closed(connection: socket.socket) -> bool:
    with suppress(ConnectionError):
        while connection.recv(2**16):
            pass
    return True


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_silent_clients_make_room_for_others(
    patient: Server, connect: Callable[..., socket.socket], beginning: bytes
) -> None:
    silent = [connect(patient) for _ in range(2 * CONNECTIONS)]
    for connection in silent:
        with suppress(ConnectionError):  # It may have made room already.
            connection.sendall(beginning)
    for _ in range(3):
        assert patient.ask("GET", "/healthz").status == 200
        assert patient.post("/search", {"queries": "sort"}).status == 200
    assert is_closed(silent[0])


def test_slow_bodies_leave_turns_to_large_ones(
    patient: Server, connect: Callable[..., socket.socket]
) -> None:
    for _ in range(CONNECTIONS - 2):
        connect(patient).sendall(HEAD % 1_000_000 + b'{"queries": ')
    large = {"queries": ["sort " * 1000] * 20, "top_k": 1}
    assert patient.post("/search", large).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no more than one loopback address")
def test_a_client_with_many_connections_makes_room_before_one_with_few(
    patient: Server, connect: Callable[..., socket.socket]
) -> None:
    modest = connect(patient, "127.0.0.2")
    for _ in range(2 * CONNECTIONS):
        connect(patient, "127.0.0.3")
    assert patient.ask("GET", "/healthz").status == 200
    modest.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert modest.recv(100).startswith(b"HTTP/1.1 200 ")


def test_heads_have_a_timeout_however_they_drip(hasty: Server, connect: Callable[..., socket.socket]) -> None:
    silent, dripping = connect(hasty), connect(hasty)
    with pytest.raises(ConnectionError):
        while True:
            dripping.sendall(b"X")
            time.sleep(0.05)
    assert is_closed(silent)


def test_the_next_head_of_a_connection_has_a_timeout(
    hasty: Server, connect: Callable[..., socket.socket]
) -> None:
    connection = connect(hasty)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
    time.sleep(1)
    connection.sendall(b"GET /healthz HTTP/1.1\r\n")
    assert is_closed(connection)


def large_answers(connection: socket.socket) -> None:
    """Ask for many large answers at once."""
    body = b'{"queries": ["sort"%s], "top_k": 64, "return_documents": true}' % (b', "text"' * 63)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            connection.sendall(HEAD % len(body) + body)


def test_answers_that_nobody_reads_have_a_timeout(
    hasty: Server, connect: Callable[..., socket.socket]
) -> None:
    connection = connect(hasty)
    large_answers(connection)
    connection.settimeout(WAIT)
    with pytest.raises(ConnectionError):
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)


def test_a_client_has_at_most_its_share_of_requests(folder: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with served(folder, tmp_path, client_requests=2) as server, ThreadPoolExecutor(2) as pool:
        running = [pool.submit(server.post, "/search", {"queries": f"slow {name}"}) for name in "ab"]
        wait_for(lambda: "rrra_requests_in_flight 3.0" in server.ask("GET", "/metrics").body.decode())
        refused = server.post("/search", {"queries": "sort"})
        assert server.ask("GET", "/healthz").status == 200
        for name in "ab":
            gate.open(f"slow {name}")
        assert [future.result().status for future in running] == [200, 200]
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "2 requests of this client" in refused.problems[0][1]
        assert server.post("/search", {"queries": "sort"}).status == 200


def test_work_for_clients_that_have_left_is_dropped(
    folder: Path, tmp_path: Path, connect: Callable[..., socket.socket]
) -> None:
    gate = Gate(tmp_path)
    with served(folder, tmp_path) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.post, "/search", {"queries": "slow first"})
        gate.wait_until_begun("slow first")
        body = b'{"queries": "slow second", "top_k": 3}'
        leaving = connect(server)
        leaving.sendall(HEAD % len(body) + body)
        wait_for(lambda: "rrra_requests_in_flight 3.0" in server.ask("GET", "/metrics").body.decode())
        leaving.close()
        left = 'rrra_requests_total{path="/search",status="499"} 1.0'
        wait_for(lambda: left in server.ask("GET", "/metrics").body.decode())
        gate.open("slow first")
        assert running.result().status == 200
        assert server.post("/search", {"queries": "sort"}).status == 200
        assert not (tmp_path / "slow second has begun").exists()


def test_stopping_waits_for_running_requests_only(
    folder: Path, tmp_path: Path, connect: Callable[..., socket.socket]
) -> None:
    gate = Gate(tmp_path)
    with served(folder, tmp_path) as server, ThreadPoolExecutor(1) as pool:
        for beginning in BEGINNINGS.values():
            connect(server).sendall(beginning)
        idle = connect(server)
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(2**16)
        large_answers(connect(server))
        running = pool.submit(server.post, "/search", {"queries": "slow"})
        gate.wait_until_begun("slow")
        server.process.process.terminate()
        wait_for(lambda: is_closed(idle))
        time.sleep(2)
        assert not running.done()
        gate.open("slow")
        assert running.result().status == 200
        # The limits would have it wait for twenty minutes.
        begun = time.monotonic()
        assert server.process.wait() == 0
        assert time.monotonic() - begun < 10


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[Server]:
    server = Server(serve_with_key, folder)
    yield server.wait_until_it_listens()
    server.process.kill()


def serve_with_key(folder: Path) -> None:
    os.environ["RRRA_API_KEY"] = "open sesame"
    sys.argv = ["rrra", "serve", str(folder), "--port", "0", "--allow-host", "search.example"]
    main()


def test_hosts_are_checked(patient: Server, locked: Server) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert patient.ask("GET", "/healthz", Host=host).status == 200
    # A page in a browser can make its own name point to this machine.
    for host in ("evil.example", "localhost.evil.example", "", "local host", "0.0.0.0"):
        assert patient.ask("GET", "/healthz", Host=host).status == 400
    assert locked.ask("GET", "/healthz", Host="search.example").status == 200
    assert locked.ask("GET", "/healthz", Host="localhost").status == 200
    assert locked.ask("GET", "/healthz", Host="other.example").status == 400


def test_the_key_is_asked_for_before_anything_else(locked: Server) -> None:
    body = {"queries": "sort", "top_k": 3}
    wrong = ("", "open sesame", "Bearer open sesam", "Bearer open sesame!", "Basic open sesame", "Bearer ä")
    for given in wrong:
        answer = locked.post("/search", body, Authorization=given.encode())  # type: ignore[arg-type]
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.problems == [(None, "The API key is missing or wrong.")]
    for path in ("/metrics", "/docs", "/static-offline-docs/favicon.png", "/openapi.json", "/nosuch"):
        assert locked.ask("GET", path).status == 401
    for path in ("/rank", "/v1/embeddings", "/v1/rerank", "/v2/rerank"):
        assert locked.post(path, {}).status == 401
    assert locked.ask("GET", "/healthz").status == 200
    found = locked.post("/search", body, Authorization="bearer open sesame")
    assert len(found.json["results"][0]) == 3
    assert found.json["results"][0][0]["corpus_id"] in CORPUS


def test_without_the_key_no_body_is_read(locked: Server, connect: Callable[..., socket.socket]) -> None:
    connection = connect(locked)
    connection.sendall(HEAD % 1_000_000)
    assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
