"""The command line application: its commands, logging and exit status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from .commands import MARKUP, PANELS, Commands
from .common import errors
from .output import faults_named

# What commands raise for what they are given and where they run. Any other error is a mistake in the package.
ERRORS = (ValueError, OSError, ImportError, KeyError, RuntimeError, FloatingPointError, MemoryError)
LONGEST_LINE = 1500

app = typer.Typer(
    name="rrra",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
)

for panel, summaries in PANELS.items():
    for name, summary in summaries.items():
        # Stands for the command in the list; `Commands` reads the one that is used.
        app.command(name, help=summary, rich_help_panel=panel)(lambda: None)


@app.callback()
def settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log progress to stderr.")] = False,
) -> None:
    """Find false negatives among hard negatives, train retrievers without them, and rerank search results.

    Example: `rrra demo` shows what this does on a small collection, in a few minutes. `rrra fit --help` shows
    the options of a command.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    for name in ("faiss", "httpx", "httpx2", "datasets", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("datasets", "huggingface_hub"):
        # They print their records themselves.
        logging.getLogger(name).propagate = False
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
