"""The command line application, its subcommands and its exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer
from transformers.utils import logging as transformers_logging

from . import card, compare, demo, evaluate, fit, gradio_app, index, mine, push, rerank, search, serve, train
from .common import errors

app = typer.Typer(
    name="rrra",
    help="Find the false negatives among a retriever's hard negatives: train without them, rerank.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (demo.demo, mine.mine, fit.fit, train.train, index.index, search.search, rerank.rerank):
    app.command()(command)
app.command()(evaluate.evaluate)
app.command()(card.card)
app.command()(compare.compare)
app.command()(serve.serve)
app.command()(gradio_app.app)
app.command()(push.push)


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done, to stderr.")] = False,
) -> None:
    """Apply to every command."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    for name in ("faiss", "httpx", "httpx2", "datasets", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore", module="torch|transformers|peft")
        # Of weights that don't fit it prints a table; the error that follows says the same.
        transformers_logging.set_verbosity_error()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Its bars for loading and saving weights would be all that is ever seen of a small model's.
    transformers_logging.disable_progress_bar()


def main() -> None:
    """Run the command line: exit status 0, 1 if the command failed, 2 for bad arguments."""
    try:
        app(prog_name="rrra")
    except (ValueError, OSError, ImportError, KeyError, RuntimeError, FloatingPointError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        errors.print("error:", style="bold red", end=" ")
        errors.print(message, soft_wrap=True)
        if logging.getLogger().isEnabledFor(logging.INFO):
            errors.print_exception()
        sys.exit(1)


if __name__ == "__main__":
    main()
