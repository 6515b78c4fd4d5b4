"""`rrra index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    BatchSize,
    CacheDir,
    CollectionName,
    Json,
    Reading,
    UseAdapter,
    bad_arguments,
    print_json,
    reads_collections,
)
from .opening import MaxLength, Opening, load_retriever, opens_models
from .output import ENCODED, writes

MILVUS = "milvus"


@writes(marker="modules.json", what="a model's", resumes=ENCODED)
@opens_models
@reads_collections
def index(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Saved model or encoder: folder or Hub name.")
    ],
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the retriever.")],
    reading: Reading = Reading(),
    kind: Annotated[
        str,
        typer.Option(
            help="flat (exact), hnsw, ivf-flat, ivf-sq8, ivf-pq, or in milvus; auto chooses by size."
        ),
    ] = "auto",
    storage: Annotated[
        str, typer.Option(help="How embeddings are kept: float32; int8 or binary, which take less memory.")
    ] = "float32",
    split: Annotated[
        int | None,
        typer.Option(
            min=1, help="Split documents into passages of at most so many tokens, which are found as hits."
        ),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(help="With --kind milvus: a file ending in .db, or the address of a server or cluster."),
    ] = None,
    collection_name: Annotated[
        str | None, typer.Option(help="With --kind milvus: collection there; what it holds is replaced.")
    ] = None,
    language: Annotated[
        str,
        typer.Option(help="Language of the words, such as `english`; auto looks at them, none does without."),
    ] = "auto",
    adapter: UseAdapter = True,
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Index a corpus by embeddings and by words, and save model and index in one folder.

    With `--kind milvus`, the folder holds the model and the address, and the rest is in Milvus. A token is
    read from MILVUS_TOKEN.

    Example: `rrra index models/scifact data/scifact --out retrievers/scifact`
    """
    from ..indexes.choose import check_kind
    from ..indexes.stop_lists import check_language

    with bad_arguments():
        check_kind(kind, storage, MILVUS)
        check_language(language)
    given = {"uri": uri, "collection_name": collection_name}
    place: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if place and kind != MILVUS:
        raise typer.BadParameter("--uri and --collection-name need --kind milvus.")
    corpus = reading.load(collection)
    retriever = load_retriever(model, adapter, max_length, opening)
    retriever.index(
        corpus,
        cache_dir=cache_dir,
        batch_size=batch_size,
        kind=kind,
        storage=storage,
        split=split,
        language=language,
        **place,
    )
    retriever.save_pretrained(out)
    summary = {"retriever": str(out), "documents": len(corpus.document_ids)}
    if split is not None:
        summary["passages"] = len(retriever.documents)
    if json:
        print_json(summary)
        return
    passages = "" if split is None else f" as {summary['passages']} passages"
    typer.echo(f"{summary['documents']} documents{passages} in {out}")
