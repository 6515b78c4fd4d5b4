"""Methods are chosen by name, share what is made once, and rank every test query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from comparison_task import DIM, DOCUMENTS, QUICK, systems
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates.words import shared_words
from rrra_hf.comparison import (
    Cell,
    CompareArguments,
    Trial,
    choose_methods,
    make_tables,
    methods_of,
    prepare,
    register,
    run_cells,
)
from rrra_hf.comparison.ablations import GROUPS
from rrra_hf.comparison.cross_encoder import cross_encoder_scores
from rrra_hf.comparison.measures import EXPONENTIAL_NDCG
from rrra_hf.comparison.ranking import searcher
from rrra_hf.comparison.residual_variants import (
    NoResidual,
    RandomStart,
    WithoutCosAC,
    WithoutCosQA,
    WithoutCosQC,
)
from rrra_hf.comparison.systems.features import without_features
from rrra_hf.comparison.systems.maps import encoder, pool_of
from rrra_hf.comparison.systems.words import bm25, mix, reciprocal_rank_fusion, summed
from rrra_hf.models.features_rrra import OF_LABELS, RANKING
from tiny import word_collection

# -------------------------------------------------------------------- methods


def test_methods_are_chosen_by_name_and_by_what_is_given():
    assert [method.name for method in systems("bm25", "encoder", "bm25")] == ["bm25", "encoder"]
    names = [method.name for method in choose_methods("systems", None, QUICK)]
    assert "cross-encoder" not in names and {"encoder", "rrf", "paper"} <= set(names)
    with_model = replace(QUICK, cross_encoder="some/model")
    assert "cross-encoder" in [method.name for method in choose_methods("systems", None, with_model)]


def test_unknown_methods_are_refused_with_the_legal_names():
    with pytest.raises(ValueError, match=r"methods must be among encoder, .*; got 'colbert'"):
        systems("colbert")
    with pytest.raises(ValueError, match="cross_encoder must be given for the method 'cross-encoder'"):
        systems("cross-encoder")


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="a name new in it"):
        register(methods_of("systems")["encoder"])
    with pytest.raises(ValueError, match="table must be one of systems"):
        register(replace(methods_of("systems")["encoder"], table="tables"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train", "half", "train must be one of none, lora, full, got 'half'"),
        ("seeds", 0, "seeds must be at least 1, got 0"),
        ("seed", -1, "seed must be at least 0"),
        ("steps", 0, "steps must be at least 1"),
        ("batch_size", 1, "batch_size must be at least 2"),
        ("num_negatives", 0, "num_negatives must be at least 1"),
        ("folds", 1, "folds must be at least 2"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
        ("gamma", -1.0, "gamma must not be negative"),
        ("injected_rate", -0.1, r"injected_rate must be in \[0, 1\]"),
    ],
)
def test_illegal_settings_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        CompareArguments(**{name: value})


# -------------------------------------------------------------------- trial and systems


def test_what_methods_share_is_made_once_and_counts_for_each(trial, monkeypatch):
    made, clock = [], [0.0]
    monkeypatch.setattr("rrra_hf.comparison.trial.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def slow():
        made.append(1)
        clock[0] += 7.0
        return "maps"

    (first, seconds), (again, seconds_again) = (
        trial.timed(lambda: trial.once("maps", slow)) for _ in range(2)
    )
    assert first == again == "maps" and made == [1]
    assert seconds == seconds_again == 7.0


def test_held_out_queries_are_no_training_queries(task):
    trial = Trial(task, 3, QUICK)
    assert len(trial.development.ids) == round(0.15 * 80)
    assert sorted(trial.development.ids + trial.training.ids) == sorted(task.training.ids)
    assert Trial(task, 4, QUICK).development.ids != trial.development.ids


def test_the_split_dev_serves_where_there_is_one(task):
    development = task.training.select(np.arange(10))
    trial = Trial(replace(task, development=development), 0, QUICK)
    assert trial.development is development and trial.training is task.training


@pytest.mark.usefixtures("quick")
def test_all_systems_rank_every_test_query(task, store):
    arguments = replace(QUICK, seeds=1)
    results = run_cells([task], choose_methods("systems", None, arguments), arguments, store)
    for cell, result in results.items():
        assert result.rows["query_id"].to_pylist() == task.test.ids, cell.method
        assert result.milliseconds > 0 and result.seconds >= 0
        assert 0 < result.figures["R@100"] <= 1
    quality = {cell.method: result.figures["nDCG@10"] for cell, result in results.items()}
    assert quality["query-map"] > quality["encoder"]


def test_an_encoders_figures_are_those_of_an_exact_search(task, store):
    (result,) = run_cells([task], systems("encoder"), QUICK, store).values()
    order = np.argsort(-task.test.embeddings @ task.documents.T, axis=1)
    first = [rows[0] in positives for rows, positives in zip(order, task.test.positives, strict=True)]
    assert result.rows["R@1"].to_numpy().tolist() == list(map(float, first))
    discounts = 1 / np.log2(np.arange(2, 12))
    for gain, name in ((1.0, "nDCG@10"), (2.0, EXPONENTIAL_NDCG)):  # of grade 1; 2 and 3 of grade 2
        gains = np.zeros((40, DOCUMENTS))
        for row, (two, one) in enumerate(task.test.positives):
            gains[row, two], gains[row, one] = (2.0, 1.0) if gain == 1.0 else (3.0, 1.0)
        ideal = gains.max(axis=1) * discounts[0] + discounts[1]
        expected = (np.take_along_axis(gains, order[:, :10], axis=1) @ discounts) / ideal
        np.testing.assert_allclose(result.rows[name].to_numpy(), expected, rtol=1e-6)


def test_reciprocal_ranks_are_summed(words):
    trial = Trial(words, 0, QUICK)
    dense, by_words = encoder(trial)(words.test), bm25(trial)(words.test)
    for query, ranking in enumerate(reciprocal_rank_fusion(trial)(words.test).tolist()):
        scores = dict.fromkeys(dense[query].tolist(), 0.0)
        for found in (dense[query], by_words[query]):
            for rank, row in enumerate(found.tolist(), start=1):
                if row >= 0:
                    scores[row] += 1 / (60 + rank)
        np.testing.assert_allclose([scores[row] for row in ranking], sorted(scores.values(), reverse=True))


def test_standard_scores_are_added_up_among_the_candidates():
    # 1 and -1 by cosine, 2 and -1 and -1 over the root of 2 by words; the third place is empty.
    cosines, rows = np.array([[0.9, 0.5, -np.inf]], dtype=np.float32), np.array([[4, 7, -1]])
    found = summed(cosines, np.array([[1.0, 3.0, 8.0]], dtype=np.float32), rows)
    np.testing.assert_allclose(found, [[0.0, 0.0, -np.inf]], atol=1e-4)
    rows = np.array([[4, 7, 2]])
    found = summed(np.zeros((1, 3)), np.array([[3.0, 0.0, 0.0]]), rows)
    np.testing.assert_allclose(found, [[2**0.5, -(0.5**0.5), -(0.5**0.5)]], rtol=1e-4)


def test_words_and_vectors_are_mixed_among_the_best_of_both(words, monkeypatch):
    monkeypatch.setattr("rrra_hf.comparison.systems.words.RANKED", 1)
    trial = Trial(words, 0, replace(QUICK, fit=replace(QUICK.fit, depth=10)))
    dense, by_words = encoder(trial)(words.test), bm25(trial)(words.test)[:, :40]
    every = np.tile(np.arange(40), (12, 1))
    of_words = shared_words(words.words, words.words.count(words.test.texts), every)[0]
    of_vectors = words.test.embeddings @ words.documents.T
    for query, ranking in enumerate(mix(trial)(words.test).tolist()):
        merged = np.stack([dense[query, :10], by_words[query, :10]], axis=1).ravel().tolist()
        taken = [row for row in dict.fromkeys(merged) if row >= 0][:10]
        x = np.stack([of_vectors[query, taken], of_words[query, taken]])
        scores = ((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)).sum(axis=0)
        found = dict(zip(taken, scores, strict=True))
        np.testing.assert_allclose([found[row] for row in ranking], np.sort(scores)[::-1], atol=1e-4)


def test_systems_that_need_no_label_are_run_once():
    assert not any(methods_of("systems")[name].seeded for name in ("bm25", "rrf", "mix", "pretrained"))


def test_an_adapter_reranks_what_words_find(words):
    adapter = RetrieverAdapter.pretrained()
    rows = searcher(words.documents, 10, adapter=adapter, words=words.words)(words.test)
    plain = searcher(words.documents, 10, adapter=adapter)(words.test)
    dense = searcher(words.documents, 10)(words.test)
    assert rows.shape == plain.shape == dense.shape == (12, 40)
    assert {frozenset(row) for row in plain[:, :10].tolist()} == {
        frozenset(row) for row in dense[:, :10].tolist()
    }
    found = words.words.search(words.words.count(words.test.texts), 5)[1]
    for ranking, by_words in zip(rows[:, :10].tolist(), found.tolist(), strict=True):
        assert set(by_words) <= {*ranking, -1}
    assert any(set(a) != set(b) for a, b in zip(rows[:, :10].tolist(), dense[:, :10].tolist(), strict=True))


def test_a_search_reranks_with_an_adapter_and_maps(task):
    plain = searcher(task.documents, 10)(task.test)
    turned = searcher(task.documents, 10, lambda x: -x)(task.test)
    assert plain.shape == (40, 100)
    assert (plain[:, 0] != turned[:, 0]).all()


def test_a_cross_encoder_reranks_by_its_scores(words, store, cross_encoder):
    arguments = replace(QUICK, seeds=1, cross_encoder=str(cross_encoder))
    rank = methods_of("systems")["cross-encoder"]
    (result,) = run_cells([words], [rank], arguments, store).values()
    trial = Trial(words, 0, arguments)
    rows = searcher(words.documents, 20)(words.test)[:, :20]
    scores = cross_encoder_scores(trial, words.test.texts, words.collection.document_texts, rows)
    first = np.take_along_axis(rows, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    expected = [float(row in positives) for row, positives in zip(first, words.test.positives, strict=True)]
    assert result.rows["R@1"].to_pylist() == expected
    assert (scores < 0).any() and (scores > 1).any()  # logits, not probabilities


def test_a_cross_encoder_and_a_guide_detect_and_denoise(words, store, cross_encoder, tiny_bert):
    arguments = replace(QUICK, seeds=1, cross_encoder=str(cross_encoder), guide=str(tiny_bert))
    methods = choose_methods("detection", ["similarity", "guide", "cross-encoder"], arguments)
    methods += choose_methods("strategies", ["rocketqa"], arguments)
    similarity, guide, crossed, denoised = run_cells([words], methods, arguments, store).values()
    # The guide is the encoder itself here.
    assert guide.figures["average precision"] == pytest.approx(similarity.figures["average precision"])
    assert 0 <= crossed.figures["ECE"] <= 1 and "ECE" not in guide.figures
    assert denoised.rows.num_rows == 12


# -------------------------------------------------------------------- ablations


@pytest.mark.parametrize(("place", "variant"), enumerate([WithoutCosQA, WithoutCosAC, WithoutCosQC]))
def test_a_readout_left_out_stays_out(place, variant):
    reader = variant(DIM, 0.05, hidden_size=4)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=0.1)
    q, c = torch.randn(2, 6, DIM)
    for _ in range(3):
        optimizer.zero_grad()
        reader(q, c).sum().backward()
        optimizer.step()
    assert (reader.readout.weight[:, place] == 0).all()
    assert (reader.readout.weight[:, [i for i in range(3) if i != place]] != 0).any()


def test_variants_start_elsewhere():
    q, c = torch.nn.functional.normalize(torch.randn(2, 6, DIM), dim=-1)
    tau = 0.05
    cosines = (q * c).sum(-1) / tau
    assert not torch.allclose(RandomStart(DIM, tau, hidden_size=4)(q, c), cosines, atol=1e-3)
    torch.manual_seed(0)
    residual = RandomStart(DIM, tau, hidden_size=4)
    torch.manual_seed(0)
    bare = NoResidual(DIM, tau, hidden_size=4)
    a = residual.adapt(q, c).adapted - c
    expected = torch.nn.functional.cosine_similarity(q, a, dim=-1) / tau
    torch.testing.assert_close(bare(q, c), expected, rtol=1e-4, atol=1e-4)


def test_features_are_left_out_one_by_one_or_together():
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names)) and set(names) < {*RANKING, *OF_LABELS}
    assert set(OF_LABELS) < set(GROUPS)
    assert {f"features-without-{group}" for group in GROUPS} < set(methods_of("ablations"))
    kept = without_features(Trial(None, 0, CompareArguments()), *GROUPS["words"]).features
    assert set(kept) == {*RANKING, *OF_LABELS} - set(GROUPS["words"])


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_ablations_stand_beside_the_full_adapter(task, store):
    arguments = replace(QUICK, seeds=1)
    results = run_cells([task], choose_methods("ablations", None, arguments), arguments, store)
    (adapter,) = run_cells([task], systems("residual"), arguments, store).values()
    full = results[Cell("ablations", "made", "residual", 0)]
    assert full.rows.equals(adapter.rows)
    (table,) = make_tables(results)
    assert table["reference"] == "residual" and len(table["rows"]) == len(methods_of("ablations"))


def test_queries_keep_what_is_left_out_for_them(tiny_bert: Path) -> None:
    collection = word_collection(30, train=10, test=6)
    texts = [*collection.document_texts[:29], collection.query_texts[3]]
    corpus = Dataset.from_dict({"id": collection.document_ids, "title": [""] * 30, "text": texts})
    task = prepare(replace(collection, corpus=corpus), SentenceTransformer(str(tiny_bert), device="cpu"))
    labelled = task.training.select(np.array([3, 4])).labelled(task.words)
    assert [rows.tolist() for rows in labelled.excluded] == [[29], []]
    trial = Trial(task, 0, CompareArguments())
    left_out = [29 in rows for rows in pool_of(trial).candidates[:, : 30 - 2]]
    assert left_out.count(False) == 1
