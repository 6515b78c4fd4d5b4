"""`rrra demo`: all steps on the Python documentation of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .common import Json, Seed, console, errors, print_json
from .opening import DEFAULT_MODEL, EncoderName, packaged
from .output import writes
from .search import hits_table

if TYPE_CHECKING:
    from ..data import Collection
    from ..retrieval import Retriever

MAX_LENGTH = 64
# What is compared, besides the encoder alone.
TRAINED, FITTED, LORA = "+ trained adapter", "+ fitted adapter", "LoRA in three stages"
MEASURES = ("nDCG@10", "R@1", "R@100")
SEARCHES = (
    "read a csv file into a table",
    "split an array into training and test parts",
    "run a command in another process and get its output",
)
FALSE_NEGATIVES = 5


@dataclass
class _Demo:
    """The collection, and figures of each system on the held-out queries."""

    collection: Collection
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, name: str, retriever: Retriever, cache: Path, seconds: float) -> None:
        """Evaluate a retriever and add its figures."""
        from ..retrieval import evaluate

        retriever.index(self.collection, cache_dir=cache)
        quality, milliseconds = evaluate(retriever, self.collection.split("test"), MEASURES)
        # The last one is of the search with everything that comes after it.
        means = list(quality.values())[-1].mean
        cost = milliseconds["search"] + milliseconds.get("rerank", 0.0)
        self.rows[name] = {**means, "seconds": seconds, "ms": cost}


@writes(resumes="what is finished is kept")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo"),
    model: EncoderName = DEFAULT_MODEL,
    documents: Annotated[int, typer.Option(min=100, help="Approximate number of documents.")] = 3000,
    steps: Annotated[int, typer.Option(min=1, help="Training steps in stage 1 and in stage 3.")] = 12,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Search, fit and find missing labels on the Python documentation of this machine, offline.

    Example: `rrra demo`, and then `rrra search demo/retriever "compress a folder into a zip archive"`
    """
    from sentence_transformers import SentenceTransformer

    from ..candidates import LabelledQueries
    from ..embeddings import embed_collection
    from ..fitting import FitArguments, fit_adapter
    from ..indexes import WordIndex
    from ..models.files_rrra import read_json
    from ..retrieval import Retriever
    from ..training import TrainArguments, train

    collection = _collection(out, documents)
    job = _Demo(collection)
    arguments = FitArguments(seed=seed)
    cache = out / "embeddings"

    _say("Encoding the collection")
    start = time.perf_counter()
    encoder = SentenceTransformer(packaged(model))
    encoder.max_seq_length = MAX_LENGTH
    parts = {name: collection.split(name) for name in ("train", "dev")}
    embeddings = {name: embed_collection(part, encoder, cache_dir=cache) for name, part in parts.items()}
    encoding = time.perf_counter() - start
    job.measure("encoder alone", Retriever(encoder, adapter=None), cache, 0.0)
    job.measure(TRAINED, Retriever(encoder), cache, 0.0)

    _say("Fitting an adapter on the frozen encoder")
    start = time.perf_counter()
    words = WordIndex.of(collection.document_texts)
    dev = LabelledQueries(
        embeddings["dev"].queries, parts["dev"].positive_rows, words.count(parts["dev"].query_texts)
    )
    adapter = fit_adapter(
        embeddings["train"].queries,
        embeddings["train"].documents,
        parts["train"].positive_rows,
        development=dev,
        arguments=arguments,
        query_words=words.count(parts["train"].query_texts),
        document_words=words,
    )
    seconds = time.perf_counter() - start
    retriever = Retriever(encoder, adapter=adapter)
    job.measure(FITTED, retriever, cache, seconds)
    retriever.save_pretrained(out / "retriever")

    _say("Training the encoder with LoRA, in three stages")
    trained = train(
        collection,
        packaged(model),
        out / "run",
        TrainArguments(
            stage1_max_steps=steps,
            stage3_max_steps=steps,
            batch_size=12,
            num_negatives=2,
            folds=2,
            max_seq_length=MAX_LENGTH,
            seed=seed,
            fit=arguments,
        ),
    )
    stages = read_json(out / "run" / "results.json")
    seconds = sum(stage["seconds"] for stage in stages.values())
    job.measure(LORA, Retriever(trained), out / "run" / "embeddings", seconds)

    result = {
        "documents": len(collection.document_ids),
        "queries": {name: len(qrels) for name, qrels in collection.qrels_by_split.items()},
        "encoding_seconds": encoding,
        "systems": job.rows,
        "training": stages["comparison"]["sentence"],
        "searches": {query: _both_ways(retriever, query) for query in SEARCHES},
        "false_negatives": _false_negatives(collection, out / "run" / "stage2" / "pool"),
        "loaders": _three_loaders(out / "run" / "model", collection),
    }
    if json:
        print_json(result)
    else:
        _report(result, retriever, out)


def _say(step: str) -> None:
    errors.print(f"{step} ...", style="bold")


def _collection(out: Path, documents: int) -> Collection:
    from ..data.python_docs import python_docs

    _say("Collecting the documentation of the Python packages on this machine")
    return python_docs(limit=documents, cache_dir=out / "collection")


def _both_ways(retriever: Retriever, query: str) -> dict[str, Any]:
    """Return the first three hits without and with reranking."""
    return {
        name: retriever.search(query, 3, rerank, probabilities=True, show_progress_bar=False)[0]
        for name, rerank in (("encoder", False), ("reranked", True))
    }


def _false_negatives(collection: Collection, folder: Path) -> list[dict[str, Any]]:
    """Return the training pairs with the highest false-negative probability, one per query."""
    import numpy as np

    from ..candidates import CandidatePool

    pool = CandidatePool.load(folder)
    assert pool.probability is not None
    probabilities = np.nan_to_num(pool.probability)
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
                "known_sibling": negative in collection.siblings.get(positive, []),
            }
        )
    return found


def _three_loaders(folder: Path, collection: Collection) -> dict[str, float]:
    """Load a folder with three loaders and return the largest differences to the first one's embeddings."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    from ..models.modeling_rrra import RRRAModel

    texts = collection.document_texts[:16]
    expected = SentenceTransformer(str(folder), device="cpu").encode_document(texts)
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    distances = {}
    for name, loader in (("RRRAModel", RRRAModel), ("AutoModel", AutoModel)):
        with torch.inference_mode():
            embeddings = loader.from_pretrained(folder).eval()(**tokens).pooler_output
        distances[name] = float(abs(embeddings.numpy() - expected).max())
    return distances


# -------------------------------------------------------------------- printing


def _report(result: dict[str, Any], retriever: Retriever, out: Path) -> None:
    queries = result["queries"]
    console.print(
        f"\n{result['documents']} documents; {queries['train']} training, {queries['dev']} development and "
        f"{queries['test']} held-out queries; encoded in {result['encoding_seconds']:.0f} s.\n"
    )
    console.print(_systems_table(result["systems"]))
    console.print(f"\n{result['training']}\n{_best(result['systems'])}")
    for query, rankings in result["searches"].items():
        for name, hits in rankings.items():
            console.print(hits_table(f"\n{query} ({name})", hits, retriever))
    console.print(_false_negatives_table(result["false_negatives"]))
    distances = ", ".join(f"{name} {distance:.1e}" for name, distance in result["loaders"].items())
    console.print(
        f"\n{out}/run/model opens with three loaders; greatest difference from SentenceTransformer: "
        f'{distances}.\nTry a search: rrra search {out}/retriever "compress a folder into a zip archive"'
    )


def _systems_table(systems: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Held-out queries", title_justify="left")
    table.add_column("")
    for name in (*MEASURES, "s to train", "ms per query*"):
        table.add_column(name, justify="right")
    for name, row in systems.items():
        figures = [f"{row[measure]:.3f}" for measure in MEASURES]
        table.add_row(name, *figures, f"{row['seconds']:.0f}", f"{row['ms']:.2f}")
    table.caption = "* search and reranking, without encoding the query"
    return table


def _best(systems: dict[str, dict[str, float]]) -> str:
    scores = {name: row["nDCG@10"] for name, row in systems.items()}
    # Of equal ones the first, which is the simplest.
    return f"Best on the held-out queries, by nDCG@10: {max(scores, key=lambda name: scores[name])}."


def _false_negatives_table(pairs: list[dict[str, Any]]) -> Table:
    table = Table(title='\nTraining pairs whose "negative" is probably relevant', title_justify="left")
    for name in ("p", "query", "labelled document", "mined negative"):
        table.add_column(name, justify="right" if name == "p" else "left")
    for pair in pairs:
        sibling = " (known sibling)" if pair["known_sibling"] else ""
        table.add_row(
            f"{pair['probability']:.2f}", pair["query"], pair["positive"], pair["negative"] + sibling
        )
    return table
