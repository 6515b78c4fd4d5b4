"""`rrra demo`: the whole way of the data on this machine's Python documentation."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from .common import (
    DEFAULT_MODEL,
    Json,
    ModelName,
    Seed,
    console,
    errors,
    load_model,
    packaged,
    print_json,
)
from .search import hits_table

if TYPE_CHECKING:
    from ..data import Collection
    from ..modeling_rrra import RRRAModel
    from ..retrieval import Retriever

MAX_LENGTH = 64
MEASURES = ("nDCG@10", "R@1", "R@100")
SEARCHES = (
    "read a csv file into a table",
    "split an array into training and test parts",
    "run a command in another process and get its output",
)
FALSE_NEGATIVES = 5


@dataclass
class _Demo:
    """What the steps of the demo share."""

    collection: Collection
    cache: Path
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, name: str, model: RRRAModel, seconds: float) -> Retriever:
        """Measure a model on the held-out queries and note its row of the table."""
        from ..retrieval import Retriever, evaluate

        retriever = Retriever(model).index(self.collection, cache_dir=self.cache)
        quality, milliseconds = evaluate(retriever, self.collection.split("test"), MEASURES)
        if not self.rows:
            self.rows["encoder alone"] = {
                **quality["encoder"].mean,
                "seconds": 0.0,
                "ms": milliseconds["search"],
            }
        cost = milliseconds["search"] + milliseconds["rerank"]
        self.rows[name] = {**quality["adapter"].mean, "seconds": seconds, "ms": cost}
        return retriever


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what the demo makes.")] = Path("demo"),
    model: ModelName = DEFAULT_MODEL,
    documents: Annotated[int, typer.Option(min=100, help="Documents of the collection, about.")] = 3200,
    steps: Annotated[int, typer.Option(min=1, help="Steps of encoder training, stages 1 and 3 each.")] = 16,
    fit_steps: Annotated[int, typer.Option(min=1, help="Steps of an adapter fit.")] = 500,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do the whole job on this machine's own Python documentation; minutes, offline.

    Example: `rrra demo`, and then `rrra search demo/retriever "join two paths"`
    """
    from ..embeddings import embed_collection
    from ..training import FitArguments, TrainArguments, fit_model, train
    from ..training.run_folder import read_json

    collection = _collection(out, documents)
    job = _Demo(collection, out / "embeddings")
    arguments = FitArguments(max_steps=fit_steps, seed=seed)

    _say("Encoding the collection")
    start = time.perf_counter()
    frozen = load_model(model, MAX_LENGTH)
    embed_collection(collection, frozen.to_sentence_transformer(), cache_dir=job.cache)
    encoding = time.perf_counter() - start

    _say("Fitting an adapter on the frozen encoder")
    start = time.perf_counter()
    fit_model(frozen, collection, arguments, cache_dir=job.cache)
    plain = job.measure("+ adapter", frozen, time.perf_counter() - start)

    _say("Fitting linear maps and an adapter")
    start = time.perf_counter()
    mapped = fit_model(
        load_model(model, MAX_LENGTH),
        collection,
        FitArguments(max_steps=fit_steps, seed=seed, stage1="query"),
        cache_dir=job.cache,
    )
    with_maps = job.measure("+ query map and adapter", mapped, time.perf_counter() - start)
    with_maps.save_pretrained(out / "retriever")

    _say("Training the encoder with LoRA, in three stages")
    trained = train(
        collection,
        packaged(model),
        out / "run",
        TrainArguments(
            stage1_max_steps=steps,
            stage3_max_steps=steps,
            num_negatives=2,
            folds=2,
            max_seq_length=MAX_LENGTH,
            seed=seed,
            fit=arguments,
        ),
    )
    stages = read_json(out / "run" / "results.json")
    job.measure("LoRA in three stages", trained, sum(stage["seconds"] for stage in stages.values()))

    result = {
        "documents": len(collection.document_ids),
        "queries": {name: len(qrels) for name, qrels in collection.qrels_by_split.items()},
        "encoding seconds": encoding,
        "systems": job.rows,
        "searches": {query: _both_ways(plain, query) for query in SEARCHES},
        "false negatives": _false_negatives(collection, out / "run" / "stage2" / "pool"),
        "loaders": _three_loaders(out / "run" / "model", collection),
    }
    if json:
        print_json(result)
    else:
        _report(result, plain, out)


def _say(step: str) -> None:
    errors.print(f"[bold]{step}[/] ...", highlight=False)


def _collection(out: Path, documents: int) -> Collection:
    from ..data import python_docs

    _say("Collecting the documentation of the Python packages on this machine")
    return python_docs(limit=documents, cache_dir=out / "collection")


def _both_ways(retriever: Retriever, query: str) -> dict[str, Any]:
    """Return the first three hits without and with reranking."""
    return {
        name: retriever.search(query, 3, rerank, probabilities=True, show_progress_bar=False)[0]
        for name, rerank in (("encoder", False), ("reranked", True))
    }


def _false_negatives(collection: Collection, folder: Path) -> list[dict[str, Any]]:
    """Return the training pairs whose "negative" is most probably relevant, one a query."""
    from ..mining import CandidatePool

    pool = CandidatePool.load(folder)
    assert pool.false_negative_probability is not None
    probabilities = np.nan_to_num(pool.false_negative_probability)
    best = probabilities.argmax(axis=1)
    texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    found = []
    for row in np.argsort(-probabilities.max(axis=1), kind="stable")[:FALSE_NEGATIVES]:
        positive = pool.document_ids[pool.positives[row][0]]
        negative = pool.document_ids[pool.candidates[row, best[row]]]
        found.append(
            {
                "query": texts[pool.query_ids[row]],
                "positive": positive,
                "negative": negative,
                "probability": float(probabilities[row, best[row]]),
                "known sibling": negative in collection.siblings.get(positive, []),
            }
        )
    return found


def _three_loaders(folder: Path, collection: Collection) -> dict[str, float]:
    """Load a folder with the three loaders; return how far their embeddings are from the first's."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    from ..modeling_rrra import RRRAModel

    texts = collection.document_texts[:16]
    expected = SentenceTransformer(str(folder), device="cpu").encode_document(texts)
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    distances = {}
    for name, loader in (("RRRAModel", RRRAModel), ("AutoModel", AutoModel)):
        with torch.inference_mode():
            embeddings = loader.from_pretrained(folder).eval()(**tokens).pooler_output
        distances[name] = float(np.abs(embeddings.numpy() - expected).max())
    return distances


# -------------------------------------------------------------------- printing


def _report(result: dict[str, Any], retriever: Retriever, out: Path) -> None:
    queries = result["queries"]
    console.print(
        f"\n{result['documents']} documents; {queries['train']} training, {queries['dev']} development and "
        f"{queries['test']} held-out queries; encoded in {result['encoding seconds']:.0f} s.\n",
        highlight=False,
    )
    console.print(_systems_table(result["systems"]))
    console.print(_verdict(result["systems"]), highlight=False)
    for query, rankings in result["searches"].items():
        for name, hits in rankings.items():
            console.print(hits_table(f"\n{query} ({name})", hits, retriever))
    console.print(_false_negatives_table(result["false negatives"]))
    distances = ", ".join(f"{name} {distance:.1e}" for name, distance in result["loaders"].items())
    console.print(
        f"\n{out}/run/model opens with three loaders; greatest difference from SentenceTransformer: "
        f'{distances}.\nSearch on: rrra search {out}/retriever "join two paths"',
        highlight=False,
    )


def _systems_table(systems: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Held-out queries", title_justify="left")
    table.add_column("")
    for name in (*MEASURES, "s to train", "ms a query*"):
        table.add_column(name, justify="right")
    for name, row in systems.items():
        figures = [f"{row[measure]:.3f}" for measure in MEASURES]
        table.add_row(name, *figures, f"{row['seconds']:.0f}", f"{row['ms']:.2f}")
    table.caption = "* search and reranking; encoding the query comes on top and is the same for all"
    return table


def _verdict(systems: dict[str, dict[str, float]]) -> str:
    """Say which system ranks best, and whether training the encoder paid."""
    scores = {name: row["nDCG@10"] for name, row in systems.items()}
    best = max(scores, key=lambda name: scores[name])
    lora, frozen = scores["LoRA in three stages"], max(scores["+ adapter"], scores["+ query map and adapter"])
    verdict = "helped" if lora > frozen else "did not help"
    return (
        f"\nBest by nDCG@10: {best}. The short LoRA run {verdict}: {lora:.3f}, "
        f"against {frozen:.3f} with the encoder frozen."
    )


def _false_negatives_table(pairs: list[dict[str, Any]]) -> Table:
    table = Table(title='\nTraining pairs whose "negative" is probably relevant', title_justify="left")
    for name in ("p", "query", "labelled document", "mined negative"):
        table.add_column(name, justify="right" if name == "p" else "left")
    for pair in pairs:
        sibling = " (known sibling)" if pair["known sibling"] else ""
        table.add_row(
            f"{pair['probability']:.2f}", pair["query"], pair["positive"], pair["negative"] + sibling
        )
    return table
