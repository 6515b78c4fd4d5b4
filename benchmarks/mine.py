"""Time and memory of exact mining: `mine_embeddings` and sentence-transformers' `mine_hard_negatives`.

Both get the same embeddings, random unit vectors, and find 100 candidates per query without its positive.
Each measurement runs in a separate process. Its memory is the maximum resident size, minus the size of the
process after importing the libraries and before reading the embeddings. The peer gets the embeddings from a
model that looks them up; its texts are as short as possible.

With `--large`, only our side is measured, on 10^6 memory-mapped documents by default. Recall is measured
against a float64 matrix product for a sample of the queries. Shards are kept in `--folder`, so an
interrupted run continues.

Run: python benchmarks/mine.py --out results/mine.json
     python benchmarks/mine.py --large --out results/mine_large.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from common import report
from rrra_hf.candidates import mine_embeddings
from rrra_hf.embeddings import load_embeddings, save_embeddings

SIDES = ("ours", "peer", "peer, use_faiss")
BLOCK_SIZE = 65_536


class Memory:
    """The maximum resident size of this process inside a `with` block, above its size at the start.

    A thread polls it, because not every kernel keeps a record of the peak.
    """

    def __enter__(self) -> Memory:
        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Return megabytes above the start, and in total."""
        return {"above idle, MB": (self.peak - self.before) / 2**20, "peak, MB": self.peak / 2**20}


def make_embeddings(folder: Path, counts: dict[str, int], dim: int) -> None:
    """Write random unit vectors in blocks."""
    draw = np.random.default_rng(0)
    for name, count in counts.items():
        path = folder / f"{name}-{count}-{dim}.arrow"
        if not path.exists():
            with tempfile.TemporaryFile(dir=folder) as scratch:
                rows = np.memmap(scratch, np.float32, "w+", shape=(count, dim))
                for start in range(0, count, BLOCK_SIZE):
                    block = draw.standard_normal((min(BLOCK_SIZE, count - start), dim), dtype=np.float32)
                    rows[start : start + BLOCK_SIZE] = block / np.linalg.norm(block, axis=1, keepdims=True)
                save_embeddings(path, rows)


def mine_ours(arguments: argparse.Namespace, folder: Path | None = None) -> dict[str, float]:
    """Mine with this package."""
    with Memory() as memory:
        start = time.perf_counter()
        queries, documents = read(arguments)
        positives = [[row] for row in range(len(queries))]
        pool = mine_embeddings(queries, documents, positives, depth=arguments.depth, folder=folder)
        seconds = time.perf_counter() - start
    result = {"seconds": seconds, **memory.figures()}
    if folder is not None:
        result["recall"] = recall(pool.candidates, queries, documents, arguments.sample)
    return result


def read(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Open the embeddings of queries and documents, memory-mapped."""
    counts = {"queries": arguments.queries, "documents": arguments.documents}
    folder = Path(arguments.folder)
    return [
        load_embeddings(folder / f"{name}-{count}-{arguments.dim}.arrow") for name, count in counts.items()
    ]


def recall(candidates: np.ndarray, queries: np.ndarray, documents: np.ndarray, sample: int) -> float:
    """Return the share of the true candidates that were found, for a sample of the queries."""
    rows = np.random.default_rng(1).choice(len(queries), min(sample, len(queries)), replace=False)
    cosines = np.empty((len(rows), len(documents)))
    for start in range(0, len(documents), BLOCK_SIZE):
        block = documents[start : start + BLOCK_SIZE].astype(np.float64)
        cosines[:, start : start + BLOCK_SIZE] = queries[rows].astype(np.float64) @ block.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    depth = candidates.shape[1]
    found = [
        len(np.intersect1d(best, candidates[row])) / depth
        for row, best in zip(rows, np.argpartition(-cosines, depth, axis=1)[:, :depth], strict=True)
    ]
    return statistics.fmean(found)


def mine_peer(arguments: argparse.Namespace, use_faiss: bool) -> dict[str, float]:
    """Mine with sentence-transformers. Its model reads the embeddings."""
    model = Embeddings(arguments)
    counts = (arguments.queries, arguments.documents)
    dataset = Dataset.from_dict(
        {"query": [f"q{row}" for row in range(counts[0])], "answer": [f"d{row}" for row in range(counts[0])]}
    )
    corpus = [f"d{row}" for row in range(counts[1])]
    quiet = io.StringIO()
    with Memory() as memory, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        start = time.perf_counter()
        mine_hard_negatives(
            dataset,
            model,
            corpus=corpus,
            num_negatives=arguments.depth,
            range_max=arguments.depth,
            output_format="n-tuple",
            output_scores=True,
            use_faiss=use_faiss,
            verbose=False,
        )
        seconds = time.perf_counter() - start
    return {"seconds": seconds, **memory.figures()}


class Embeddings(SentenceTransformer):
    """A model that looks up the embeddings of the texts `q0`, `q1`, ... and `d0`, `d1`, ..."""

    def __init__(self, arguments: argparse.Namespace):
        super().__init__(modules=[torch.nn.Identity()], device="cpu", similarity_fn_name="cosine")
        self.arguments = arguments

    def encode_query(self, texts: list[str], **options: Any) -> np.ndarray:  # type: ignore[override]
        """Return the queries' embeddings, copied into memory."""
        return np.array(read(self.arguments)[0][[int(text[1:]) for text in texts]])

    def encode_document(self, texts: list[str], **options: Any) -> np.ndarray:  # type: ignore[override]
        """Return the documents' embeddings, copied into memory."""
        return np.array(read(self.arguments)[1][[int(text[1:]) for text in texts]])

    def get_embedding_dimension(self) -> int:
        """Return the dimension."""
        return self.arguments.dim


def in_own_process(side: str, folder: Path) -> dict[str, float]:
    """Return the figures of one side, measured in a fresh process with the same arguments."""
    command = [sys.executable, *sys.argv, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure all sides in turns, and return the rows of the table."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for repeat in range(arguments.repeats):
        for side in SIDES[:: -1 if repeat % 2 else 1]:
            runs[side].append(in_own_process(side, folder))
    rows = []
    for side in SIDES:
        times = [run["seconds"] / peer["seconds"] for run, peer in zip(runs[side], runs["peer"], strict=True)]
        median = {name: statistics.median(run[name] for run in runs[side]) for name in runs[side][0]}
        peer_memory = statistics.median(run["above idle, MB"] for run in runs["peer"])
        rows.append(
            {
                "miner": side,
                **median,
                "time / peer": statistics.median(times),
                "highest": max(times),
                "memory / peer": median["above idle, MB"] / peer_memory,
            }
        )
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, help="default: 10^5, or 10^6 with --large")
    parser.add_argument("--queries", type=int, help="default: 10^4, or 10^5 with --large")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="measure only our side, with recall")
    parser.add_argument("--sample", type=int, default=100, help="number of queries to measure recall on")
    parser.add_argument("--folder", type=Path, help="folder for embeddings and shards")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=(*SIDES, "large"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.documents = arguments.documents or (10**6 if arguments.large else 10**5)
    arguments.queries = arguments.queries or (10**5 if arguments.large else 10**4)
    if arguments.side == "large":
        print(json.dumps(mine_ours(arguments, arguments.folder / "pool")))
        return
    if arguments.side:
        ours = arguments.side == "ours"
        result = mine_ours(arguments) if ours else mine_peer(arguments, arguments.side != "peer")
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_embeddings(
            folder, {"queries": arguments.queries, "documents": arguments.documents}, arguments.dim
        )
        if arguments.large:
            rows = [{"miner": "ours, exact", **in_own_process("large", folder)}]
        else:
            rows = compare(arguments, folder)
    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    title = (
        f"Mining {arguments.depth} candidates of {arguments.queries} queries from {arguments.documents} "
        f"documents, d = {arguments.dim}, {threads} threads"
    )
    report(title, rows, arguments.out)


if __name__ == "__main__":
    main()
