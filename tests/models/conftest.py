"""What tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_folders import make
from retriever_models import RESIDUAL


@pytest.fixture
def saved(tiny_bert: Path, tmp_path: Path) -> Path:
    make(tiny_bert, lora=True, adapter={"reader": RESIDUAL, "query_map": True}).save_pretrained(
        tmp_path / "saved"
    )
    return tmp_path / "saved"
