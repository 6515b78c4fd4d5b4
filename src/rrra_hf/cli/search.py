"""`rrra search`."""

from __future__ import annotations

from json import JSONDecodeError
from json import loads as parse
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .common import DEPTH, Json, adapter_notes, bad_arguments, console, print_json
from .opening import Opening, RetrieverName, load_indexed, opens_models

if TYPE_CHECKING:
    from ..retrieval import Hit, Retriever
    from ..retrieval.filters import Condition

# Columns of a terminal; a longer id goes on in the next line.
ID_WIDTH = 32


@opens_models
def search(
    retriever: RetrieverName,
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="One or several queries.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Number of documents per query.")] = 10,
    depth: Annotated[int, typer.Option(min=1, help="Number of documents to rerank per query.")] = DEPTH,
    rerank: Annotated[bool, typer.Option("--rerank/--no-rerank", help="Use the adapter.")] = True,
    mode: Annotated[
        str | None,
        typer.Option(
            help="hybrid: search by embeddings and words; dense: by embeddings. By default, hybrid if an "
            "adapter that reads words reranks."
        ),
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help='Metadata to search among, as JSON: `{"year": {"$gte": 2020}}`.')
    ] = None,
    opening: Opening = Opening(),
    json: Json = False,
) -> None:
    """Search an index, and rerank.

    Example: `rrra search retrievers/scifact "do statins lower blood pressure"`
    """
    with bad_arguments():
        condition = None if filter is None else read_filter(filter)
    loaded = load_indexed(retriever, opening)
    with bad_arguments():
        loaded.is_hybrid(mode, rerank)
    results = loaded.search(
        query,
        top_k,
        rerank,
        depth,
        mode=mode,
        filter=condition,
        probabilities=loaded.adapter is not None,
        show_progress_bar=False,
    )
    if json:
        print_json([{"query": text, "hits": hits} for text, hits in zip(query, results, strict=True)])
        return
    for text, hits in zip(query, results, strict=True):
        console.print(hits_table(text, hits, loaded))
    if loaded.adapter is not None:
        for note in adapter_notes(loaded.adapter):
            console.print(note, soft_wrap=True)


def read_filter(text: str) -> Condition:
    """Read a filter that is given as JSON."""
    from ..retrieval.filters import parse_filter

    try:
        return parse_filter(parse(text))
    except JSONDecodeError as error:
        raise ValueError(f"--filter must be JSON, got {text!r:.80}: {error}") from error


def hits_table(title: str, hits: list[Hit], retriever: Retriever) -> Table:
    """Return a table of hits: the id, the title if there are any, and the beginning of each document."""
    documents = [retriever.document(hit["corpus_id"]) for hit in hits]
    names = [document.get("document_id", document["id"]) for document in documents]
    titled = any(document["title"] not in ("", name) for document, name in zip(documents, names, strict=True))
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("score", justify="right")
    table.add_column("p", justify="right")
    table.add_column("id", max_width=ID_WIDTH, overflow="fold")
    if titled:
        table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=2)
    for hit, document in zip(hits, documents, strict=True):
        probability = f"{hit['probability']:.2f}" if "probability" in hit else ""
        shown = [document["title"], document["text"]] if titled else [document["text"]]
        lines = (" ".join(text.split()) for text in shown)
        table.add_row(f"{hit['score']:.2f}", probability, document["id"], *lines)
    return table
