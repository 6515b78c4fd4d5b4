"""Adapters on a frozen encoder, against the encoder alone and against linear maps alone.

Run: OMP_NUM_THREADS=1 python benchmarks/frozen.py ../shared/data/nl2bash --out results/frozen.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from common import report
from rrra_hf import AdapterConfig, FitArguments, RetrieverAdapter, fit_adapter, load_collection
from rrra_hf.cli.common import DEFAULT_MODEL, packaged
from rrra_hf.embeddings import embed_collection
from rrra_hf.training import LabelledQueries
from rrra_hf.training.measure import measure

NAMES = {"none": "adapter", "query": "query map", "both": "two-sided map"}


def benchmark(source: str, encoder: SentenceTransformer, cache: Path, seed: int) -> list[dict[str, Any]]:
    """Fit each system on a collection and measure it on the test split."""
    collection = load_collection(source)
    test, training = collection.split("test"), collection.split("train")
    embeddings = embed_collection(training, encoder, cache_dir=cache)
    test_embeddings = embed_collection(test, encoder, cache_dir=cache)
    development = None
    if "dev" in collection.splits:
        part = collection.split("dev")
        development = LabelledQueries(
            embed_collection(part, encoder, cache_dir=cache).queries, part.positive_rows
        )

    def row(system: str, adapter: RetrieverAdapter | None, seconds: float) -> dict[str, Any]:
        figures = measure(test, test_embeddings, adapter)
        return {"collection": collection.name, "system": system, "seed": seed, **figures, "seconds": seconds}

    rows = [row("encoder alone", None, 0.0)]
    for stage1, name in NAMES.items():
        start = time.perf_counter()
        adapter = fit_adapter(
            embeddings.queries,
            embeddings.documents,
            training.positive_rows,
            development=development,
            arguments=FitArguments(stage1=stage1, seed=seed),
        )
        seconds = time.perf_counter() - start
        if stage1 != "none":
            rows.append(row(f"{name} alone", _maps_alone(adapter), seconds))
        rows.append(row(name if stage1 == "none" else f"{name} + adapter", adapter, seconds))
    return rows


def _maps_alone(adapter: RetrieverAdapter) -> RetrieverAdapter:
    """Return an adapter with the same maps that reranks nothing."""
    config = AdapterConfig.from_dict({**adapter.config.to_dict(), "lambda_": 0.0})
    alone = RetrieverAdapter(config)
    alone.load_state_dict(adapter.state_dict())
    return alone.eval()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collections", nargs="+")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cache-dir", type=Path, default=Path("results/embeddings"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = SentenceTransformer(packaged(arguments.model))
    encoder.max_seq_length = arguments.max_length
    rows = [
        row
        for source in arguments.collections
        for seed in range(arguments.seeds)
        for row in benchmark(source, encoder, arguments.cache_dir, seed)
    ]
    report("Frozen encoder, test split, one thread", rows, arguments.out)


if __name__ == "__main__":
    main()
