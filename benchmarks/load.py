"""Time and memory of loading a BEIR folder, beside `datasets.load_dataset("json")` on the same corpus.

Example: `python benchmarks/load.py --documents 1000000`
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np


def write_corpus(folder: Path, documents: int) -> None:
    """Write documents of 30 to 90 words, in words of eight characters."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:07d}" for number in range(50_000)])
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number in range(documents):
            text = " ".join(words[rng.integers(0, len(words), rng.integers(30, 90))])
            file.write(json.dumps({"_id": f"d{number}", "title": f"Title {number}", "text": text}) + "\n")


def load_ours(folder: Path) -> int:
    """Load the folder with this package."""
    from rrra_hf.data import load_collection

    return len(load_collection(folder).corpus)


def load_theirs(folder: Path) -> int:
    """Load the corpus with datasets, into an empty cache."""
    from datasets import load_dataset

    files = str(folder / "corpus.jsonl")
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        return len(load_dataset("json", data_files=files, split="train", cache_dir=cache))


def measured(load: Callable[[Path], int], folder: Path, results: multiprocessing.Queue) -> None:
    """Put seconds, seconds of CPU, and the megabytes that loading took beyond imports, in a queue."""
    import datasets  # noqa: F401

    import rrra_hf.data  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = perf_counter(), process_time()
    count = load(folder)
    seconds, busy = perf_counter() - start, process_time() - busy
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.put((count, seconds, busy, (after - before) / 1024))


def main() -> None:
    """Measure both, each in a process of its own, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="Where to write the corpus; a temporary folder if not given."
    )
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_corpus(folder, options.documents)
        print(f"{options.documents:,} documents, {(folder / 'corpus.jsonl').stat().st_size / 2**20:.0f} MB")
        for _ in range(options.repeats):
            for load in (load_ours, load_theirs):
                results = context.Queue()
                process = context.Process(target=measured, args=(load, folder, results))
                process.start()
                count, seconds, busy, megabytes = results.get()
                process.join()
                assert count == options.documents
                print(f"{load.__name__}: {seconds:.1f} s ({busy:.1f} s of CPU), {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
