"""What tests of encoding share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer


@pytest.fixture
def model(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")
