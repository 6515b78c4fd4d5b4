"""MTEB reports the same figures for the search model as our own evaluation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from retriever_models import make_retriever
from rrra_hf.data import Collection
from rrra_hf.evaluation import RankingQuality, ranking_quality
from rrra_hf.retrieval import Retriever, evaluate
from tiny import word_collection

pytest.importorskip("mteb")

import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval

from rrra_hf.integrations.mteb import RRRASearchModel, descending

MEASURES = {"nDCG@10": "ndcg_at_10", "MRR@10": "mrr_at_10", "R@10": "recall_at_10", "R@100": "recall_at_100"}
PER_QUERY = {"nDCG@10": "ndcg_cut_10", "R@10": "recall_10", "R@100": "recall_100"}
DEPTH = 15


class InMemoryTask(AbsTaskRetrieval):
    """A retrieval task over a collection in memory, or a reranking task if it has candidates."""

    metadata = mteb.TaskMetadata(
        name="InMemory",
        description="Words.",
        type="Retrieval",
        dataset={"path": "in/memory", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def __init__(self, collection: Collection, top_ranked: dict[str, list[str]] | None = None):
        super().__init__()
        self.dataset = {
            "default": {
                "test": {
                    "corpus": collection.corpus,
                    "queries": collection.queries,
                    "relevant_docs": collection.qrels,
                    "top_ranked": top_ranked,
                }
            }
        }
        self.data_loaded = True
        self.per_query: dict[str, dict[str, float]] = {}

    def task_specific_scores(
        self, scores: dict[str, dict[str, float]], *_: Any, **__: Any
    ) -> dict[str, float]:
        self.per_query = scores  # before MTEB rounds their means to five decimals
        return {}


def assert_measured(model: RRRASearchModel, task: InMemoryTask, expected: RankingQuality) -> None:
    """Check the figures in MTEB's result, and those of each query to 1e-6."""
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    for name, theirs in MEASURES.items():
        assert scores[theirs] == pytest.approx(expected.mean[name], abs=5.1e-6)
    for name, theirs in PER_QUERY.items():
        found = [task.per_query[query_id][theirs] for query_id in expected.query_ids]
        assert_allclose(found, expected.per_query[name], atol=1e-6)


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert)


@pytest.fixture(scope="module")
def collection() -> Collection:
    """A collection with titles and each document twice, so that scores tie."""
    made = word_collection(60, test=40)
    titled = made.corpus.map(lambda row: {"title": row["text"].split()[0]})
    twins = titled.map(lambda row: {"id": "twin-" + row["id"]})
    return Collection("tiny", concatenate_datasets([titled, twins]), made.queries, made.qrels_by_split)


@pytest.mark.parametrize("rerank", [False, True])
def test_figures_equal_those_of_our_own_evaluation(
    retriever: Retriever, collection: Collection, rerank: bool
) -> None:
    # The corpus is larger than the reranking depth. Hits below it have cosines as scores.
    quality = evaluate(retriever.index(collection), collection, list(MEASURES), depth=DEPTH).quality
    model = RRRASearchModel(retriever, rerank=rerank, depth=DEPTH)
    assert_measured(model, InMemoryTask(collection), quality["adapter" if rerank else "encoder"])
    assert quality["adapter"].mean != pytest.approx(quality["encoder"].mean, abs=1e-3)


@pytest.mark.parametrize("rerank", [False, True])
def test_reranking_tasks_rank_the_documents_that_they_name(
    retriever: Retriever, collection: Collection, rerank: bool
) -> None:
    rng = np.random.default_rng(0)
    candidates = {
        query_id: [*qrels, *rng.choice(collection.document_ids[60:], 12, replace=False).tolist()]
        for query_id, qrels in collection.qrels.items()
    }
    text_of = dict(zip(collection.document_ids, collection.document_texts, strict=True))
    rankings = {}
    for query_id, query in zip(collection.query_ids, collection.query_texts, strict=True):
        own = retriever.index({name: text_of[name] for name in candidates[query_id]})
        rankings[query_id] = own.search(query, top_k=100, rerank=rerank)[0]
    expected = ranking_quality(rankings, collection.qrels, list(MEASURES))
    assert_measured(RRRASearchModel(retriever, rerank=rerank), InMemoryTask(collection, candidates), expected)


def search(
    model: RRRASearchModel, corpus: Dataset, queries: Dataset, **options: Any
) -> dict[str, dict[str, float]]:
    task = {
        "task_metadata": InMemoryTask.metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "num_proc": None,
    }
    model.index(corpus, encode_kwargs={}, **task)
    return model.search(queries, encode_kwargs={}, top_k=10, **task, **options)


def test_model_is_a_search_model_with_its_name(retriever: Retriever) -> None:
    model = RRRASearchModel(retriever, "me/mine", "2")
    assert isinstance(model, mteb.SearchProtocol)
    assert not isinstance(model, (mteb.EncoderProtocol, mteb.CrossEncoderProtocol))
    assert (model.mteb_model_meta.name, model.mteb_model_meta.revision) == ("me/mine", "2")


def test_metadata_is_filled(retriever: Retriever, mapped: Retriever) -> None:
    meta = RRRASearchModel(mapped, "me/mine", depth=20).mteb_model_meta
    weights = [*mapped.encoder.parameters(), *mapped.adapter.parameters()]
    embeddings = mapped.encoder[0].model.get_input_embeddings().weight
    assert meta.n_parameters == sum(weight.numel() for weight in weights)
    assert meta.n_active_parameters == meta.n_parameters - embeddings.numel()
    assert meta.memory_usage_mb == pytest.approx(4 * meta.n_parameters / 2**20)
    assert (meta.max_tokens, meta.embed_dim, meta.use_instructions) == (32, 32, True)
    assert meta.similarity_fn_name == "cosine"
    assert meta.experiment_kwargs == {"rerank": True, "depth": 20}
    assert "2508.11670" in meta.citation
    inside = RRRASearchModel(retriever).mteb_model_meta
    assert inside.n_parameters == sum(weight.numel() for weight in retriever.encoder.parameters())
    assert (inside.adapted_from, inside.use_instructions) == ("tiny-bert", False)
    with pytest.raises(ValueError, match="organization/model_name"):
        RRRASearchModel(retriever, "mine")


def test_results_of_other_settings_are_kept_apart(
    retriever: Retriever, collection: Collection, tmp_path: Path
) -> None:
    cache, scores = mteb.ResultCache(tmp_path), []
    for rerank in (False, True):
        model = RRRASearchModel(retriever, "me/mine", "1", rerank=rerank)
        task = InMemoryTask(collection)
        result = mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)
        scores.append(result.task_results[0].scores["test"][0]["ndcg_at_10"])
    assert scores[0] != scores[1]


def test_documents_without_text_are_not_found(retriever: Retriever, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Dataset.from_dict({"id": ["a", "b", "c"], "title": ["", " ", "copy"], "text": ["sort", "", ""]})
    queries = Dataset.from_dict({"id": ["q"], "text": ["copy files"]})
    model = RRRASearchModel(retriever)
    assert set(search(model, corpus, queries)["q"]) == {"a", "c"}
    assert "1 documents have no text" in caplog.text
    assert set(search(model, corpus, queries, top_ranked={"q": ["b", "c"]})["q"]) == {"c"}
    assert search(model, corpus, queries, top_ranked={"q": ["b"]}) == {"q": {}}


def test_instructions_follow_their_queries(retriever: Retriever) -> None:
    corpus = Dataset.from_dict({"id": ["a", "b"], "text": ["sort text", "copy files"]})
    queries = {"id": ["q", "r"], "text": ["copy", "sort"], "instruction": ["old files", None]}
    found = search(RRRASearchModel(retriever), corpus, Dataset.from_dict(queries))
    expected = retriever.search({"q": "copy old files", "r": "sort"})
    assert found == {
        name: descending((h["corpus_id"], h["score"]) for h in hits) for name, hits in expected.items()
    }


def test_what_is_no_text_is_refused(retriever: Retriever) -> None:
    model = RRRASearchModel(retriever)
    task: dict[str, Any] = {"task_metadata": SimpleNamespace(), "hf_split": "test", "hf_subset": "default"}
    queries = Dataset.from_dict({"id": ["q"], "text": ["copy"]})
    with pytest.raises(ValueError, match="no corpus yet"):
        model.search(queries, top_k=1, encode_kwargs={}, **task)
    with pytest.raises(ValueError, match=r"columns id and text, got \['id', 'image'\]"):
        model.index(Dataset.from_dict({"id": ["a"], "image": [0]}), encode_kwargs={}, **task)
    turns = Dataset.from_dict({"id": ["q"], "text": [[{"role": "user", "content": "copy"}]]})
    with pytest.raises(ValueError, match="queries must be strings, got list"):
        search(model, Dataset.from_dict({"id": ["a"], "text": ["b"]}), turns)


@given(st.lists(st.floats(-30, 30, width=32)))
def test_lowered_scores_keep_the_order_and_no_tie(scores: list[float]) -> None:
    lowered = list(descending((str(rank), score) for rank, score in enumerate(scores)).values())
    assert all(np.diff(np.float32(lowered)) < 0)
    assert all(low <= score for low, score in zip(lowered, scores, strict=True))
    falling = sorted(set(scores), reverse=True)
    assert list(descending((str(rank), s) for rank, s in enumerate(falling)).values()) == falling
