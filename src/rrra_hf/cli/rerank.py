"""`rrra rerank`."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Json, UseAdapter, print_json
from .opening import MaxLength, Opening, load_retriever, opens_models


@opens_models
def rerank(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Saved model or encoder: folder or Hub name.")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The query.")],
    documents: Annotated[
        typer.FileText,
        typer.Argument(
            metavar="FILE", encoding="utf-8", help="Documents, one per line; `-` for standard input."
        ),
    ] = "-",  # type: ignore[assignment]
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", min=1, help="Number of documents to print.")
    ] = None,
    adapter: UseAdapter = True,
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    json: Json = False,
) -> None:
    """Rank documents for a query. Prints score, probability and text of each.

    Example: `grep -ri statin notes/ | rrra rerank models/scifact "do statins lower blood pressure"`
    """
    try:
        texts = [line.strip() for line in documents if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"FILE must be UTF-8: {error}.") from error
    if not texts:
        raise typer.BadParameter("there are no documents to rank; give one per line.")
    retriever = load_retriever(model, adapter, max_length, opening)
    reranks = retriever.adapter is not None
    ranked = retriever.rank(query, texts, top_k, return_documents=True, probabilities=reranks)
    if json:
        print_json(ranked)
        return
    for document in ranked:
        probability = f"  {document['probability']:.2f}" if reranks else ""
        typer.echo(f"{document['score']:8.3f}{probability}  {document['text']}")
