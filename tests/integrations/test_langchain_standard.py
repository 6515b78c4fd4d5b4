"""LangChain's own tests of retrievers and embeddings pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf.retrieval import Retriever

pytest.importorskip("langchain_tests")

from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests

from rrra_hf.integrations.langchain import RRRAEmbeddings, RRRARetriever

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class TestRetriever(RetrieversIntegrationTests):
    retriever_constructor = RRRARetriever
    retriever_query_example = QUERY

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def parameters(cls, tiny_bert: Path) -> None:
        cls.retriever_constructor_params = {"retriever": make_retriever(tiny_bert).index(CORPUS)}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = RRRAEmbeddings

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def parameters(cls, mapped: Retriever) -> None:
        cls.embedding_model_params = {"retriever": mapped}
