"""`rrra demo`: what the package does, on the Python documentation of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .common import Json, Seed, console, errors, print_json, print_quality
from .demo_run import CACHE, MAX_LENGTH, Demo, run_demo, train_encoder
from .opening import DEFAULT_MODEL, EncoderName, packaged
from .output import writes

if TYPE_CHECKING:
    from ..app import Comparison

SEARCHES = (
    "read a csv file into a table",
    "split an array into training and test parts",
    "run a command in another process and get its output",
)
# Hits of a search, and missing labels printed and on the page.
HITS, PRINTED, SHOWN = 5, 5, 20
PAGE_NAME = "index.html"


@writes(resumes="what is finished is kept")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo"),
    model: EncoderName = DEFAULT_MODEL,
    documents: Annotated[int, typer.Option(min=100, help="Approximate number of documents.")] = 2000,
    train: Annotated[
        bool, typer.Option("--train", help="Train the encoder too, which takes minutes.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="With --train, steps in stage 1 and in stage 3.")] = 12,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Search, fit and find missing labels on the Python documentation of this machine, offline.

    Prints how well held-out questions find their answers, and labels that are probably missing. A page in the
    folder shows it with pictures, and the retriever is saved beside it.

    Example: `rrra demo`, and then `rrra search demo/retriever "compress a folder into a zip archive"`
    """
    from sentence_transformers import SentenceTransformer

    from ..app.comparison import compare
    from ..data.python_docs import python_docs
    from ..models.files_rrra import write_aside
    from .demo_page import write_demo_page

    _say("Collecting the documentation of the Python packages on this machine")
    collection = python_docs(limit=documents, cache_dir=out / CACHE)
    with write_aside(out / "collection", owned=["*.json*", "qrels/*.tsv"]) as new:
        collection.save(new)
    encoder = SentenceTransformer(packaged(model))
    encoder.max_seq_length = MAX_LENGTH
    found = run_demo(collection, encoder, out, seed, _say)
    if train:
        _say("Training the encoder with LoRA, in three stages")
        train_encoder(found, model, out, steps, seed)
    searches = {query: compare(found.retriever, query, HITS) for query in SEARCHES}
    write_demo_page(out / PAGE_NAME, found, searches, SHOWN)
    if json:
        print_json(_json(found, searches, out))
    else:
        _report(found, out)


def _say(step: str) -> None:
    errors.print(f"{step} ...", style="bold")


def _json(found: Demo, searches: dict[str, Comparison], out: Path) -> dict[str, object]:
    return {
        "documents": len(found.collection.document_ids),
        "queries": {name: len(qrels) for name, qrels in found.collection.qrels_by_split.items()},
        "systems": found.systems,
        "training": found.training,
        "searches": {
            query: {
                "encoder": [hit._asdict() for hit in sides.encoder],
                "reranked": [hit._asdict() for hit in sides.reranked or ()],
            }
            for query, sides in searches.items()
        },
        "reliability": found.reliability.to_dict(),
        "missing": found.audit.summary()["missing"],
        "suspects": [suspect._asdict() for suspect in found.audit.suspects(SHOWN)],
        "page": str(out / PAGE_NAME),
    }


def _report(found: Demo, out: Path) -> None:
    queries = {name: len(qrels) for name, qrels in found.collection.qrels_by_split.items()}
    title = (
        f"\n{len(found.collection.document_ids)} documents; {queries['train']} questions with labels, "
        f"{queries['test']} held out"
    )
    print_quality(title, found.systems)
    if found.training:
        console.print(found.training)
    console.print(_suspects_table(found))
    console.print(
        f"\nA page with all this: {out / PAGE_NAME}\n\n"
        f'Search: rrra search {out}/retriever "compress a folder into a zip archive"\n'
        "In a browser, after pip install 'rrra-hf[app]':\n"
        f"  rrra app {out}/retriever {out}/collection\n"
        f"  rrra audit {out}/collection --out audits/demo --max-length {MAX_LENGTH} --review",
        soft_wrap=True,
    )


def _suspects_table(found: Demo) -> Table:
    missing = found.audit.missing()
    table = Table(
        title=f"\nAbout {missing.expected:.0f} labels are missing. The most probable:", title_justify="left"
    )
    for name in ("p", "question", "labelled", "not labelled"):
        table.add_column(name, justify="right" if name == "p" else "left", overflow="fold")
    for suspect in found.audit.suspects(PRINTED):
        labelled = ", ".join(found.collection.qrels[suspect.query_id])
        table.add_row(f"{suspect.probability:.2f}", suspect.query, labelled, suspect.document_id)
    return table
