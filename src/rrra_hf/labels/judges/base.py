"""What a judge is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

Texts = tuple[str, str]
"""Texts of a query and of a document."""


class Cost(NamedTuple):
    """What it costs to ask a judge.

    Args:
        calls: Calls of a service, or pairs for a model here to read.
        tokens: About how many tokens are sent: a quarter of the bytes.
    """

    calls: int
    tokens: int


def about_tokens(*texts: str) -> int:
    """Return about how many tokens texts have: a quarter of their bytes.

    Example:
        >>> about_tokens("what swims", "A fish.")
        4
    """
    return sum(len(text.encode(errors="replace")) for text in texts) // 4


class Judge(Protocol):
    """Decides whether documents are relevant to queries.

    Attributes:
        name: Name by which decisions are recorded, such as "openai:gpt-5-mini".
        calls: Number of calls so far: of a service, or pairs that a model here has read.
    """

    name: str
    calls: int

    def cost(self, texts: Sequence[Texts]) -> Cost:
        """Return what it costs to ask about these texts.

        Args:
            texts: Texts of queries and documents.
        """

    def judge(
        self, texts: Sequence[Texts], max_calls: int | None = None
    ) -> Iterator[tuple[int, bool | None]]:
        """Yield answers as they come, in any order.

        Args:
            texts: Texts of queries and documents.
            max_calls: Calls at most. Texts that they don't suffice for get no answer.

        Yields:
            The place of the texts, and whether the document is relevant; None if the judge can't tell.

        Raises:
            OSError: If the judge can't be asked any more.
        """
