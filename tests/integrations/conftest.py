"""A retriever with prompts and linear maps, for tests of what applies them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from retriever_models import CORPUS, make_adapter
from rrra_hf.retrieval import Retriever


@pytest.fixture(scope="session")
def mapped(tiny_bert: Path) -> Retriever:
    """A retriever with an index, whose encoder has prompts and whose adapter has linear maps."""
    prompts = {"query": "find: ", "document": "text: "}
    encoder = SentenceTransformer(str(tiny_bert), device="cpu", prompts=prompts)
    adapter = make_adapter(lambda_=0.5, query_map=True, document_map=True)
    return Retriever(encoder, adapter).index(CORPUS)
