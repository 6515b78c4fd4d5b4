"""A real server returns the results of the retriever, counts requests and shuts down cleanly."""

from __future__ import annotations

import http.client
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from rrra_hf.serving import create_app
from running import CORPUS, QUERIES, Server, Servers, assert_same_hits, started, wait_for

# -------------------------------------------------------------------- answers


def test_search_answers_as_the_retriever_does(server: Server, retriever: Retriever) -> None:
    for options in ({}, {"top_k": 3}, {"top_k": 20, "depth": 5, "probabilities": True}, {"rerank": False}):
        answer = server.post("/search", {"queries": QUERIES[:8], **options})
        assert answer.status == 200
        assert_same_hits(answer.json["results"], retriever.search(QUERIES[:8], **options))
    one = server.post("/search", {"queries": QUERIES[0]}).json["results"]
    assert_same_hits(one, retriever.search(QUERIES[0]))
    assert server.post("/search", {"query": QUERIES[0]}).json["results"] == one
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


def test_only_documents_of_the_filter_are_found(servers: Servers, retriever: Retriever) -> None:
    filters = [{"number": 1}, {"number": True}, {"number": {"$gte": 40}}, {}, {"x": 1}, {"number": 1.0}]
    # At once, so that they are in one batch if they are taken for the same.
    with ThreadPoolExecutor(len(filters)) as threads:
        bodies = [{"queries": "sort", "filter": filter, "top_k": 5} for filter in filters]
        answers = list(threads.map(partial(servers.usual.post, "/search"), bodies))
    for filter, answer in zip(filters, answers, strict=True):
        assert_same_hits(answer.json["results"], retriever.search("sort", 5, filter=filter))
    assert [len(answer.json["results"][0]) for answer in answers] == [1, 0, 5, 5, 0, 1]


def test_hits_of_documents_that_were_split_name_passage_and_document() -> None:
    pytest.importorskip("semantic_text_splitter")
    encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "sort"])], device="cpu")
    app = create_app(Retriever(encoder).index({"d": "copy a file. sort a list."}, split=3))
    with TestClient(app, "http://localhost") as client:
        answer = client.post("/search", json={"queries": "sort", "return_documents": True, "top_k": 1})
    (hit,) = answer.json()["results"][0]
    assert (hit["corpus_id"], hit["document_id"], hit["start"]) == ("d#1", "d", 13)
    assert hit["document"] == {"title": "", "text": "sort a list."}


def test_rank_answers_as_the_retriever_does(server: Server, retriever: Retriever) -> None:
    documents = ["copy files", "find the old folder", "sort the text"]
    for options in ({}, {"top_k": 2}, {"return_documents": True}):
        answer = server.post("/rank", {"query": "sort it", "documents": documents, **options})
        assert answer.status == 200
        assert_same_hits([answer.json["results"]], [retriever.rank("sort it", documents, **options)])


def test_requests_at_once_get_the_answers_of_requests_alone(servers: Servers, retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    # The second server returns at most seven hits, also by default.
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
        answers = list(pool.map(lambda body: servers.usual.post("/search", body), bodies))
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
    paths = server.ask("GET", "/openapi.json").json["paths"]
    bodies = {
        path: methods["post"]["requestBody"]["content"]
        for path, methods in paths.items()
        if "post" in methods
    }
    schemas = {path: content["application/json"]["schema"] for path, content in bodies.items()}
    assert schemas.keys() == {"/search", "/rank", "/v1/embeddings", "/v1/rerank"}
    for path, schema in schemas.items():
        assert schema["examples"]
        for example in schema["examples"]:
            assert server.post(path, example).status == 200
    either = schemas["/search"]["properties"]["queries"]["anyOf"][:2]
    assert either == [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}]


def test_the_page_of_the_documentation_loads_from_the_service_only(server: Server) -> None:
    page = server.ask("GET", "/docs").body.decode()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    assert all(path.startswith("/") and server.ask("GET", path).status == 200 for path in loaded)


@pytest.mark.parametrize("mode", [None, "hybrid", "dense"])
def test_searches_by_words_are_those_of_the_retriever(tiny_bert: Path, mode: str | None) -> None:
    retriever = Retriever.from_pretrained(tiny_bert, device="cpu").index(CORPUS)
    embeddings = encode(retriever.encoder, QUERIES[:3], task="query")
    bodies = [
        {"queries": QUERIES[:3]},
        {"queries": QUERIES[:3], "query_embeddings": embeddings.tolist()},
        {"queries": QUERIES[:3], "rerank": False},
    ]
    expected = [
        retriever.search(QUERIES[:3], depth=5, mode=mode),
        retriever.search(QUERIES[:3], depth=5, mode=mode),
        retriever.search(QUERIES[:3], depth=5, mode=mode, rerank=False),
    ]
    if mode != "hybrid":
        bodies.append({"query_embeddings": embeddings.tolist()})
        expected.append(retriever.search_embeddings(embeddings, depth=5, mode=mode))
    with TestClient(create_app(retriever), "http://localhost") as client:
        assert client.get("/healthz").json()["needs_texts"] is False
        for body, hits in zip(bodies, expected, strict=True):
            answer = client.post("/search", json={**body, "depth": 5, "mode": mode})
            assert_same_hits(answer.json()["results"], hits)


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


def test_sigterm_finishes_what_is_running_and_exits_with_status_0(folder: Path, tmp_path: Path) -> None:
    with started(folder, tmp_path) as servers:
        assert_sigterm_is_heeded(servers)


def assert_sigterm_is_heeded(servers: Servers) -> None:
    slow, fast = servers.small, servers.usual
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
        servers.gate.wait_until_begun("slow")
        wait_for(lambda: len(statuses) > 8)
        for server in (slow, fast):
            server.process.process.terminate()
        assert not running.done()
        servers.gate.open("slow")
        assert [server.process.wait() for server in (slow, fast)] == [0, 0]
        assert running.result().status == 200
        for loader in loaders:
            loader.result()
    # All requests before the shutdown were answered. Afterwards, connections are refused.
    assert set(statuses) == {200}
    for server in (slow, fast):
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/healthz")
        # Only the failed request is logged as an error, not the shutdown.
        assert server.process.err.count("Traceback") == (1 if server is slow else 0)
