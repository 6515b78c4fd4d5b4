"""Judges by their names on a command line."""

from __future__ import annotations

from typing import Any

from .base import Judge
from .cross_encoder import CrossEncoderJudge
from .openai_chat import OpenAIJudge


def open_judge(name: str, *, base_url: str | None = None, **options: Any) -> Judge:
    """Open a judge.

    Args:
        name: "cross-encoder:NAME", a folder or a name on the Hub, or "openai:MODEL".
        base_url: Address of an endpoint with OpenAI's chat completions, such as a server of your own.
        options: Arguments of `sentence_transformers.CrossEncoder`. They don't apply to an endpoint.

    Raises:
        ValueError: If there is no such kind of judge, or a cross-encoder gets an address.
        OSError: If there is no such cross-encoder.
        ImportError: If a package is missing.

    Example:
        >>> open_judge("oracle")
        Traceback (most recent call last):
        ValueError: judge must be cross-encoder:NAME or openai:MODEL, got 'oracle'.
        >>> open_judge("openai:small", base_url="http://127.0.0.1:8000/v1").name
        'openai:small'
    """
    kind, _, model = name.partition(":")
    if kind == "openai" and model:
        return OpenAIJudge(model, base_url=base_url)
    if kind == "cross-encoder" and model:
        if base_url is not None:
            raise ValueError(f"base_url must be None for a cross-encoder, which runs here, got {base_url!r}.")
        return CrossEncoderJudge(model, **options)
    raise ValueError(f"judge must be cross-encoder:NAME or openai:MODEL, got {name!r}.")
