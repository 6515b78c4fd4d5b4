"""The time of an audit beside that of mining the same candidates.

The texts are synthetic, see `word_search.py`, and so is the encoder; the embeddings are cached before. Mining
finds the candidates by embeddings and words, without probabilities. The audit also reads them, and writes its
folder. Both take turns.

Run: OMP_NUM_THREADS=1 python benchmarks/audit.py --out results/audit.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset

from common import report
from hard_negatives import static
from rrra_hf import Collection, audit, mine
from rrra_hf.embeddings import embed_collection
from word_search import Zipf, seconds

WORDS, QUERY_WORDS = 40, 8


def synthetic(queries: int, documents: int) -> Collection:
    """Return a collection whose queries have one label each."""
    zipf = Zipf()
    document_ids = [f"d{number}" for number in range(documents)]
    query_ids = [f"q{number}" for number in range(queries)]
    return Collection(
        name="synthetic",
        corpus=Dataset.from_dict(
            {"id": document_ids, "title": [""] * documents, "text": list(zipf.texts(documents, WORDS, 0))}
        ),
        queries=Dataset.from_dict({"id": query_ids, "text": list(zipf.texts(queries, QUERY_WORDS, 1))}),
        qrels_by_split={
            "train": {name: {document_ids[row % documents]: 1} for row, name in enumerate(query_ids)}
        },
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    collection, encoder = synthetic(arguments.queries, arguments.documents), static()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"cache_dir": folder, "show_progress_bar": False}
        embed_collection(collection, encoder, **given)

        def mined() -> None:
            mine(collection, encoder, arguments.depth, adapter=None, **given)

        def audited() -> None:
            audit(collection, encoder, depth=arguments.depth, **given).save(Path(folder) / "audit")

        for _ in range(arguments.repeats):
            rows.append({"mining s": seconds(mined)[0], "audit s": seconds(audited)[0]})
            rows[-1]["ratio"] = rows[-1]["audit s"] / rows[-1]["mining s"]
    rows.append({name: statistics.median(row[name] for row in rows) for name in rows[0]})
    size = f"{arguments.queries} queries, {arguments.documents} documents, depth {arguments.depth}"
    report(f"{size}; last: median", rows, arguments.out)


if __name__ == "__main__":
    main()
