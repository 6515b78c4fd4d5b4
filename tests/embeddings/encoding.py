"""Texts, and a count of what is encoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line"]


TEXTS = [" ".join(WORDS[i % 8 : i % 8 + 1 + i % 5]) + f" {WORDS[i // 8]}" for i in range(40)]


def count_texts(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, fail_after: int = 10**9
) -> list[str]:
    """Record the texts that are really encoded; raise when more than `fail_after` would be."""
    encoded: list[str] = []
    original = model.forward

    def record(features: dict[str, torch.Tensor], **options: object) -> dict[str, torch.Tensor]:
        if len(encoded) + len(features["input_ids"]) > fail_after:
            raise KeyboardInterrupt
        encoded.extend(model.tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True))
        return original(features, **options)

    monkeypatch.setattr(model, "forward", record)
    return encoded


def truncate(folder: Path) -> None:
    path = folder / "embeddings.arrow"
    path.write_bytes(path.read_bytes()[:2000])


def cache_folder(cache_dir: Path) -> Path:
    (folder,) = cache_dir.iterdir()
    return folder
