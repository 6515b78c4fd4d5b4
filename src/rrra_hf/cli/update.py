"""`rrra update`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import BatchSize, Json, Reading, bad_arguments, print_json, reads_collections
from .opening import Opening, load_indexed, opens_models
from .output import writes


@writes("retriever")
@opens_models
@reads_collections
def update(
    retriever: Annotated[
        Path, typer.Argument(metavar="RETRIEVER", help="Folder of a retriever with an index.")
    ],
    collection: Annotated[
        str | None,
        typer.Argument(
            metavar="[COLLECTION]",
            help="Documents that replace those of the same ids, and come to the others: a file or a folder.",
        ),
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", metavar="ID", help="Document to delete; may be repeated.")
    ] = None,
    reading: Reading = Reading(),
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    json: Json = False,
) -> None:
    """Add, replace and delete documents of a retriever, all or none of them.

    Example: `rrra update retrievers/mine new.jsonl --delete d17`
    """
    with bad_arguments():
        if collection is None and not delete:
            raise ValueError("COLLECTION or --delete must be given.")
    documents = None if collection is None else reading.load(collection)
    loaded = load_indexed(str(retriever), opening)
    summary = {"retriever": str(retriever), "deleted": loaded.delete(delete or []), "updated": 0}
    if documents is not None:
        loaded.update(documents, batch_size=batch_size)
        summary["updated"] = len(documents.document_ids)
    loaded.save_pretrained(retriever)
    summary["documents"] = loaded.corpus.num_documents
    if json:
        print_json(summary)
        return
    typer.echo(
        "{deleted} documents deleted, {updated} updated or added; {documents} in {retriever}".format(
            **summary
        )
    )
