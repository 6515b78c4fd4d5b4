"""`rrra app`."""

from __future__ import annotations

from threading import Event
from typing import Annotated

import typer

from .common import Json, UseAdapter, console, print_json
from .opening import Opening, RetrieverName, load_indexed, opens_models


@opens_models
def app(
    retriever: RetrieverName,
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="Collection whose queries are examples on the page."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port, by default the first free one from 7860.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Create a public link at gradio.live, valid for a week.")
    ] = False,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(metavar="QUERY", help="Example query; by default, sentences of documents. Repeatable."),
    ] = None,
    adapter: UseAdapter = True,
    opening: Opening = Opening(),
    json: Json = False,
) -> None:
    """Open a web page that compares search with and without the adapter. Stop it with Ctrl-C.

    Example: `rrra app demo/retriever --port 7860`
    """
    from ..app import THEME, create_demo
    from ..app.examples import questions
    from ..data import load_collection

    loaded = load_indexed(retriever, opening, adapter="pretrained" if adapter else None)
    documents = len(loaded.corpus)
    examples = example or ([] if collection is None else questions(load_collection(collection).query_texts))
    demo = create_demo(loaded, title=title or f"Search in {retriever}", examples=examples)
    _, url, public_url = demo.launch(
        server_name=host,
        server_port=port,
        share=share,
        theme=THEME,
        quiet=True,
        prevent_thread_lock=True,
    )
    if json:
        print_json({"url": url, "public_url": public_url, "documents": documents})
    else:
        console.print(f"{documents} documents at {public_url or url}", soft_wrap=True)
    try:
        Event().wait()
    except KeyboardInterrupt:
        demo.close(verbose=False)
