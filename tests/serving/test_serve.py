"""A real server answers as the retriever does, refuses by the right status, and stops in peace."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from command_line import rrra
from rrra_hf import RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import Limits, create_app, listen
from rrra_hf.serving.batching import Batcher, Busy

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line", "passage", "old", "new"]
CORPUS = {
    f"d{number}": {"title": first, "text": f"{second} the {third}"}
    for number, (first, second, third) in enumerate(
        (a, b, c) for a in WORDS[:4] for b in WORDS[3:7] for c in WORDS[6:10]
    )
}
QUERIES = [f"how do i {a} {b}" for a in WORDS[:4] for b in WORDS[3:]]
# A server whose searches for `slow` take a second and whose documents `broken` can't be ranked.
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
    """A process that serves; its first line tells the port."""

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


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retriever on disk, whose adapter changes the ranking."""
    torch.manual_seed(0)
    model = RRRAModel.from_encoder(tiny_bert, adapter={"hidden_size": 8, "lambda_": 0.5})
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("serve") / "retriever"
    Retriever(model).index(CORPUS).save_pretrained(path)
    return path


@contextmanager
def started(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Start a server with small limits and slow queries, and one that the command line started."""
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


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    with started(folder) as both:
        yield both


@pytest.fixture(scope="module")
def server(servers: tuple[Server, Server]) -> Server:
    return servers[0]


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    return Retriever.from_pretrained(folder, device="cpu")


def assert_same_hits(found: list[list[dict]], expected: list[list[Any]]) -> None:
    """Equal up to the rounding that the batch of a query decides: of equal documents, either may be first."""
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


# -------------------------------------------------------------------- answers


def test_search_answers_as_the_retriever_does(server: Server, retriever: Retriever) -> None:
    for options in ({}, {"top_k": 3}, {"top_k": 20, "depth": 5, "probabilities": True}, {"rerank": False}):
        answer = server.post("/search", {"queries": QUERIES[:8], **options})
        assert answer.status == 200
        assert_same_hits(answer.json["results"], retriever.search(QUERIES[:8], **options))
    one = server.post("/search", {"queries": QUERIES[0]}).json["results"]
    assert_same_hits(one, retriever.search(QUERIES[0]))
    assert [hit["corpus_id"] for hit in one[0]] != [
        hit["corpus_id"] for hit in retriever.search(QUERIES[0], rerank=False)[0]
    ]


def test_embeddings_are_searched_as_the_retriever_does(server: Server, retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES[:5], task="query")
    expected = retriever.search_embeddings(embeddings, 4, probabilities=True)
    body = {"query_embeddings": embeddings.tolist(), "top_k": 4, "probabilities": True}
    for beside in ({}, {"queries": QUERIES[:5]}):
        assert_same_hits(server.post("/search", {**body, **beside}).json["results"], expected)
    one = server.post("/search", {"query_embeddings": embeddings[0].tolist()})
    assert_same_hits(one.json["results"], retriever.search_embeddings(embeddings[:1]))


def test_documents_come_along_if_asked_for(server: Server) -> None:
    hit = server.post("/search", {"queries": "sort", "return_documents": True}).json["results"][0][0]
    assert hit["document"] == CORPUS[hit["corpus_id"]]


def test_rank_answers_as_the_retriever_does(server: Server, retriever: Retriever) -> None:
    documents = ["copy files", "find the old folder", "sort the text"]
    for options in ({}, {"top_k": 2}, {"return_documents": True}):
        answer = server.post("/rank", {"query": "sort it", "documents": documents, **options})
        assert answer.status == 200
        assert_same_hits([answer.json["results"]], [retriever.rank("sort it", documents, **options)])


def test_requests_at_once_get_the_answers_of_requests_alone(
    servers: tuple[Server, Server], retriever: Retriever
) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    # The second server gives seven hits at most, also by default.
    options = [{}, {"top_k": 3, "probabilities": True}, {"rerank": False, "top_k": 5}]
    bodies, expected = [], []
    for number, query in enumerate(QUERIES * 3):
        chosen = options[number % 3]
        if number % 2:
            bodies.append({"queries": query, **chosen})
            expected.append(retriever.search(query, **{"top_k": 7, **chosen}))
        else:
            row = embeddings[[number % len(QUERIES)]]
            bodies.append({"query_embeddings": row.tolist(), **chosen})
            expected.append(retriever.search_embeddings(row, **{"top_k": 7, **chosen}))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: servers[1].post("/search", body), bodies))
    assert [answer.status for answer in answers] == [200] * len(bodies)
    for answer, wanted in zip(answers, expected, strict=True):
        assert_same_hits(answer.json["results"], wanted)


def test_health_says_what_is_served(server: Server) -> None:
    health = server.ask("GET", "/healthz").json
    assert health["limits"]["top_k"] == 20
    del health["limits"]
    assert health == {
        "status": "ok", "documents": len(CORPUS), "dim": 32, "adapter": True, "needs_texts": False
    }  # fmt: skip


def test_examples_of_the_documentation_are_answered(server: Server) -> None:
    schemas = server.ask("GET", "/openapi.json").json["components"]["schemas"]
    for path, name in (("/search", "SearchRequest"), ("/rank", "RankRequest")):
        assert schemas[name]["examples"]
        for example in schemas[name]["examples"]:
            assert server.post(path, example).status == 200
    either = schemas["SearchRequest"]["properties"]["queries"]["anyOf"][0]["anyOf"]
    assert either == [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}]


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("/search", {}, "body", "queries or query_embeddings must be given"),
        ("/search", {"queries": []}, "queries", "at least 1 item"),
        ("/search", {"queries": ["sort", " "]}, "queries.1", "must not be empty"),
        ("/search", {"queries": ["sort", 7]}, "queries.1", "valid string"),
        ("/search", {"queries": "a\ud800"}, "queries.0", "must be valid Unicode"),
        ("/search", {"queries": "sort", "\ud800": 3}, "body", "valid string"),
        ("/search", {"queries": ["sort"] * 9}, "queries", "must be at most 8 queries, got 9"),
        ("/search", {"queries": "x" * 51}, "queries.0", "must be at most 50 characters, got 51"),
        ("/search", {"queries": "sort", "top_k": 0}, "top_k", "greater than or equal to 1"),
        ("/search", {"queries": "sort", "top_k": 21}, "top_k", "must be at most 20, got 21"),
        ("/search", {"queries": "sort", "top_k": "3"}, "top_k", "valid integer"),
        ("/search", {"queries": "sort", "top_k": True}, "top_k", "valid integer"),
        ("/search", {"queries": "sort", "depth": 111}, "depth", "must be at most 110, got 111"),
        ("/search", {"queries": "sort", "topk": 3}, "topk", "not permitted"),
        ("/search", ["sort"], "body", "must be a JSON object, sent as application/json"),
        ("/search", {"query_embeddings": [[1.0] * 31]}, "query_embeddings.0", "dimension 32, got 31"),
        ("/search", {"query_embeddings": [[1.0] * 32, [1.0]]}, "query_embeddings.1", "dimension 32, got 1"),
        ("/search", {"query_embeddings": [[float("nan")] * 32]}, "query_embeddings.0.0", "finite number"),
        ("/search", {"query_embeddings": [[1e39] * 32]}, "query_embeddings", "must be finite: 1 of 1 rows"),
        ("/search", {"query_embeddings": [["a"] * 32]}, "query_embeddings.0.0", "valid number"),
        ("/search", {"query_embeddings": []}, "query_embeddings", "at least 1 item"),
        ("/search", {"query_embeddings": [[1.0] * 32] * 9}, "query_embeddings", "at most 8 queries, got 9"),
        (
            "/search",
            {"query_embeddings": [[1.0] * 32], "queries": ["a", "b"]},
            "body",
            "of one length, got 2 and 1",
        ),
        ("/rank", {"query": "sort"}, "documents", "required"),
        ("/rank", {"query": "", "documents": ["a"]}, "query", "must not be empty"),
        ("/rank", {"query": "sort", "documents": []}, "documents", "at least 1 item"),
        ("/rank", {"query": "sort", "documents": ["a"] * 6}, "documents", "at most 5 documents, got 6"),
        ("/rank", {"query": "sort", "documents": ["a", "b" * 51]}, "documents.1", "at most 50 characters"),
        ("/rank", {"query": "x" * 51, "documents": ["a"]}, "query", "must be at most 50 characters"),
        ("/rank", {"query": "sort", "documents": ["a"], "top_k": 0}, "top_k", "greater than or equal to 1"),
    ],
)
def test_illegal_values_are_refused_by_name(
    server: Server, path: str, body: Any, field: str, message: str
) -> None:
    answer = server.post(path, body)
    assert answer.status == 422
    assert answer.problems[0][0] == field
    assert message in answer.problems[0][1]


def test_malformed_json_is_refused_with_its_place(server: Server) -> None:
    for body in (b'{"queries": ', b'{"queries": "sort",}', b"\xff\xfe"):
        assert server.post("/search", body).status == 400
    assert "at character 12" in server.post("/search", b'{"queries": ').problems[0][1]
    assert server.post("/search", b"[" * 10_000).status == 400


def test_unknown_paths_and_methods_are_refused(server: Server) -> None:
    assert server.ask("GET", "/nosuch").status == 404
    answer = server.ask("GET", "/search")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.problems == [(None, "Method Not Allowed")]


def test_large_bodies_are_refused(server: Server) -> None:
    for size in (20_001, 3_000_000):
        answer = server.post("/search", b" " * size)
        assert answer.status == 413
        assert answer.problems == [(None, "The body must be at most 20000 bytes.")]
    chunks = server.post("/search", (b" " * 5000 for _ in range(5)))
    assert chunks.status == 413
    # What says that it is huge is refused before it is sent.
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_idle_connections_are_kept_longer_than_clients_pause(servers: tuple[Server, Server]) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for server in servers]
    for connection in connections:
        connection.auto_open = 0
        connection.connect()
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
    time.sleep(6)
    brief, usual = connections
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        brief.request("GET", "/healthz")
        brief.getresponse()
    usual.request("GET", "/healthz")
    assert usual.getresponse().status == 200


def test_slow_bodies_are_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = b""
        while chunk := connection.recv(1000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive within 0.4 seconds." in answer


def test_slow_work_and_too_much_of_it_is_refused(server: Server) -> None:
    # One is worked on for a second, two wait (each for another reason not to be done with the first).
    bodies = [{"queries": "slow", "top_k": top_k} for top_k in (1, 2, 3, 4)]
    with ThreadPoolExecutor(4) as pool:
        futures = []
        for body in bodies:
            futures.append(pool.submit(server.post, "/search", body))
            time.sleep(0.15)
        # What needs no thread is answered meanwhile.
        assert server.ask("GET", "/healthz").status == 200
        answers = [future.result() for future in futures]
    assert [answer.status for answer in answers] == [200, 504, 504, 503]
    assert answers[1].problems == [(None, "The work was not done within 1.6 seconds.")]
    assert answers[3].headers["retry-after"] == "1"
    assert "2 requests are waiting already" in answers[3].problems[0][1]
    assert server.post("/search", {"queries": "sort"}).status == 200


def test_failures_are_not_explained_to_clients(server: Server) -> None:
    answer = server.post("/rank", {"query": "sort", "documents": ["broken"]})
    assert (answer.status, answer.problems) == (500, [(None, "The server failed; its log says why.")])
    assert server.post("/rank", {"query": "sort", "documents": ["text"]}).status == 200


def test_embeddings_alone_are_refused_where_the_adapter_reads_words(tiny_bert: Path) -> None:
    sizes = {"names": ["base", "words"], "queries": 1, "documents": 1, "pairs": 1, "vocabulary": 25}
    model = RRRAModel.from_encoder(tiny_bert, adapter={"features": sizes, "lambda_": 1.0})
    torch.manual_seed(0)
    with torch.no_grad():
        model.adapter.features.idf.fill_(1.0)
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    retriever = Retriever(model).index(CORPUS)
    embeddings = encode(retriever.encoder, QUERIES[:2], task="query")
    body = {"query_embeddings": embeddings.tolist(), "top_k": 5}
    with TestClient(create_app(retriever)) as client:
        assert client.get("/healthz").json()["needs_texts"] is True
        refused = client.post("/search", json=body)
        assert refused.status_code == 422
        assert refused.json()["detail"] == [
            {"message": "must be given beside the embeddings, as the adapter reads words", "field": "queries"}
        ]
        answer = client.post("/search", json={**body, "queries": QUERIES[:2]})
    expected = retriever.search(QUERIES[:2], 5)
    assert_same_hits(answer.json()["results"], expected)
    assert expected != retriever.search(QUERIES[:2], 5, rerank=False)


def test_probabilities_are_refused_where_there_is_no_adapter(tiny_bert: Path) -> None:
    retriever = Retriever.from_pretrained(tiny_bert, device="cpu").index(CORPUS)
    with TestClient(create_app(retriever)) as client:
        refused = client.post("/search", json={"queries": "sort", "probabilities": True})
        assert client.get("/healthz").json()["adapter"] is False
    assert refused.status_code == 422
    assert refused.json()["detail"] == [
        {"message": "need an adapter; the retriever has none", "field": "probabilities"}
    ]


# -------------------------------------------------------------------- metrics


def test_metrics_count_requests_by_path_and_status(server: Server) -> None:
    def read() -> dict[tuple[str, ...], float]:
        answer = server.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(answer.body.decode())
        return {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}

    before = read()
    server.post("/search", {"queries": "sort"})
    server.post("/search", {"queries": 7})
    server.ask("GET", "/some/path")
    server.post("/search", b" " * 20_001)
    after = read()
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for status in ("200", "422", "413"):
        assert grown["rrra_requests_total", "/search", status] == 1
    assert grown["rrra_requests_total", "404", "other"] == 1
    assert grown["rrra_request_seconds_count", "/search"] == 3
    assert grown["rrra_request_seconds_bucket", "+Inf", "/search"] == 3
    assert grown["rrra_batch_size_sum",] == 1
    assert after["rrra_requests_in_flight",] == 1  # the request itself


# -------------------------------------------------------------------- batches


def test_jobs_that_wait_are_done_together_if_they_may() -> None:
    calls: list[list[int]] = []
    release = threading.Event()

    def work(items: list[int]) -> list[int]:
        release.wait(5)
        calls.append(items)
        return [10 * item for item in items]

    async def main() -> list[Any]:
        batcher = Batcher("test", threads=1, batch=3, waiting=10)
        jobs = [("a", [0]), ("a", [1]), ("b", [2]), ("a", [3, 4]), ("a", [5]), (None, [6]), (None, [7])]
        tasks = [asyncio.create_task(batcher.run(work, items, 5.0, key)) for key, items in jobs]
        await asyncio.sleep(0)
        release.set()
        results = await asyncio.gather(*tasks)
        batcher.close()
        return results

    assert asyncio.run(main()) == [[0], [10], [20], [30, 40], [50], [60], [70]]
    assert calls == [[0], [1, 3, 4], [2], [5], [6], [7]]


def test_jobs_fail_together_and_later_ones_do_not() -> None:
    def work(items: list[int]) -> list[int]:
        return [1 // item for item in items]

    async def main() -> list[Any]:
        batcher = Batcher("test", threads=1, batch=8, waiting=10)
        tasks = [asyncio.create_task(batcher.run(work, [item], 5.0, "key")) for item in (1, 0, 1)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        results.append(await batcher.run(work, [1], 5.0, "key"))
        batcher.close()
        return results

    first, second, third, last = asyncio.run(main())
    assert (first, last) == ([1], [1])
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(third, ZeroDivisionError)


def test_job_that_waited_too_long_is_never_begun() -> None:
    done: list[int] = []
    release = threading.Event()

    def work(items: list[int]) -> list[int]:
        release.wait(5)
        done.extend(items)
        return items

    async def main() -> None:
        batcher = Batcher("test", threads=1, batch=1, waiting=1)
        running = asyncio.create_task(batcher.run(work, [1], 5.0))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.run(work, [2], 0.05))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="1 requests are waiting already"):
            await batcher.run(work, [3], 5.0)
        with pytest.raises(asyncio.TimeoutError):
            await waiting
        release.set()
        assert await running == [1]
        assert await batcher.run(work, [4], 5.0) == [4]
        batcher.close()

    asyncio.run(main())
    assert done == [1, 4]


# -------------------------------------------------------------------- start and end


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="queries must be a whole number of at least 1, got 0"):
        Limits(queries=0)
    with pytest.raises(ValueError, match=r"top_k must be a whole number of at least 1, got 1\.5"):
        Limits(top_k=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="work_seconds must be greater than 0, got nan"):
        Limits(work_seconds=float("nan"))


def test_service_without_an_index_does_not_start(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no index yet"):
        create_app(Retriever.from_pretrained(tiny_bert, device="cpu"))
    for path in (tmp_path / "nosuch", tiny_bert):
        failed = rrra("serve", path)
        assert (failed.status, failed.out) == (1, "")
        assert f"{path} is no folder with an index; make one with `rrra index`" in failed.message


def test_port_that_is_taken_is_an_error(folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        failed = rrra("serve", folder, "--port", taken.getsockname()[1], "--device", "cpu")
    assert failed.status == 1
    assert "Address already in use" in failed.message


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("speed=3", "--limit must be one of body_bytes, queries"),
        ("top_k", "--limit must be NAME=NUMBER, got 'top_k'"),
        ("top_k=1.5", "--limit must be NAME=NUMBER, got 'top_k=1.5'"),
        ("depth=0", "--limit depth must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_limits_are_bad_arguments(folder: Path, limit: str, message: str) -> None:
    failed = rrra("serve", folder, "--limit", limit)
    assert failed.status == 2
    assert message in failed.message


def test_sigterm_finishes_what_is_running_and_exits_with_status_0(folder: Path) -> None:
    with started(folder) as servers:
        assert_sigterm_is_heeded(*servers)


def assert_sigterm_is_heeded(slow: Server, fast: Server) -> None:
    assert slow.post("/rank", {"query": "sort", "documents": ["broken"]}).status == 500
    refused = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        while not refused.is_set():
            try:
                statuses.append(fast.post("/search", {"queries": QUERIES[0]}).status)
            except (ConnectionError, http.client.RemoteDisconnected):
                refused.set()

    with ThreadPoolExecutor(9) as pool:
        running = pool.submit(slow.post, "/search", {"queries": "slow"})
        loaders = [pool.submit(load) for _ in range(8)]
        time.sleep(0.4)
        assert not running.done()
        for server in (slow, fast):
            server.process.send_signal(signal.SIGTERM)
        assert [server.process.wait(timeout=30) for server in (slow, fast)] == [0, 0]
        assert running.result().status == 200
        for loader in loaders:
            loader.result()
    # Before the end, every request got its answer; afterwards, none gets a connection.
    assert len(statuses) > 8
    assert set(statuses) == {200}
    for server in (slow, fast):
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/healthz")
        # A failure is logged; stopping is none.
        assert server.process.communicate()[1].count("Traceback") == (1 if server is slow else 0)
