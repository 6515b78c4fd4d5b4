"""Embeddings stored as float32, int8 and bits: size and time at a million documents, nDCG on collections.

The first table compares this package's indexes with FAISS's `IndexFlatIP` and with `semantic_search_faiss` of
sentence-transformers, in one run. All compare a query with all documents. Ours and FAISS's are saved and
opened again. Queries are searched one at a time, each by all indexes in turns. The documents are synthetic,
see `search_latency.py`. Memory is what opening or building an index adds to a process, without files that are
mapped. Recall is the share of the documents that float32 finds.

The second table is of real collections in BEIR layout: nDCG@10 of the encoder alone and reranked.

Run: OMP_NUM_THREADS=1 python benchmarks/storage.py --out results/storage.json --data data/scifact data/cacm
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss

from common import report
from rrra_hf import Retriever, load_collection
from rrra_hf.candidates import DEPTH
from rrra_hf.cli.opening import DEFAULT_MODEL, packaged
from rrra_hf.embeddings import load_embeddings, save_embeddings
from rrra_hf.indexes import load_index, make_index
from rrra_hf.retrieval import evaluate
from search_latency import unit_vectors
from taught import wordllama_files

STORAGES = ["float32", "int8", "binary"]
OURS, FAISS, THEIRS = "rrra_hf", "FAISS", "sentence-transformers"
# Library and what it calls the storage. That of sentence-transformers is made when it is opened.
SYSTEMS = [
    *((OURS, storage) for storage in STORAGES),
    (FAISS, "IndexFlatIP"),
    *((THEIRS, precision) for precision in ("float32", "uint8", "ubinary")),
]
MEASURE = "nDCG@10"
Search = Callable[[np.ndarray, int], np.ndarray]


def build(library: str, storage: str, embeddings: Path, path: Path) -> float:
    """Save an index of the embeddings, and return the seconds that it took."""
    documents = load_embeddings(embeddings)
    start = time.perf_counter()
    if library == OURS:
        index = make_index(documents.shape[1], len(documents), "flat", storage=storage)
        index.add(documents)
        index.save(path)
    elif library == FAISS:
        flat = faiss.IndexFlatIP(documents.shape[1])
        flat.add(documents)
        faiss.write_index(flat, str(path))
    return time.perf_counter() - start


def opened(library: str, storage: str, embeddings: Path, path: Path) -> Search:
    """Return what searches an index."""
    if library == THEIRS:
        return _theirs(storage, load_embeddings(embeddings))
    index = load_index(path) if library == OURS else faiss.read_index(str(path))
    return lambda queries, k: index.search(queries, k)[1]


def _theirs(precision: Any, documents: np.ndarray) -> Search:
    ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
    options: dict[str, Any] = {"corpus_precision": precision, "ranges": ranges, "rescore_multiplier": 4}
    options["rescore"] = precision != "float32"
    corpus: Any = quantize_embeddings(documents, precision, ranges)
    *_, index = semantic_search_faiss(documents[:1], corpus, output_index=True, **options)

    def search(queries: np.ndarray, k: int) -> np.ndarray:
        hits, *_ = semantic_search_faiss(queries, corpus_index=index, top_k=k, **options)
        return np.array([[hit["corpus_id"] for hit in found] for found in hits])

    return search


def sizes(system: tuple[str, str], embeddings: Path, path: Path, queries: np.ndarray) -> dict[str, Any]:
    """Open and search an index in a process of its own, and return what that takes."""
    before, start = megabytes(), time.perf_counter()
    search = opened(*system, embeddings, path)
    seconds = time.perf_counter() - start
    search(queries, DEPTH)
    return {"open s": seconds, "disk MB": size_of(path), "memory MB": megabytes() - before}


def searched(searches: list[Search], queries: np.ndarray, k: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Search one query after another, each by all indexes in turns: what else runs disturbs all alike.

    Returns:
        Median milliseconds by index, and the documents that it found, `(queries, k)`.
    """
    seconds = np.empty((len(searches), len(queries)))
    found = [np.empty((len(queries), k), dtype=np.int64) for _ in searches]
    for number, search in product(range(len(queries)), range(len(searches))):
        start = time.perf_counter()
        found[search][number] = searches[search](queries[number : number + 1], k)[0]
        seconds[search, number] = time.perf_counter() - start
    return 1000 * np.median(seconds, axis=1), found


def megabytes() -> float:
    """Return the memory of this process, without files that are mapped."""
    gc.collect()
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / 1e6


def size_of(path: Path) -> float:
    """Return the megabytes of a file or folder, 0 if there is none."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each way to store the synthetic documents."""
    queries, k = unit_vectors(arguments.queries, arguments.dim, seed=1), arguments.k
    with (
        tempfile.TemporaryDirectory() as folder,
        # Each step has a process of its own, whose memory is measured.
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process,
    ):
        embeddings = Path(folder) / "embeddings.arrow"
        save_embeddings(embeddings, unit_vectors(arguments.documents, arguments.dim, seed=2))
        paths = [Path(folder) / " ".join(system) for system in SYSTEMS]
        rows: list[dict[str, Any]] = []
        for system, path in zip(SYSTEMS, paths, strict=True):
            seconds = process.apply(build, (*system, embeddings, path))
            taken = process.apply(sizes, (system, embeddings, path, queries[:1]))
            rows.append({"index": path.name, "build s": seconds, **taken})
        searches = [opened(*system, embeddings, path) for system, path in zip(SYSTEMS, paths, strict=True)]
        milliseconds, found = searched(searches, queries, k)
    for row, median, documents in zip(rows, milliseconds, found, strict=True):
        shared = [len(np.intersect1d(*pair)) for pair in zip(found[0], documents, strict=True)]
        row["ms"] = float(median)
        row["ms / float32"] = float(median / milliseconds[0])
        row[f"recall@{k}"] = float(np.mean(shared)) / k
    return rows


def minilm() -> SentenceTransformer:
    """Return all-MiniLM-L6-v2."""
    return SentenceTransformer(packaged(DEFAULT_MODEL), device="cpu")


def wordllama() -> SentenceTransformer:
    """Return the static model of wordllama."""
    table, tokenizer = wordllama_files()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")


ENCODERS = {"all-MiniLM-L6-v2": minilm, "wordllama": wordllama}


def ranked(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Return one row for each encoder, with the nDCG@10 of each storage on a collection's test queries."""
    collection = load_collection(folder, split="test")
    rows = []
    for name, encoder in ENCODERS.items():
        row: dict[str, Any] = {"collection": folder.name, "encoder": name}
        retriever = Retriever(encoder())
        for storage in STORAGES:
            retriever.index(collection, cache, kind="flat", storage=storage)
            quality = evaluate(retriever, collection, [MEASURE]).quality
            row[storage] = quality["encoder"].mean[MEASURE]
            row[f"{storage} reranked"] = quality["adapter"].mean[MEASURE]
        rows.append(row)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--k", type=int, default=DEPTH)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of collections")
    parser.add_argument("--cache-dir", type=Path, help="folder of the embedding cache")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    title = f"{arguments.documents:,} documents, d = {arguments.dim}, k = {arguments.k}"
    report(title, measure(arguments), arguments.out)
    rows = [row for folder in arguments.data for row in ranked(folder, arguments.cache_dir)]
    if rows:
        out = arguments.out and arguments.out.with_stem(f"{arguments.out.stem}_ndcg")
        report(MEASURE, rows, out)


if __name__ == "__main__":
    main()
