"""Search latency, recall and size of every kind of index, and how they grow with the number of documents.

The baseline is the flat index of the same run, which compares each query with all documents. Every index is
saved and loaded again, memory-mapped if possible, and timed one query at a time. The documents are synthetic
unit vectors: clusters in a space of few dimensions, with noise in all dimensions.

Growth is fitted as `time = a * documents ** exponent` over the sizes and extrapolated to `--project`
documents. The exponent of building is at least 1, because at small sizes training dominates. An index is
assumed to fill half of a machine's memory. Machines build and search their shares at the same time, so a
search takes as long as on one share.

Run: OMP_NUM_THREADS=1 python benchmarks/search_latency.py --out results/search_latency.json
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import report
from rrra_hf.candidates import DEPTH
from rrra_hf.embeddings import load_embeddings, save_embeddings
from rrra_hf.indexes import FlatIndex, load_index, make_index, recall_report

KINDS = ["flat", "hnsw", "ivf-flat", "ivf-sq8", "ivf-pq"]
CLUSTERS, LATENT_DIM, NOISE = 1000, 48, 0.3


def unit_vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Return clustered unit vectors. The clusters are the same for every seed."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = shared.standard_normal((CLUSTERS, LATENT_DIM), dtype=np.float32)
    directions = shared.standard_normal((LATENT_DIM, dim), dtype=np.float32) / math.sqrt(LATENT_DIM)
    vectors = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 100_000):
        block = vectors[start : start + 100_000]
        latent = centres[rng.integers(0, CLUSTERS, len(block))]
        latent = latent + rng.standard_normal(latent.shape, dtype=np.float32)
        block[:] = latent @ directions + NOISE * rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def size_of(path: Path) -> int:
    """Return the bytes of an index that a search keeps in memory, without the exact embeddings."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*.faiss"))


def measure(count: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each kind of index, with `count` documents."""
    rows: list[dict[str, Any]] = []
    queries = unit_vectors(arguments.queries, arguments.dim, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        save_embeddings(Path(folder) / "embeddings.arrow", unit_vectors(count, arguments.dim, seed=2))
        documents = load_embeddings(Path(folder) / "embeddings.arrow")
        exact = FlatIndex(arguments.dim)
        exact.add(documents)
        for kind in ["flat", *(kind for kind in arguments.kinds if kind != "flat")]:
            path = Path(folder) / kind
            start = time.perf_counter()
            index = make_index(arguments.dim, count, kind)
            index.add(documents)
            seconds = time.perf_counter() - start
            index.save(path)
            loaded = load_index(path)
            loaded.search(queries[:10], arguments.k)
            found = recall_report(loaded, queries, arguments.k, exact)
            flat_p50 = rows[0]["p50 ms"] if rows else found.p50_ms
            rows.append(
                {
                    "documents": count,
                    "index": kind,
                    f"recall@{arguments.k}": found.recall,
                    "p50 ms": found.p50_ms,
                    "p95 ms": found.p95_ms,
                    "p99 ms": found.p99_ms,
                    "p50 / flat": found.p50_ms / flat_p50,
                    "build s": seconds,
                    "bytes per document": size_of(path) / count,
                }
            )
    return rows


def exponent(rows: list[dict[str, Any]], column: str) -> float:
    """Return the slope of log time over log number of documents."""
    sizes, times = ([math.log(row[name]) for row in rows] for name in ("documents", column))
    return float(np.polyfit(sizes, times, deg=1)[0])


def project(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Extrapolate the rows of one kind of index to `arguments.project` documents."""
    last = max(rows, key=lambda row: row["documents"])
    gigabytes = last["bytes per document"] * arguments.project / 2**30
    machines = max(1, math.ceil(2 * gigabytes / arguments.machine_gb))
    growth = arguments.project / machines / last["documents"]
    search, build = exponent(rows, "p50 ms"), exponent(rows, "build s")
    return {
        "documents": arguments.project,
        "index": last["index"],
        "exponent of p50": search,
        "exponent of build": build,
        "memory GB": gigabytes,
        "exact embeddings on disk GB": 4 * arguments.dim * arguments.project / 2**30,
        f"machines of {arguments.machine_gb} GB": machines,
        "p50 ms": last["p50 ms"] * growth**search,
        "build hours": last["build s"] * growth ** max(1, build) / 3600,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=DEPTH)
    parser.add_argument("--project", type=int, default=10**8)
    parser.add_argument("--machine-gb", type=int, default=64)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [row for count in arguments.sizes for row in measure(count, arguments)]
    report(f"One query at a time, d = {arguments.dim}, k = {arguments.k}", rows, arguments.out)
    if len(arguments.sizes) < 2:
        return
    kinds = list(dict.fromkeys(row["index"] for row in rows))
    projected = [project([row for row in rows if row["index"] == kind], arguments) for kind in kinds]
    out = arguments.out and arguments.out.with_stem(f"{arguments.out.stem}_projection")
    report("Extrapolation", projected, out)


if __name__ == "__main__":
    main()
