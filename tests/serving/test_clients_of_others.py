"""The clients of OpenAI and Cohere talk to the service as to their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from running import Server

TEXTS = ["copy files", "find the old folder", "sort the text"]
QUERY = "sort it"


@pytest.fixture
def openai_client(server: Server) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="any", max_retries=0)


def embeddings_of(answer: Any) -> np.ndarray:
    assert [entry.index for entry in answer.data] == list(range(len(answer.data)))
    return np.array([entry.embedding for entry in answer.data], dtype=np.float32)


@pytest.mark.parametrize("task", ["query", "document"])
def test_embeddings_are_those_of_the_encoder(openai_client: Any, retriever: Retriever, task: Any) -> None:
    expected = encode(retriever.encoder, TEXTS, task=task)
    # The client asks for base64 unless it's told otherwise.
    for format_ in ({}, {"encoding_format": "float"}):
        answer = openai_client.embeddings.create(
            model="mine", input=TEXTS, extra_body={"input_type": task}, **format_
        )
        np.testing.assert_allclose(embeddings_of(answer), expected, atol=1e-5)
    assert answer.model == "mine"
    tokens = retriever.encoder.tokenizer(TEXTS)["input_ids"]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, tokens))


def test_texts_are_documents_unless_they_are_called_queries(openai_client: Any, retriever: Retriever) -> None:
    answer = openai_client.embeddings.create(model="mine", input=TEXTS[0])
    np.testing.assert_allclose(
        embeddings_of(answer), encode(retriever.encoder, TEXTS[:1], task="document"), atol=1e-5
    )


def test_fewer_dimensions_are_normalised_again(openai_client: Any, retriever: Retriever) -> None:
    answer = openai_client.embeddings.create(model="mine", input=TEXTS, dimensions=5)
    cut = encode(retriever.encoder, TEXTS, task="document")[:, :5]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings_of(answer), expected, atol=1e-5)


def test_the_client_of_openai_gets_errors_of_its_own(openai_client: Any) -> None:
    import openai

    with pytest.raises(openai.UnprocessableEntityError, match="input: must be at most 5 texts, got 6"):
        openai_client.embeddings.create(model="mine", input=["text"] * 6)


def test_the_clients_of_cohere_rerank(server: Server, retriever: Retriever) -> None:
    cohere = pytest.importorskip("cohere")
    options = {"api_key": "any", "base_url": f"http://127.0.0.1:{server.port}"}
    expected = retriever.rank(QUERY, TEXTS)
    scores = expit([hit["score"] for hit in expected])
    assert (np.diff(scores) < 0).all()
    found = cohere.ClientV2(**options).rerank(model="mine", query=QUERY, documents=TEXTS)
    assert [hit.index for hit in found.results] == [hit["corpus_id"] for hit in expected]
    np.testing.assert_allclose([hit.relevance_score for hit in found.results], scores, rtol=1e-4)
    best = cohere.Client(**options).rerank(
        query=QUERY, documents=[{"text": text} for text in TEXTS], top_n=1, return_documents=True
    )
    (hit,) = best.results
    assert (hit.index, hit.document.text) == (found.results[0].index, TEXTS[hit.index])
    with pytest.raises(cohere.UnprocessableEntityError, match="top_n"):
        cohere.ClientV2(**options).rerank(model="mine", query=QUERY, documents=TEXTS, top_n=0)
