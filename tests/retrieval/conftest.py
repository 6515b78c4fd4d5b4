"""What tests of retrieval share."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from retriever_models import CORPUS
from retrievers import make_model
from rrra_hf.retrieval import Retriever


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return Retriever(make_model(tiny_bert, lambda_=0.5)).index(CORPUS)
