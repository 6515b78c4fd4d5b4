"""`rrra serve`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from .common import Json, console, print_json


def serve(
    retriever: Annotated[
        Path, typer.Argument(metavar="RETRIEVER", help="Folder made by `rrra index` or `rrra demo`.")
    ],
    host: Annotated[str, typer.Option(help="Address of the interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="A limit, as `top_k=100` or `work_seconds=5`; may be repeated. `/healthz` shows them all.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device of the encoder, as `cuda`.")] = None,
    json: Json = False,
) -> None:
    """Serve searches over HTTP, until SIGTERM: `/search`, `/rank`, `/healthz`, `/metrics`, `/docs`.

    Example: `rrra serve retrievers/scifact --port 8000`
    """
    from ..retrieval import Retriever
    from ..serving import Limits, create_app, listen, run

    numbers = dict(_number(text) for text in limit or [])
    known = [field.name for field in fields(Limits)]
    for name in numbers:
        if name not in known:
            raise typer.BadParameter(f"--limit must be one of {', '.join(known)}, got {name!r}.")
    try:
        limits = Limits(**numbers)  # type: ignore[arg-type]
    except ValueError as error:
        raise typer.BadParameter(f"--limit {error}") from error
    if not (retriever / "index").is_dir():
        raise FileNotFoundError(f"{retriever} is no folder with an index; make one with `rrra index`.")
    loaded = Retriever.from_pretrained(retriever, device=device)
    app = create_app(loaded, limits)
    with listen(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        url = f"http://[{address}]:{taken}" if ":" in address else f"http://{address}:{taken}"
        documents = loaded.documents.num_rows
        if json:
            print_json({"url": url, "documents": documents})
        else:
            console.print(f"{documents} documents at {url}", soft_wrap=True)
        run(app, listener, limits)


def _number(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number) if name.endswith("_seconds") else int(number)
    except ValueError as error:
        raise typer.BadParameter(f"--limit must be NAME=NUMBER, got {text!r}.") from error
