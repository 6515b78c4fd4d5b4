"""BM25 over words: time to build, open and search the index, beside bm25s on the same words.

The corpus is synthetic: words follow Zipf's law, and so do queries, without stop words, which makes searching
hard. Both search the same words one query at a time, on one thread, and their scores are compared.

Run: OMP_NUM_THREADS=1 python benchmarks/word_search.py --out results/word_search.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from scipy.sparse import csr_array

from common import report
from rrra_hf.indexes import WordIndex
from rrra_hf.indexes.word_counts import K1, B

SIZES = [10_000, 100_000]
LARGE = 1_000_000
VOCABULARY, WORDS, QUERY_WORDS = 200_000, 60, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def spelled(number: int) -> str:
    """Return a word of at least two letters, another one for each number."""
    number, last = divmod(number, len(LETTERS))
    return (spelled(number) if number >= len(LETTERS) else LETTERS[number]) + LETTERS[last]


class Zipf:
    """Texts whose words follow Zipf's law."""

    def __init__(self) -> None:
        self.words = [spelled(number) for number in range(VOCABULARY)]
        self.cumulative = np.cumsum(1 / np.arange(1, VOCABULARY + 1))

    def texts(self, count: int, length: int, seed: int) -> Iterator[str]:
        """Yield texts of about `length` words."""
        rng = np.random.default_rng(seed)
        for _ in range(count):
            drawn = rng.random(max(1, rng.poisson(length))) * self.cumulative[-1]
            yield " ".join(self.words[word] for word in np.searchsorted(self.cumulative, drawn))


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a function takes, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def timed(search: Callable[[Any], np.ndarray], queries: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the milliseconds of each query, and the scores found."""
    search(queries[0])
    taken, found = zip(*(seconds(partial(search, query)) for query in queries), strict=True)
    return 1000 * np.array(taken), np.stack(found)


def row_of(system: str, build: float, opened: float, milliseconds: np.ndarray) -> dict[str, Any]:
    """Return the columns that all systems have."""
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"index": system, "build s": build, "open ms": 1000 * opened, "p50 ms": p50, "p95 ms": p95}


def search_ours(
    texts: list[str], queries: list[str], k: int, folder: Path
) -> tuple[dict[str, Any], np.ndarray, float]:
    """Build, save, open and search our index. Return a row, the scores, and the milliseconds of counting."""
    build, index = seconds(lambda: WordIndex.of(texts, language="none", show_progress_bar=False))
    index.save(folder / "ours")
    opened, index = seconds(lambda: WordIndex.load(folder / "ours"))
    counting, counts = timed(lambda text: index.count([text]), queries)
    counted: list[csr_array] = list(counts)
    milliseconds, scores = timed(lambda query: index.search(query, k)[0][0], counted)
    return row_of("ours", build, opened, milliseconds), scores, float(np.median(counting))


def search_bm25s(
    backend: str, texts: list[str], queries: list[str], k: int, folder: Path
) -> tuple[dict[str, Any], np.ndarray]:
    """Build, save, open and search an index of bm25s. Return a row and the scores."""

    def built() -> bm25s.BM25:
        index = bm25s.BM25(k1=K1, b=B, backend=backend)
        index.index(bm25s.tokenize(texts, stopwords=None, show_progress=False), show_progress=False)
        return index

    build, index = seconds(built)
    index.save(folder / backend)
    opened, index = seconds(lambda: bm25s.BM25.load(folder / backend, mmap=True))
    tokens = [[query.split()] for query in queries]
    milliseconds, scores = timed(
        lambda query: index.retrieve([sorted(set(query[0]))], k=k, show_progress=False).scores[0], tokens
    )
    # Ours have the factor of the formula that doesn't change the ranking.
    return row_of(f"bm25s, {backend}", build, opened, milliseconds), scores * (K1 + 1)


def measure(count: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each index, with `count` documents."""
    zipf = Zipf()
    texts = list(zipf.texts(count, WORDS, seed=1))
    queries = list(zipf.texts(arguments.queries, QUERY_WORDS, seed=2))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        row, expected, counting = search_ours(texts, queries, arguments.k, Path(folder))
        rows.append({"documents": count, **row, "count ms": counting, "score difference": 0.0})
        for backend in arguments.backends:
            row, scores = search_bm25s(backend, texts, queries, arguments.k, Path(folder))
            difference = np.abs(scores - np.where(np.isneginf(expected), 0, expected)).max()
            rows.append({"documents": count, **row, "count ms": "", "score difference": float(difference)})
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--large", action="store_true", help=f"also {LARGE} documents")
    parser.add_argument("--backends", nargs="*", default=["numpy"], help="of bm25s; numba must be installed")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sizes = [*arguments.sizes, *([LARGE] if arguments.large else [])]
    rows = [row for count in sizes for row in measure(count, arguments)]
    report(f"One query at a time, {QUERY_WORDS} words, k = {arguments.k}", rows, arguments.out)


if __name__ == "__main__":
    main()
