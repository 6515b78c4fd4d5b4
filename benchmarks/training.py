"""Compare strategies of choosing negatives by fine-tuning, on collections with known false negatives.

Each training query keeps one of its relevant documents, and all of them count when test queries are measured.
The adapter that judges candidates is one that the collection did not teach. Finished cells are kept, so that
the work can be done in several sittings, and the page is written from those that there are.

Run: OMP_NUM_THREADS=1 python benchmarks/training.py --data DATA --markdown docs/training.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from common import report
from pretrain import adapter_without, lessons_by_collection
from rrra_hf import Collection, load_collection
from rrra_hf.cli.opening import DEFAULT_MODEL, packaged
from rrra_hf.comparison import (
    Cell,
    CellStore,
    CompareArguments,
    Method,
    Result,
    Task,
    Trial,
    choose_methods,
    make_tables,
    prepare,
    run_cells,
)
from rrra_hf.comparison.strategies.heuristics import TOP_K
from rrra_hf.comparison.truth import ground_truth
from rrra_hf.data.python_docs import python_docs
from rrra_hf.models.files_rrra import read_json
from taught import ENCODERS, TEACHERS, Taught
from training_page import DEFAULT, REFERENCE, Tables, gains, page, strategy_rows

COLLECTIONS = (
    "worldtree-open",
    "healthver",
    "climatefever",
    "bioasq12b",
    "mediqa-qa",
    "nl2bash",
    "covidfact",
    "python-docs",
)
# The documentation of the packages that are installed here, and how many documents of it.
PYTHON_DOCS, DOCUMENTS = "python-docs", 3000
# Tokens that texts are cut to, which most of them are shorter than.
MAX_LENGTH = {"mediqa-qa": 128, "bioasq12b": 96}
SHORT = 64
# Queries of each split at most.
MOST = {"train": 2000, "dev": 150, "test": 400}
# Share of the queries that train where all are in one split.
TRAINING_SHARE = 0.6
METHODS = (
    "untrained",
    "in-batch",
    "drop",
    "perc-pos",
    "gist",
    "oracle-relabel",
    "relabel",
    "distill",
    "top-k",
    "soft",
    "rrra",
    "soft-distill",
    "oracle",
    "simans",
    "debiased",
    "ccr",
)
TEACHING = ["all-MiniLM-L6-v2"]
# Learning rates of the training modes, the best for in-batch negatives of those that were tried.
LEARNING_RATES = {"full": 5e-5, "lora": 1e-3}
# What is kept with the code: finished cells, and the adapters that judge.
KEPT = Path(__file__).parent / "training_cells"
# Where `train_or_fit.py` keeps its rows, in that folder.
TRAIN_OR_FIT = "train_or_fit"
# Where the cells are that say what strategies cost. Strategies stop at different steps, so these are the
# first steps on one collection, in one run.
COSTS = "costs"


def with_splits(collection: Collection) -> Collection:
    """Return a collection with queries to train on, and not too many of each split.

    Where there is no split `train`, `dev` trains, or else a part of the test queries.
    """
    rng = np.random.default_rng(0)
    qrels = dict(collection.qrels_by_split)
    if "train" not in qrels and "dev" in qrels:
        qrels["train"] = qrels.pop("dev")
    if "train" not in qrels:
        names = list(qrels["test"])
        order = rng.permutation(len(names))
        cut = int(TRAINING_SHARE * len(names))
        for split, rows in (("train", order[:cut]), ("test", order[cut:])):
            qrels[split] = {names[row]: collection.qrels[names[row]] for row in np.sort(rows)}
    for split, most in MOST.items():
        if len(qrels.get(split, ())) > most:
            names = list(qrels[split])
            kept = np.sort(rng.choice(len(names), most, replace=False))
            qrels[split] = {names[row]: qrels[split][names[row]] for row in kept}
    return replace(collection, qrels_by_split=qrels)


def judges(data: Path, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the folder of the adapter that judges each collection which taught the packaged one."""
    missing = [name for name in names if name in TEACHERS and not (folder / name).exists()]
    if missing:
        taught = {
            encoder: {name: Taught(data / name, ENCODERS[encoder]) for name in TEACHERS}
            for encoder in TEACHING
        }
        lessons = lessons_by_collection(taught, TEACHING)
        for name in missing:
            adapter_without(name, lessons, seed=0, steps=1000).save_pretrained(folder / name)
    return {name: str(folder / name) for name in names if name in TEACHERS}


def opened(data: Path, name: str) -> Collection:
    """Return a collection with queries to train on."""
    whole = python_docs(limit=DOCUMENTS) if name == PYTHON_DOCS else load_collection(data / name)
    return with_splits(whole)


def prepared(data: Path, name: str, encoder: str, cache: Path) -> Task:
    """Return a collection, encoded."""
    model = SentenceTransformer(packaged(encoder))
    model.max_seq_length = MAX_LENGTH.get(name, SHORT)
    return prepare(opened(data, name), model, encoder_name=packaged(encoder), cache_dir=cache)


def finished(
    task: Task, methods: Sequence[Method], settings: CompareArguments, stores: dict[bool, CellStore]
) -> dict[Cell, Result]:
    """Return the results of the cells that were run, in either precision.

    Args:
        task: The collection.
        methods: The methods.
        settings: Settings of the cells, in any precision.
        stores: Where those in bfloat16 are kept, and others.
    """
    found: dict[Cell, Result] = {}
    for method in methods:
        cell = Cell(method.table, task.name, method.name, settings.seed if method.seeded else 0)
        for bf16, store in stores.items():
            result = store.load(cell, method.settings_of(task, replace(settings, bf16=bf16)))
            if result is not None:
                found[cell] = result
    return found


def arguments_parser(**defaults: object) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        defaults: Other defaults than those of one core.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of finished cells and judges")
    parser.add_argument("--cache", type=Path, default=Path("results/training"), help="folder of embeddings")
    parser.add_argument("--markdown", type=Path, help="page to write the tables to")
    parser.add_argument("--picture", type=Path, help="SVG to draw the gains to")
    parser.add_argument("--finished", action="store_true", help="run nothing, take the cells that there are")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS), choices=COLLECTIONS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--train", nargs="*", default=["full"], choices=list(LEARNING_RATES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, help="by default, one for each training mode")
    parser.add_argument("--float32", action="store_true", help="for CPUs that are slow in bfloat16")
    parser.set_defaults(**defaults)
    return parser


def results_of(task: Task, settings: CompareArguments, arguments: argparse.Namespace) -> dict[Cell, Result]:
    """Return the results of a collection, seed and training mode, after running what is missing."""
    folder = arguments.kept / settings.train
    stores = {True: CellStore(folder), False: CellStore(folder.with_name(f"{folder.name}-float32"))}
    methods = choose_methods("strategies", arguments.methods, settings)
    done = finished(task, methods, settings, stores)
    if arguments.finished:
        return done
    names_done = {cell.method for cell in done}
    missing = [method for method in methods if method.name not in names_done]
    return done | run_cells([task], missing, settings, stores[settings.bf16])


def run(arguments: argparse.Namespace) -> None:
    """Run what is missing, and write the tables."""
    judged = judges(arguments.data, arguments.kept / "judges", arguments.collections)
    results: dict[str, dict[Cell, Result]] = {mode: {} for mode in arguments.train}
    shares: dict[str, float] = {}
    for name in arguments.collections:
        task = prepared(arguments.data, name, arguments.model, arguments.cache)
        for seed in arguments.seeds:
            for mode in arguments.train:
                settings = CompareArguments(
                    seeds=1,
                    seed=seed,
                    train=mode,
                    steps=arguments.steps,
                    batch_size=arguments.batch_size,
                    learning_rate=arguments.learning_rate or LEARNING_RATES[mode],
                    bf16=not arguments.float32,
                    injected_rate=0.0,
                    judge=judged.get(name),
                )
                results[mode] |= results_of(task, settings, arguments)
            truth = ground_truth(Trial(task, seed, settings))
            shares[name] = float(truth.false_negative[:, :TOP_K].mean())
    tables = {
        mode: Tables(make_tables(found, REFERENCE), make_tables(found, DEFAULT))
        for mode, found in results.items()
        if found
    }
    if not tables:
        raise SystemExit(f"There is no finished cell of these collections and methods in {arguments.kept}.")
    for mode, of in tables.items():
        out = arguments.cache / f"training-{mode}.json"
        report(f"nDCG@10, training mode {mode}", strategy_rows(of, {}), out)
    if arguments.markdown:
        cells = sorted((arguments.kept / COSTS).rglob("seed-0.json"))
        costs = {path.parent.name: read_json(path)["seconds"] for path in cells}
        fits = [read_json(path) for path in sorted((arguments.kept / TRAIN_OR_FIT).glob("*.json"))]
        arguments.markdown.write_text(page(tables, shares, fits, costs, arguments), encoding="utf-8")
    if arguments.picture:
        arguments.picture.write_text(gains(next(iter(tables.values())).gains, shares), encoding="utf-8")


def main() -> None:
    """Run what the command line asks for."""
    run(arguments_parser().parse_args())


if __name__ == "__main__":
    main()
