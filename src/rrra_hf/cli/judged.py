"""The options for asking a judge."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from .common import errors

if TYPE_CHECKING:
    from ..labels import Audit, Judging


@dataclass(frozen=True)
class AskJudge:
    """A judge, and how it is asked. Each field is an option."""

    judge_name: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="JUDGE",
            help="Ask about uncertain pairs: `cross-encoder:NAME`, or `openai:MODEL`, with OPENAI_API_KEY.",
        ),
    ] = None
    base_url: Annotated[
        str | None, typer.Option(help="Endpoint with OpenAI's chat completions, for `--judge openai:MODEL`.")
    ] = None
    max_calls: Annotated[int | None, typer.Option(min=1, help="Calls of the judge at most.")] = None
    judge_error: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of irrelevant documents that the judge calls relevant."),
    ] = 0.05
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask the judge without a question.")] = False

    def check(self) -> None:
        """Refuse options of a judge without one."""
        for name in ("base_url", "max_calls"):
            if self.judge_name is None and getattr(self, name) is not None:
                raise typer.BadParameter(f"--{name.replace('_', '-')} needs --judge.")

    def judge(self, audit: Audit) -> Judging | None:
        """Ask the judge about uncertain pairs of an audit, and show before what it costs.

        Args:
            audit: The audit; the answers are added to its decisions.

        Returns:
            What was asked; None without a judge.
        """
        from ..labels import cost_of_judging, judge_uncertain, open_judge

        if self.judge_name is None:
            return None
        judge = open_judge(self.judge_name, base_url=self.base_url)
        asked = audit.collection, audit.pool, audit.decisions, judge
        cost = cost_of_judging(*asked, judge_error=self.judge_error, max_calls=self.max_calls)
        errors.print(f"{judge.name}: {cost.calls:,} calls, about {cost.tokens:,} tokens", soft_wrap=True)
        if cost.calls and sys.stdin.isatty() and not self.yes:
            typer.confirm("Ask?", abort=True, err=True)
        return judge_uncertain(*asked, judge_error=self.judge_error, max_calls=self.max_calls)
