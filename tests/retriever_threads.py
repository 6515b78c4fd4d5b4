"""Tells in which threads a method of retrievers runs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rrra_hf.retrieval import Retriever


def threads_of(method: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets `"this"` or `"another"` for each call, by the thread it runs in."""
    original, here, threads = getattr(Retriever, method), threading.get_ident(), []

    def recorded(self: Retriever, *args: Any, **options: Any) -> Any:
        threads.append("this" if threading.get_ident() == here else "another")
        return original(self, *args, **options)

    monkeypatch.setattr(Retriever, method, recorded)
    return threads
