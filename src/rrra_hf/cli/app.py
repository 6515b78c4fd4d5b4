"""The command line application: its commands, logging and exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from . import (
    audit,
    card,
    compare,
    demo,
    evaluate,
    fit,
    gradio_app,
    index,
    mine,
    push,
    rerank,
    search,
    serve,
    train,
    update,
)
from .common import errors
from .output import faults_named

# What commands raise for what they are given and where they run. Any other error is a mistake in the package.
ERRORS = (ValueError, OSError, ImportError, KeyError, RuntimeError, FloatingPointError, MemoryError)
LONGEST_LINE = 1500

COMMANDS = {
    "Train": (demo.demo, mine.mine, fit.fit, train.train),
    "Labels": (audit.audit,),
    "Search": (index.index, update.update, search.search, rerank.rerank, serve.serve, gradio_app.app),
    "Evaluate and share": (evaluate.evaluate, compare.compare, card.card, push.push),
}

app = typer.Typer(
    name="rrra",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def with_quiet_transformers(command: Callable[..., None]) -> Callable[..., None]:
    """Make transformers quiet once a command works: importing it takes longer than a command's help."""

    @wraps(command)
    def run(**options: Any) -> None:
        from transformers.utils import logging as transformers_logging

        if not logging.getLogger().isEnabledFor(logging.INFO):
            # For weights that don't match, transformers prints a table; the error message says the same.
            transformers_logging.set_verbosity_error()
        # Progress bars for loading and saving weights are noise for small models.
        transformers_logging.disable_progress_bar()
        command(**options)

    return run


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(with_quiet_transformers(command))


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log progress to stderr.")] = False,
) -> None:
    """Find false negatives among hard negatives, train retrievers without them, and rerank search results.

    Example: `rrra demo` runs all steps on a small collection in a few minutes. `rrra fit --help` shows the
    options of a command.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    for name in ("faiss", "httpx", "httpx2", "datasets", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore", module="torch|transformers|peft")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> None:
    """Run the command line. The exit status is 0, 1 if the command failed, or 2 for invalid arguments."""
    try:
        with faults_named():
            app(prog_name="rrra")
    except ERRORS as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        errors.print("error:", style="bold red", end=" ")
        errors.print(_one_line(str(message)), soft_wrap=True)
        if logging.getLogger().isEnabledFor(logging.INFO):
            errors.print_exception()
        sys.exit(1)


def _one_line(message: str) -> str:
    """Return a message of any library on one line, and of a length that can be read."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


if __name__ == "__main__":
    main()
