"""`rrra serve`."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from .common import Json, UseAdapter, console, print_json
from .opening import Opening, RetrieverName, load_indexed, opens_models


@opens_models
def serve(
    retriever: RetrieverName,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Host name that requests may name besides this machine's own, such as `search.example.com`, "
            "or `*` for all. Repeatable.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="RRRA_API_KEY",
            show_default=False,
            help="Key that requests must have, as `Authorization: Bearer KEY`. Others on the machine may "
            "see an option, but not the variable.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Limit, such as `top_k=100` or `work_seconds=5`. Repeatable. `/healthz` lists all.",
        ),
    ] = None,
    adapter: UseAdapter = True,
    opening: Opening = Opening(),
    json: Json = False,
) -> None:
    """Serve a retriever over HTTP.

    It has the endpoints `/search`, `/rank`, `/v1/rerank`, `/v1/embeddings`, `/healthz` and `/metrics`, and
    API documentation at `/docs`. SIGTERM stops it.

    Example: `rrra serve retrievers/scifact --port 8000`
    """
    from ..serving import LOOPBACK, Limits, create_app, listen, run

    numbers = dict(_number(text) for text in limit or [])
    known = [field.name for field in fields(Limits)]
    for name in numbers:
        if name not in known:
            raise typer.BadParameter(f"--limit must be one of {', '.join(known)}, got {name!r}.")
    try:
        limits = Limits(**numbers)  # type: ignore[arg-type]
    except ValueError as error:
        raise typer.BadParameter(f"--limit {error}") from error
    if api_key is not None and not api_key.strip():
        raise typer.BadParameter("--api-key must not be empty.")
    loaded = load_indexed(retriever, opening, adapter="pretrained" if adapter else None)
    app = create_app(loaded, limits, [*LOOPBACK, *_own_name(host), *(allow_host or ())], api_key)
    with listen(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        url = f"http://[{address}]:{taken}" if ":" in address else f"http://{address}:{taken}"
        documents = len(loaded.corpus)
        if json:
            print_json({"url": url, "documents": documents})
        else:
            console.print(f"{documents} documents at {url}", soft_wrap=True)
        run(app, listener, limits)


def _own_name(host: str) -> list[str]:
    """Return the name by which requests reach an address that is listened on, if there is one."""
    if host in ("0.0.0.0", "::"):
        return []
    return [f"[{host}]" if ":" in host else host]


def _number(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number) if name.endswith("_seconds") else int(number)
    except ValueError as error:
        raise typer.BadParameter(f"--limit must be NAME=NUMBER, got {text!r}.") from error
