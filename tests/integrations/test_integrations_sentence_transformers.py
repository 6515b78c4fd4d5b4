"""Evaluators of sentence-transformers measure the results of the retriever."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.sentence_transformer.evaluation import (
    InformationRetrievalEvaluator,
    RerankingEvaluator,
)
from sentence_transformers.util import mine_hard_negatives

from feature_task import keep_everything
from retriever_models import CORPUS, QUERY, make_adapter, make_reader_of_words, make_retriever
from rrra_hf import FitArguments, RetrieverAdapter, RRRAModel, fit_adapter
from rrra_hf.data import Collection
from rrra_hf.embeddings import embed_collection, encode
from rrra_hf.evaluation import ranking_quality
from rrra_hf.integrations.sentence_transformers import RRRACrossEncoder, reranking_similarity
from rrra_hf.retrieval import Retriever, evaluate
from tiny import word_collection

TEXTS = ["sort text", "copy files", "find a folder"]
MAPS = {"query_map": True, "document_map": True}


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert)


@pytest.fixture(scope="module")
def collection() -> Collection:
    return word_collection(60, test=40)


@pytest.fixture(scope="module")
def samples(collection: Collection) -> list[dict[str, object]]:
    texts = collection.document_texts
    return [
        {"query": query, "positive": [texts[row]], "negative": [*texts[row + 1 :], *texts[:row]][:30]}
        for row, query in enumerate(collection.query_texts)
    ]


@pytest.fixture(scope="module")
def figures(retriever: Retriever, samples: list[dict[str, object]]) -> dict[str, float]:
    """Figures for the rankings of `Retriever.rank`."""
    rankings = {}
    for number, sample in enumerate(samples):
        ranked = retriever.rank(sample["query"], [*sample["positive"], *sample["negative"]])
        rankings[f"q{number}"] = [{"corpus_id": str(hit["corpus_id"])} for hit in ranked]
    return ranking_quality(rankings, {name: {"0": 1} for name in rankings}, ["nDCG@10", "MRR@10"]).mean


@pytest.mark.parametrize("use_batched_encoding", [False, True])
def test_reranking_evaluator(
    retriever: Retriever, samples: list, figures: dict[str, float], use_batched_encoding: bool
) -> None:
    evaluator = RerankingEvaluator(
        samples,
        similarity_fct=reranking_similarity(retriever),
        use_batched_encoding=use_batched_encoding,
        write_csv=False,
    )
    found = evaluator(retriever.encoder)
    assert found["ndcg@10"] == pytest.approx(figures["nDCG@10"], abs=1e-6)
    assert found["mrr@10"] == pytest.approx(figures["MRR@10"], abs=1e-6)
    plain = RerankingEvaluator(samples, write_csv=False)(retriever.encoder)
    assert found["mrr@10"] != pytest.approx(plain["mrr@10"], abs=1e-2)


def test_cross_encoder_reranking_evaluator(
    retriever: Retriever, samples: list, figures: dict[str, float]
) -> None:
    found = CrossEncoderRerankingEvaluator(samples, write_csv=False)(RRRACrossEncoder(retriever))
    assert found["ndcg@10"] == pytest.approx(figures["nDCG@10"], abs=1e-6)
    assert found["mrr@10"] == pytest.approx(figures["MRR@10"], abs=1e-6)


def assert_evaluator_agrees(retriever: Retriever, collection: Collection, depth: int) -> None:
    evaluator = InformationRetrievalEvaluator(
        dict(zip(collection.query_ids, collection.query_texts, strict=True)),
        dict(zip(collection.document_ids, collection.document_texts, strict=True)),
        {query_id: set(grades) for query_id, grades in collection.qrels.items()},
        score_functions={"adapter": reranking_similarity(retriever, depth)},
        precision_recall_at_k=[10, 50],
        write_csv=False,
    )
    found = evaluator(retriever.encoder)
    names = {"nDCG@10": "ndcg@10", "MRR@10": "mrr@10", "R@10": "recall@10", "R@50": "recall@50"}
    quality = evaluate(retriever.index(collection), collection, list(names), depth=depth).quality
    theirs = {ours: found[f"adapter_{name}"] for ours, name in names.items()}
    assert theirs == pytest.approx(quality["adapter"].mean, abs=1e-6)
    searched = next(iter(quality.values()))
    assert theirs != pytest.approx(searched.mean, abs=1e-3)


@pytest.mark.parametrize("depth", [7, 100])
def test_information_retrieval_evaluator(retriever: Retriever, collection: Collection, depth: int) -> None:
    assert_evaluator_agrees(retriever, collection, depth)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fitted", [False, True])
def test_scores_of_features_are_those_of_a_search_without_words(
    tiny_bert: Path, collection: Collection, fitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    adapter = RetrieverAdapter.pretrained()
    if fitted:
        keep_everything(monkeypatch)
        queries, documents, _ = embed_collection(collection, encoder)
        adapter = fit_adapter(queries, documents, collection.positive_rows, arguments=FitArguments(depth=30))
    retriever = Retriever(encoder, adapter).index(collection)
    embeddings = encode(encoder, collection.query_texts, task="query")
    found = retriever.search_embeddings(embeddings, top_k=20, depth=20)
    scores = reranking_similarity(retriever, depth=20)(
        torch.as_tensor(encoder.encode_query(collection.query_texts)),
        torch.as_tensor(encoder.encode_document(collection.document_texts)),
    )
    rows = {document_id: row for row, document_id in enumerate(collection.document_ids)}
    for hits, of_query in zip(found, scores, strict=True):
        expected = [of_query[rows[hit["corpus_id"]]] for hit in hits]
        # Almost equal cosines may be in another order, and ranks are features.
        assert np.isclose([hit["score"] for hit in hits], expected, rtol=1e-3, atol=1e-3).mean() >= 0.8


@pytest.mark.parametrize("own", [False, True])
def test_scores_are_those_of_a_search_with_maps_applied_once(tiny_bert: Path, own: bool) -> None:
    adapter = make_adapter(lambda_=0.5, **MAPS)
    if own:
        model = RRRAModel.from_encoder(tiny_bert, adapter={"hidden_size": 8, "lambda_": 0.5, **MAPS})
        model.adapter.load_state_dict(adapter.state_dict())
        retriever = Retriever(model)
    else:
        retriever = Retriever(SentenceTransformer(str(tiny_bert), device="cpu"), adapter)
    hits = retriever.index(TEXTS).search(QUERY)[0]
    queries = torch.as_tensor(retriever.encoder.encode_query([QUERY, *TEXTS]))
    documents = torch.as_tensor(retriever.encoder.encode_document(TEXTS))
    scores = reranking_similarity(retriever)(queries, documents)
    assert scores.shape == (4, 3)
    assert_allclose([scores[0, int(hit["corpus_id"])] for hit in hits], [h["score"] for h in hits], atol=1e-4)


def test_documents_below_the_depth_follow_in_the_order_of_their_cosines(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    queries, documents = torch.randn(5, 32), torch.randn(9, 32)
    cosines = torch.cosine_similarity(queries[:, None], documents, dim=-1)
    full = reranking_similarity(retriever)(queries, documents)
    cut = reranking_similarity(retriever, depth=4)(queries, documents)
    for row in range(5):
        by_cosine = cosines[row].argsort(descending=True)
        head, tail = by_cosine[:4], by_cosine[4:]
        assert_allclose(cut[row, head], full[row, head], atol=1e-5)
        assert cut[row].argsort(descending=True)[4:].tolist() == tail.tolist()
    monkeypatch.setattr("rrra_hf.integrations.sentence_transformers.PAIRS", 10)
    assert_allclose(reranking_similarity(retriever)(queries, documents), full, rtol=1e-5, atol=1e-5)


def test_similarity_refuses_what_it_cannot_do(retriever: Retriever, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match="must have an adapter"):
        reranking_similarity(Retriever.from_pretrained(tiny_bert, adapter=None, device="cpu"))
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        reranking_similarity(retriever, depth=0)
    reader = Retriever(SentenceTransformer(str(tiny_bert), device="cpu"), make_reader_of_words(32))
    with pytest.raises(ValueError, match="can do without words, this one needs word pieces"):
        reranking_similarity(reader)


def test_rank_takes_and_returns_what_that_of_a_cross_encoder_does(
    retriever: Retriever, tiny_bert: Path
) -> None:
    theirs = inspect.signature(CrossEncoder.rank).parameters
    ours = dict(inspect.signature(Retriever.rank).parameters)
    assert ours.pop("document_embeddings").default is None
    assert ours.pop("probabilities").default is False
    for name, parameter in ours.items():
        assert name in theirs
        assert name == "batch_size" or parameter.default == theirs[name].default
    cross_encoder = CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")
    for options in ({}, {"top_k": 2}, {"return_documents": True, "batch_size": 1}):
        found, expected = (m.rank(QUERY, TEXTS, **options) for m in (retriever, cross_encoder))
        assert len(found) == len(expected)
        for ours, other in zip(found, expected, strict=True):
            assert {key: type(value) for key, value in ours.items()} == {k: type(v) for k, v in other.items()}


def test_predicted_scores_are_those_of_rank(retriever: Retriever) -> None:
    model = RRRACrossEncoder(retriever)
    pairs = [(QUERY, TEXTS[0]), ("sort", TEXTS[1]), [QUERY, TEXTS[1]], (QUERY, TEXTS[0])]
    of_query = {hit["corpus_id"]: hit["score"] for hit in retriever.rank(QUERY, TEXTS)}
    expected = [of_query[0], retriever.rank("sort", TEXTS[1:2])[0]["score"], of_query[1], of_query[0]]
    assert_allclose(model.predict(pairs), expected, atol=1e-4)
    assert torch.equal(model.predict(pairs, convert_to_tensor=True), torch.tensor(model.predict(pairs)))
    assert torch.stack(model.predict(pairs, convert_to_numpy=False)).tolist() == model.predict(pairs).tolist()
    assert model.predict([]).shape == (0,)
    squashed = model.predict(pairs, activation_fn=torch.nn.Sigmoid())
    assert_allclose(squashed, 1 / (1 + np.exp(-np.float64(model.predict(pairs)))), rtol=1e-5)


@pytest.fixture(scope="module")
def cross_encoder(tiny_bert: Path) -> CrossEncoder:
    return CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")


PAIRS = [(QUERY, text) for text in TEXTS]
CALLS = {
    "pairs": lambda model: model.predict(PAIRS),
    "one pair": lambda model: model.predict(PAIRS[0]),
    "lists": lambda model: model.predict([list(pair) for pair in PAIRS]),
    "an array": lambda model: model.predict(np.array(PAIRS)),
    "a column": lambda model: model.predict(Dataset.from_dict({"pair": [list(p) for p in PAIRS]})["pair"]),
    "a tensor": lambda model: model.predict(PAIRS, convert_to_tensor=True),
    "one tensor": lambda model: model.predict(PAIRS[0], convert_to_tensor=True),
    "tensors": lambda model: model.predict(PAIRS, convert_to_numpy=False),
    "no tensors": lambda model: model.predict([], convert_to_numpy=False),
    "softmax": lambda model: model.predict(PAIRS, apply_softmax=True, show_progress_bar=False),
    "an activation": lambda model: model.predict(PAIRS, activation_fn=torch.nn.Tanh()),
    "rank": lambda model: model.rank(QUERY, TEXTS),
    "rank all": lambda model: model.rank(QUERY, TEXTS, top_k=None, return_documents=True),
    "rank two": lambda model: model.rank(QUERY, TEXTS, 2, True, batch_size=1, chunk_size=1),
    "rank none": lambda model: model.rank(QUERY, TEXTS, top_k=0),
    "rank nothing": lambda model: model.rank(QUERY, []),
}
BAD_CALLS = {
    "no pair": lambda model: model.predict([(QUERY,)]),
    "a triple": lambda model: model.predict([(QUERY, *TEXTS[:2])]),
    "a number": lambda model: model.predict([(QUERY, 1)]),
    "nothing": lambda model: model.predict([(QUERY, None)]),
    "batch_size": lambda model: model.predict(PAIRS, batch_size=0),
    "prompt_name": lambda model: model.predict(PAIRS, prompt_name="nosuch"),
    "rank a number": lambda model: model.rank(QUERY, [1]),
    "rank for nothing": lambda model: model.rank(None, TEXTS),
    "rank batch_size": lambda model: model.rank(QUERY, TEXTS, batch_size=-1),
    "rank prompt_name": lambda model: model.rank(QUERY, TEXTS, prompt_name="nosuch"),
    "rank top_k": lambda model: model.rank(QUERY, TEXTS, top_k=1.5),
    "rank unknown": lambda model: model.rank(QUERY, TEXTS, nosuch=1),
}


def shape_of(value: Any) -> Any:
    """Return the types, sizes and keys of a result, without its numbers."""
    if isinstance(value, list):
        return [shape_of(item) for item in value]
    if isinstance(value, dict):
        return {key: type(item) for key, item in value.items()}
    return type(value), value.dtype, tuple(value.shape)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_cross_encoder_returns_the_same_types(
    retriever: Retriever, cross_encoder: CrossEncoder, call: Callable[[Any], Any]
) -> None:
    assert shape_of(call(RRRACrossEncoder(retriever))) == shape_of(call(cross_encoder))


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_cross_encoder_raises_the_same_errors(
    retriever: Retriever, cross_encoder: CrossEncoder, call: Callable[[Any], Any]
) -> None:
    for model in (cross_encoder, RRRACrossEncoder(retriever)):
        with pytest.raises((ValueError, TypeError)) as raised:
            call(model)
        if model is cross_encoder:
            expected = raised.type
    assert raised.type is expected


@pytest.mark.parametrize("method", ["predict", "rank"])
def test_a_cross_encoder_takes_the_same_arguments(method: str) -> None:
    ours, theirs = (
        {p.name: p.default for p in inspect.signature(getattr(model, method)).parameters.values()}
        for model in (RRRACrossEncoder, CrossEncoder)
    )
    theirs.pop("kwargs", None)
    assert list(ours.items()) == list(theirs.items())


def test_documents_are_ranked_as_by_the_retriever(retriever: Retriever) -> None:
    expected = retriever.rank(QUERY, TEXTS, return_documents=True)
    assert RRRACrossEncoder(retriever).rank(QUERY, TEXTS, return_documents=True) == expected


def test_predict_refuses_what_it_cannot_do(retriever: Retriever) -> None:
    model = RRRACrossEncoder(retriever)
    for inputs in (QUERY, [QUERY, *TEXTS], [(QUERY,)]):
        with pytest.raises(ValueError, match="inputs must be pairs"):
            model.predict(inputs)
    with pytest.raises(ValueError, match="prompt_name must be None, got 'query'"):
        model.predict([(QUERY, TEXTS[0])], prompt_name="query")
    with pytest.raises(ValueError, match="pool must be None"):
        model.predict([(QUERY, TEXTS[0])], pool={})
    with pytest.raises(ValueError, match="device must be None, got 'cuda'"):
        model.rank(QUERY, TEXTS, device="cuda")


def test_hard_negatives_are_mined_with_its_scores(retriever: Retriever) -> None:
    texts = [d if isinstance(d, str) else d["text"] for d in CORPUS.values()]
    pairs = Dataset.from_dict({"query": ["copy files", "sort text"], "answer": [texts[0], texts[3]]})
    mined = mine_hard_negatives(
        pairs,
        retriever.encoder,
        corpus=texts,
        cross_encoder=RRRACrossEncoder(retriever),
        range_max=4,
        num_negatives=2,
        absolute_margin=-1000.0,
        output_format="labeled-list",
        output_scores=True,
        verbose=False,
    )
    for row in mined:
        scores = RRRACrossEncoder(retriever).predict([(row["query"], text) for text in row["answer"]])
        assert_allclose(row["scores"], scores, atol=1e-4)
