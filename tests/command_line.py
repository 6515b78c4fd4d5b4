"""Runs the `rrra` command in the process of the tests and captures its output."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import pytest

from rrra_hf.cli import main


class Outcome(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """The output without frames and line breaks."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.out + self.err).split())


def rrra(*arguments: object, stdin: bytes | io.BytesIO = b"") -> Outcome:
    """Run the command line in this process, with captured output."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rrra", *map(str, arguments)])
        patch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin)
        )
        try:
            main()
            status = 0
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())
