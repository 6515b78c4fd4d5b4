"""What tests of candidates share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")
