"""Error responses have the right status, and a server needs an index to start."""

from __future__ import annotations

import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from command_line import rrra
from forked import WAIT
from rrra_hf import RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import Limits, create_app, listen
from running import CORPUS, QUERIES, Server, Servers, assert_same_hits, wait_for

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
        ("/search", {"queries": "sort", "mode": "sparse"}, "mode", "'hybrid' or 'dense'"),
        (
            "/search",
            {"query_embeddings": [[1.0] * 32], "mode": "hybrid"},
            "mode",
            "must be 'dense' or None without query_texts, got 'hybrid'",
        ),
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
            "must have the same length, got 2 and 1",
        ),
        ("/rank", {"query": "sort"}, "documents", "required"),
        ("/rank", {"query": "", "documents": ["a"]}, "query", "must not be empty"),
        ("/rank", {"query": "sort", "documents": []}, "documents", "at least 1 item"),
        ("/rank", {"query": "sort", "documents": ["a"] * 6}, "documents", "at most 5 documents, got 6"),
        ("/rank", {"query": "sort", "documents": ["a", "b" * 51]}, "documents.1", "at most 50 characters"),
        ("/rank", {"query": "x" * 51, "documents": ["a"]}, "query", "must be at most 50 characters"),
        ("/rank", {"query": "sort", "documents": ["a"], "top_k": 0}, "top_k", "greater than or equal to 1"),
        ("/search", {"queries": "sort", "query": "sort"}, "query", "not permitted"),
        ("/v1/rerank", {"query": "sort"}, "documents", "required"),
        ("/v1/rerank", {"query": "sort", "documents": ["a"] * 6}, "documents", "at most 5 documents, got 6"),
        (
            "/v1/rerank",
            {"query": "sort", "documents": ["a"], "top_n": 0},
            "top_n",
            "greater than or equal to 1",
        ),
        ("/v1/rerank", {"query": "sort", "documents": [{"text": " "}]}, "documents.0", "must not be empty"),
        (
            "/v1/rerank",
            {"query": "sort", "documents": [{"title": "a"}]},
            "documents.0",
            "the field text only",
        ),
        (
            "/v1/rerank",
            {"query": "sort", "documents": [{"text": "a", "title": "b"}]},
            "documents.0",
            "the field text only",
        ),
        (
            "/v2/rerank",
            {"query": "sort", "documents": ["a"], "max_tokens_per_doc": 9},
            "max_tokens_per_doc",
            "not",
        ),
        ("/search", {"queries": "sort", "filter": {"x": {"$near": 1}}}, "filter", "operators of 'x'"),
        ("/search", {"queries": "sort", "filter": ["x"]}, "filter", "dictionary"),
        ("/search", {"queries": "sort", "filter": {"x": {"$in": [[1]]}}}, "filter", "compare 'x' with"),
        ("/v1/embeddings", {}, "input", "required"),
        ("/v1/embeddings", {"input": []}, "input", "at least 1 item"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input.1", "must not be empty"),
        ("/v1/embeddings", {"input": [[101, 102]]}, "input.0", "valid string"),
        ("/v1/embeddings", {"input": ["a"] * 6}, "input", "at most 5 texts, got 6"),
        ("/v1/embeddings", {"input": "x" * 51}, "input.0", "at most 50 characters"),
        ("/v1/embeddings", {"input": "a", "dimensions": 33}, "dimensions", "must be at most 32, got 33"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        (
            "/v1/embeddings",
            {"input": "a", "encoding_format": "int8"},
            "encoding_format",
            "'float' or 'base64'",
        ),
        ("/v1/embeddings", {"input": "a", "input_type": "passage"}, "input_type", "'query' or 'document'"),
        ("/v1/embeddings", {"input": "a", "model": "m" * 201}, "model", "at most 200 characters"),
        ("/v1/embeddings", {"input": "a", "model": "\ud800"}, "model", "valid"),
        ("/v1/rerank", {"query": "sort", "documents": ["a"], "model": "\ud800"}, "model", "valid"),
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
    # A huge Content-Length is refused before the body is sent.
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_slow_bodies_are_refused(servers: Servers) -> None:
    with socket.create_connection(("127.0.0.1", servers.hasty.port), timeout=WAIT) as connection:
        connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = b""
        while chunk := connection.recv(1000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive within 0.4 seconds." in answer


def test_slow_work_and_too_much_of_it_is_refused(servers: Servers) -> None:
    server, gate = servers.hasty, servers.gate

    def waiting() -> bool:
        return "rrra_requests_in_flight 4.0" in server.ask("GET", "/metrics").body.decode()

    # One request runs, and two wait. Different options keep them out of its batch.
    bodies = [{"queries": f"slow {number}", "top_k": number} for number in range(1, 5)]
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(server.post, "/search", bodies[0])]
        gate.wait_until_begun("slow 1")
        futures += [pool.submit(server.post, "/search", body) for body in bodies[1:3]]
        # These and the request itself. Requests that need no thread are answered meanwhile.
        wait_for(waiting)
        assert server.ask("GET", "/healthz").status == 200
        refused = server.post("/search", bodies[3])
        gate.open("slow 1")
        answers = [*(future.result() for future in futures), refused]
    gate.open("slow 2")
    gate.open("slow 3")
    assert [answer.status for answer in answers] == [200, 504, 504, 503]
    assert answers[1].problems == [(None, "The request was not finished within 5 seconds.")]
    assert answers[3].headers["retry-after"] == "1"
    assert "2 requests are waiting already" in answers[3].problems[0][1]
    wait_for(lambda: server.post("/search", {"queries": "sort"}).status == 200)


def test_idle_connections_are_kept_longer_than_clients_pause(servers: Servers) -> None:
    both = servers.hasty, servers.usual
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT) for server in both]
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


def test_failures_are_not_explained_to_clients(server: Server) -> None:
    answer = server.post("/rank", {"query": "sort", "documents": ["broken"]})
    assert (answer.status, answer.problems) == (
        500,
        [(None, "Internal server error; see the log of the server.")],
    )
    assert server.post("/rank", {"query": "sort", "documents": ["text"]}).status == 200


def test_embeddings_alone_are_refused_where_the_adapter_needs_word_pieces(tiny_bert: Path) -> None:
    sizes = {"names": ["base", "words"], "queries": 1, "documents": 1, "pairs": 1, "vocabulary": 25}
    reader = {"kind": "features_v2", **sizes}
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": reader, "lambda_": 1.0})
    torch.manual_seed(0)
    with torch.no_grad():
        model.adapter.reader.memory.idf.fill_(1.0)
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    retriever = Retriever(model).index(CORPUS)
    embeddings = encode(retriever.encoder, QUERIES[:2], task="query")
    body = {"query_embeddings": embeddings.tolist(), "top_k": 5}
    with TestClient(create_app(retriever), "http://localhost") as client:
        assert client.get("/healthz").json()["needs_texts"] is True
        refused = client.post("/search", json=body)
        assert refused.status_code == 422
        message = "must be given with the embeddings because the adapter reads words"
        assert refused.json()["detail"] == [{"message": message, "field": "queries"}]
        answer = client.post("/search", json={**body, "queries": QUERIES[:2]})
    expected = retriever.search(QUERIES[:2], 5)
    assert_same_hits(answer.json()["results"], expected)
    assert expected != retriever.search(QUERIES[:2], 5, rerank=False)


def test_probabilities_are_refused_where_there_is_no_adapter(tiny_bert: Path) -> None:
    retriever = Retriever.from_pretrained(tiny_bert, adapter=None, device="cpu").index(CORPUS)
    with TestClient(create_app(retriever), "http://localhost") as client:
        refused = client.post("/search", json={"queries": "sort", "probabilities": True})
        assert client.get("/healthz").json()["adapter"] is False
    assert refused.status_code == 422
    assert refused.json()["detail"] == [
        {"message": "needs an adapter, the retriever has none", "field": "probabilities"}
    ]


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
    nowhere = tmp_path / "nosuch"
    for path, problem in (
        (nowhere, f"There is no folder {nowhere}"),
        (tiny_bert, f"{tiny_bert} has no index; make one with `rrra index`"),
    ):
        failed = rrra("serve", path)
        assert (failed.status, failed.out) == (1, "")
        assert problem in failed.message


def test_port_that_is_taken_is_an_error(folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        failed = rrra("serve", folder, "--port", taken.getsockname()[1], "--device", "cpu")
    assert failed.status == 1
    assert "Address already in use" in failed.message


def test_key_must_not_be_empty(folder: Path) -> None:
    failed = rrra("serve", folder, "--api-key", " ")
    assert failed.status == 2
    assert "--api-key must not be empty." in failed.message


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
