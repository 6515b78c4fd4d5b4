"""Compare `rrra train` with `rrra fit`: is a run ever worse than the adapter fitted to the frozen encoder?

Finished collections are kept, as those of `training.py` are, whose page shows them.

Run: OMP_NUM_THREADS=1 python benchmarks/train_or_fit.py --data DATA --collections healthver
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from common import report
from rrra_hf import Collection, Retriever, RRRAModel, fit_model
from rrra_hf.cli.opening import DEFAULT_MODEL, packaged
from rrra_hf.comparison.measures import NDCG
from rrra_hf.evaluation import compare_paired
from rrra_hf.models.files_rrra import read_json, write_json
from rrra_hf.retrieval import evaluate
from rrra_hf.training import TrainArguments, train
from training import COLLECTIONS, KEPT, MAX_LENGTH, SHORT, TRAIN_OR_FIT, opened


def quality(model: RRRAModel, collection: Collection, cache: Path) -> dict[str, np.ndarray]:
    """Return the measure of each test query, without and with the adapter."""
    retriever = Retriever(model).index(collection, cache_dir=cache)
    found = evaluate(retriever, collection.split("test"), [NDCG]).quality
    return {name: system.per_query[NDCG] for name, system in found.items()}


def compared(
    collection: Collection, encoder: str, arguments: TrainArguments, folder: Path, cache: Path
) -> dict[str, Any]:
    """Return the row of a collection.

    Args:
        collection: The collection.
        encoder: Folder or name of the encoder.
        arguments: Settings of the run.
        folder: Folder of the run.
        cache: Folder of embeddings of the encoder as it came.
    """
    model = RRRAModel.from_encoder(encoder, max_seq_length=arguments.max_seq_length)
    alone = quality(model, collection, cache)["encoder"]
    start = perf_counter()
    fit_model(model, collection, arguments.fit, cache_dir=cache)
    fitting = perf_counter() - start
    before = quality(model, collection, cache)
    start = perf_counter()
    trained = train(collection, encoder, folder, arguments)
    training = perf_counter() - start
    after = quality(trained, collection, folder / "embeddings")
    against = compare_paired(after["adapter"], before["adapter"])
    return {
        "collection": collection.name,
        "encoder": float(alone.mean()),
        "fit": float(before["adapter"].mean()),
        "train": float(after["adapter"].mean()),
        "p": float(against.p_value),
        "encoder kept": read_json(folder / "results.json")["comparison"]["encoder"],
        "seconds fit": round(fitting),
        "seconds train": round(training),
    }


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--kept", type=Path, default=KEPT / TRAIN_OR_FIT, help="folder of finished rows")
    parser.add_argument("--cache", type=Path, default=Path("results/training"), help="folder of embeddings")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS), choices=COLLECTIONS)
    parser.add_argument("--steps", type=int, default=80, help="steps of each stage")
    arguments = parser.parse_args()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.collections:
        kept = arguments.kept / f"{name}.json"
        if not kept.exists():
            settings = TrainArguments(
                mode="full",
                max_seq_length=MAX_LENGTH.get(name, SHORT),
                stage1_max_steps=arguments.steps,
                stage3_max_steps=arguments.steps,
                batch_size=16,
                learning_rate=5e-5,
            )
            collection = opened(arguments.data, name)
            with tempfile.TemporaryDirectory() as folder:
                row = compared(collection, packaged(arguments.model), settings, Path(folder), arguments.cache)
            write_json(kept, row)
        rows.append(read_json(kept))
    report("nDCG@10 of test queries, a fitted adapter and a trained encoder with one", rows, None)


if __name__ == "__main__":
    main()
