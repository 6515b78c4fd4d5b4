"""The comparison: cells that resume, figures that anyone can recompute, and reports that stand alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from rrra_hf.comparison.gradients import gradients_by_rank
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertForSequenceClassification

from command_line import rrra
from rrra_hf import AdapterConfig
from rrra_hf.comparison import (
    Cell,
    CellStore,
    CompareArguments,
    Method,
    Queries,
    Result,
    Task,
    Trial,
    choose_methods,
    make_tables,
    methods_of,
    prepare,
    register,
    run_cells,
)
from rrra_hf.comparison.ablations import NoResidual, RandomStart, without_readout
from rrra_hf.comparison.ranking import EXPONENTIAL, MEASURES, searcher
from rrra_hf.comparison.report import grid_of, markdown, page
from rrra_hf.comparison.strategies import STRATEGIES
from rrra_hf.comparison.systems import _fused, cross_encoder_scores
from rrra_hf.comparison.train_maps import drawn_batches
from rrra_hf.comparison.truth import ground_truth
from rrra_hf.data import Collection
from rrra_hf.evaluation import compare_paired, holm
from rrra_hf.fitting import FitArguments
from tiny import SIZE, WORDS, make_tokenizer

FIT = FitArguments(max_steps=20, eval_steps=10, hidden_size=8, depth=20, batch_size=16)
QUICK = CompareArguments(seeds=2, fit=FIT, steps=5, batch_size=8, num_negatives=2, folds=2)
DIM, DOCUMENTS = 16, 120


def normalized(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def collection_of(qrels_by_split, documents, queries, name="made"):
    return Collection(
        name=name,
        corpus=Dataset.from_dict(
            {"id": list(documents), "title": [""] * len(documents), "text": list(documents.values())}
        ),
        queries=Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
        qrels_by_split=qrels_by_split,
    )


def make_task(name="made"):
    """Documents in clusters of four; a query has two of its cluster's for positives, one of grade 2."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(DOCUMENTS // 4, DIM))
    documents = normalized(np.repeat(centres, 4, axis=0) + 0.5 * rng.normal(size=(DOCUMENTS, DIM)))
    turn = np.diag(np.where(np.arange(DIM) < 4, -1.0, 1.0))
    texts = {f"d{i}": " ".join(rng.choice(WORDS, 6)) for i in range(DOCUMENTS)}

    def queries(split, count):
        clusters = rng.integers(0, len(centres), size=count)
        firsts = 4 * clusters + rng.integers(0, 3, size=count)
        positives = [np.array([row, row + 1]) for row in firsts]
        embeddings = normalized(documents[firsts] @ turn + 0.2 * rng.normal(size=(count, DIM)))
        ids = [f"{split}{i}" for i in range(count)]
        return Queries(ids, [texts[f"d{row}"] for row in firsts], embeddings, positives)

    training, test = queries("train", 80), queries("test", 40)
    qrels = {
        split: {
            query: {f"d{rows[0]}": 2, f"d{rows[1]}": 1}
            for query, rows in zip(part.ids, part.positives, strict=True)
        }
        for split, part in (("train", training), ("test", test))
    }
    names = dict(zip(training.ids + test.ids, training.texts + test.texts, strict=True))
    return Task(name, collection_of(qrels, texts, names, name), documents, training, None, test)


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture
def trial(task):
    return Trial(task, 0, QUICK)


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path / "cells")


@pytest.fixture(scope="module")
def collection():
    """Texts in which a query shares words with its one document."""
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(WORDS, 6, replace=False)) for i in range(40)}
    queries, qrels = {}, {"train": {}, "test": {}}
    for split, count in (("train", 24), ("test", 12)):
        for i in range(count):
            row = int(rng.integers(40))
            queries[f"{split}{i}"] = " ".join(documents[f"d{row}"].split()[:4])
            qrels[split][f"{split}{i}"] = {f"d{row}": 1}
    return collection_of(qrels, documents, queries, "words")


@pytest.fixture(scope="module")
def words(collection, tiny_bert):
    """A task with an encoder, and one positive a query."""
    return prepare(collection, SentenceTransformer(str(tiny_bert), device="cpu"), encoder_name=str(tiny_bert))


def systems(*names):
    return choose_methods("systems", names, QUICK)


# -------------------------------------------------------------------- cells


def counted(name, runs, fails=()):
    """A method that counts its runs, and fails at some."""

    def run(trial):
        runs.append((name, trial.seed))
        if (name, trial.seed) in fails:
            raise KeyboardInterrupt
        columns = {measure: np.full(40, 0.5) for measure in (*MEASURES, EXPONENTIAL)}
        rows = pa.table({"query_id": trial.task.test.ids, "seen": trial.task.seen, **columns})
        return Result({"nDCG@10": 0.5}, rows, 0.1, 1.0)

    return Method("systems", name, "counts", run)


def test_a_killed_run_runs_only_what_is_missing(task, store):
    runs = []
    fails = [("b", 1)]
    with pytest.raises(KeyboardInterrupt):
        run_cells([task], [counted("a", runs), counted("b", runs, fails)], QUICK, store)
    assert runs == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    runs.clear()
    results = run_cells([task], [counted("a", runs), counted("b", runs)], QUICK, store)
    assert runs == [("b", 1)]
    assert len(results) == 4
    runs.clear()
    run_cells([task], [counted("a", runs), counted("b", runs)], QUICK, store)
    assert runs == []


def test_more_seeds_and_methods_run_beside_what_is_there(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    run_cells([task], [counted("a", runs), counted("b", runs)], replace(QUICK, seeds=3), store)
    assert runs == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2), ("b", 2)]


def test_a_method_without_randomness_is_run_once(task, store):
    results = run_cells([task], systems("encoder"), QUICK, store)
    assert [cell.seed for cell in results] == [0]


def test_a_cell_of_other_settings_is_refused_before_anything_runs(task, store):
    runs = []
    run_cells([task], [counted("b", runs)], QUICK, store)
    other = replace(QUICK, fit=replace(FIT, depth=30))
    with pytest.raises(
        ValueError, match=r"seed-0.json was made with other settings: fit.depth was 20, now 30"
    ):
        run_cells([task], [counted("a", runs), counted("b", runs)], other, store)
    assert runs == [("b", 0), ("b", 1)]


def test_a_cell_of_another_collection_is_refused(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    changed = make_task()
    changed.collection.qrels_by_split["test"]["test0"] = {"d7": 1}
    with pytest.raises(ValueError, match=r"other settings: collection.qrels was"):
        run_cells([changed], [counted("a", runs)], QUICK, store)


def test_settings_that_a_method_does_not_read_do_not_matter(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    run_cells([task], [counted("a", runs)], replace(QUICK, steps=9), store)
    assert len(runs) == 2


@pytest.mark.parametrize("damage", ["{", "{}", '{"figures": 1}'])
def test_a_damaged_cell_is_named(task, store, damage):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=r"seed-0.json is damaged"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_a_cell_of_another_format_is_refused(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_missing_or_cut_rows_are_named(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    with pytest.raises(ValueError, match=r"seed-0.parquet is missing or damaged: it has 3 rows, not 40"):
        run_cells([task], [counted("a", [])], QUICK, store)
    path.unlink()
    with pytest.raises(ValueError, match=r"seed-0.parquet is missing or damaged"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_cells_made_by_other_code_are_told(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    assert store.other_code == []
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": "other"}))
    run_cells([task], [counted("a", [])], QUICK, store)
    assert store.other_code == [Cell("systems", "made", "a", 0)]


def test_names_of_repositories_make_one_folder():
    assert Cell("systems", "a/b c", "encoder", 1).name == "a_b_c/systems/encoder/seed-1"


def test_two_collections_of_one_name_are_refused(task, store):
    with pytest.raises(ValueError, match="collections must have different names, got made, made"):
        run_cells([task, task], systems("encoder"), QUICK, store)


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
        ("injected_rate", 0.0, r"injected_rate must be in \(0, 1\]"),
    ],
)
def test_illegal_settings_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        CompareArguments(**{name: value})


# -------------------------------------------------------------------- trial and systems


def test_what_methods_share_is_made_once_and_counts_for_each(trial):
    made = []

    def slow():
        made.append(1)
        torch.randn(400, 400) @ torch.randn(400, 400)
        return "maps"

    (first, seconds), (again, seconds_again) = (
        trial.timed(lambda: trial.once("maps", slow)) for _ in range(2)
    )
    assert first == again == "maps" and made == [1]
    assert seconds_again == pytest.approx(seconds, rel=0.5, abs=2e-3)


def test_held_out_queries_are_no_training_queries(task):
    trial = Trial(task, 3, QUICK)
    assert len(trial.development.ids) == round(0.15 * 80)
    assert sorted(trial.development.ids + trial.training.ids) == sorted(task.training.ids)
    assert Trial(task, 4, QUICK).development.ids != trial.development.ids


def test_the_split_dev_serves_where_there_is_one(task):
    development = task.training.select(np.arange(10))
    trial = Trial(replace(task, development=development), 0, QUICK)
    assert trial.development is development and trial.training is task.training


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
    for gain, name in ((1.0, "nDCG@10"), (2.0, EXPONENTIAL)):  # of grade 1; 2 and 3 of grade 2
        gains = np.zeros((40, DOCUMENTS))
        for row, (two, one) in enumerate(task.test.positives):
            gains[row, two], gains[row, one] = (2.0, 1.0) if gain == 1.0 else (3.0, 1.0)
        ideal = gains.max(axis=1) * discounts[0] + discounts[1]
        expected = (np.take_along_axis(gains, order[:, :10], axis=1) @ discounts) / ideal
        np.testing.assert_allclose(result.rows[name].to_numpy(), expected, rtol=1e-6)


def test_reciprocal_ranks_are_summed():
    first, second = np.array([[1, 2, 3]]), np.array([[3, 9, 1]])
    assert _fused(first, second, 0.0).tolist() == [[1, 2, 3]]
    # 1: 1/61 + 1/63; 3: 1/63 + 1/61; the tie goes to the one met first
    assert _fused(first, second, 1.0).tolist() == [[1, 3, 2]]
    assert _fused(first, second, 2.0).tolist() == [[3, 1, 9]]


def test_a_search_reranks_with_an_adapter_and_maps(task):
    plain = searcher(task.documents, 10)(task.test)
    turned = searcher(task.documents, 10, lambda x: -x)(task.test)
    assert plain.shape == (40, 100)
    assert (plain[:, 0] != turned[:, 0]).all()


# -------------------------------------------------------------------- ground truth and strategies


def test_positives_are_hidden_where_queries_have_several(trial, task):
    truth = ground_truth(trial)
    assert truth.protocol == "hidden"
    assert all(len(rows) == 1 for rows in truth.training.positives)
    for query, place in np.argwhere(truth.false_negative):
        row = truth.pool.candidates[query, place]
        assert row in task.training.positives[query] and row not in truth.training.positives[query]
    assert 40 < truth.false_negative.sum() <= 80
    assert ground_truth(trial) is truth


def test_near_duplicates_are_put_in_where_queries_have_one_positive(words):
    truth = ground_truth(Trial(words, 0, QUICK))
    assert truth.protocol == "injected"
    assert len(truth.documents) == len(truth.collection.document_ids) > len(words.documents)
    assert truth.false_negative.any()
    assert (truth.pool.candidates[truth.false_negative] >= len(words.documents)).all()
    copied = truth.collection.document_ids[len(words.documents)]
    assert re.fullmatch(r"near-duplicate of d\d+", copied)


def test_near_duplicates_need_an_encoder(words):
    with pytest.raises(ValueError, match="encoder must be given for words"):
        ground_truth(Trial(replace(words, encoder=None), 0, QUICK))


@pytest.mark.parametrize("name", ["top-k", "oracle", "rrra", "in-batch"])
def test_no_batch_holds_a_labelled_document_among_anothers_negatives(trial, name):
    truth, strategy = ground_truth(trial), STRATEGIES[name]
    batches = drawn_batches(trial, strategy, 16)
    for _ in range(5):
        batch = next(batches)
        for i, query in enumerate(batch.rows[:, 0]):
            others = np.delete(batch.rows[:, 1:], i, axis=0)
            assert not np.isin(others, truth.training.positives[query]).any()
            assert not np.isin(batch.rows[i, 2:], truth.training.positives[query]).any()
        assert batch.places.shape == batch.weights.shape == (len(batch.rows), 0 if name == "in-batch" else 2)


def test_every_strategy_trains_and_is_measured(task, store):
    arguments = replace(QUICK, seeds=1)
    results = run_cells([task], choose_methods("training", None, arguments), arguments, store)
    assert len(results) == len(methods_of("training")) - 1  # all but what needs a cross-encoder
    assert len({result.figures["nDCG@10"] for result in results.values()}) > 3
    assert {result.rows.num_rows for result in results.values()} == {40}


def test_the_oracle_never_draws_a_false_negative(trial):
    truth = ground_truth(trial)
    batches = drawn_batches(trial, STRATEGIES["oracle"], 16)
    for _ in range(10):
        batch = next(batches)
        assert not truth.false_negative[batch.rows[:, :1], batch.places].any()


@pytest.mark.slow
@pytest.mark.parametrize("train", ["lora", "full"])
def test_strategies_train_the_encoder_itself(words, store, train):
    arguments = replace(QUICK, seeds=1, train=train, steps=2, learning_rate=1e-2)
    names = ["in-batch", "top-k", "rrra", "ccr", "gist"]
    results = run_cells([words], choose_methods("training", names, arguments), arguments, store)
    assert {result.rows.num_rows for result in results.values()} == {12}
    without = replace(words, name="without", encoder_name=None)
    with pytest.raises(ValueError, match="encoder must be given for without to be trained"):
        run_cells([without], choose_methods("training", ["in-batch"], arguments), arguments, store)


def test_gradients_stay_within_a_strategys_ranks_and_off_what_the_oracle_drops(trial, monkeypatch):
    monkeypatch.setattr("rrra_hf.comparison.gradients.DRAWS", 200)
    by_rank, share = gradients_by_rank(trial, STRATEGIES["rank-window"])
    assert (by_rank[:10] == 0).all() and by_rank[10:].any()
    by_rank, share = gradients_by_rank(trial, STRATEGIES["oracle"])
    assert share == 0.0 and by_rank.sum() > 0
    _, share = gradients_by_rank(trial, STRATEGIES["top-k"])
    assert 0 < share < 1


# -------------------------------------------------------------------- models of others


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """Path of a tiny cross-encoder with random weights."""
    folder = tmp_path_factory.mktemp("cross") / "cross-encoder"
    torch.manual_seed(0)
    size = {**SIZE, "hidden_size": 16, "num_hidden_layers": 1, "num_labels": 1}
    BertForSequenceClassification(BertConfig(**size, initializer_range=1.0)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


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
    methods += choose_methods("training", ["rocketqa"], arguments)
    similarity, guide, crossed, denoised = run_cells([words], methods, arguments, store).values()
    # The guide is the encoder itself here.
    assert guide.figures["average precision"] == pytest.approx(similarity.figures["average precision"])
    assert 0 <= crossed.figures["ECE"] <= 1 and "ECE" not in guide.figures
    assert denoised.rows.num_rows == 12


# -------------------------------------------------------------------- ablations


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_readout_left_out_stays_out(place):
    adapter = without_readout(place)(AdapterConfig(embedding_dim=DIM, hidden_size=4))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1)
    q, c = torch.randn(2, 6, DIM)
    for _ in range(3):
        optimizer.zero_grad()
        adapter(q, c).logits.sum().backward()
        optimizer.step()
    assert (adapter.readout.weight[:, place] == 0).all()
    assert (adapter.readout.weight[:, [i for i in range(3) if i != place]] != 0).any()


def test_variants_start_elsewhere():
    q, c = torch.nn.functional.normalize(torch.randn(2, 6, DIM), dim=-1)
    config = AdapterConfig(embedding_dim=DIM, hidden_size=4)
    cosines = (q * c).sum(-1) / config.tau
    assert not torch.allclose(RandomStart(config)(q, c).logits, cosines, atol=1e-3)
    torch.manual_seed(0)
    residual = RandomStart(config)
    torch.manual_seed(0)
    bare = NoResidual(config)
    a = residual(q, c).adapted - c
    expected = torch.nn.functional.cosine_similarity(q, a, dim=-1) / config.tau
    torch.testing.assert_close(bare(q, c).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_ablations_stand_beside_the_full_adapter(task, store):
    arguments = replace(QUICK, seeds=1)
    results = run_cells([task], choose_methods("ablations", None, arguments), arguments, store)
    (adapter,) = run_cells([task], systems("adapter"), arguments, store).values()
    full = results[Cell("ablations", "made", "full", 0)]
    assert full.rows.equals(adapter.rows)
    (table,) = make_tables(results)
    assert table["reference"] == "full" and len(table["rows"]) == len(methods_of("ablations"))


# -------------------------------------------------------------------- tables and reports


@pytest.fixture(scope="module")
def results(task, tmp_path_factory):
    """A comparison of systems and of detectors, and its cells on disk."""
    store = CellStore(tmp_path_factory.mktemp("comparison") / "cells")
    detectors = ["adapter", "similarity", "margin-to-positive", "perc-pos", "similarity-to-positive"]
    methods = [*systems("encoder", "bm25", "query-map", "two-sided-map", "adapter")]
    methods += choose_methods("detection", detectors, QUICK)
    return store, run_cells([task], methods, QUICK, store)


def test_figures_of_a_table_are_recomputed_from_the_files_of_its_queries(results):
    store, cells = results
    table, _ = make_tables(cells)
    read = {
        row["method"]: [
            pq.read_table(path)
            for path in sorted((store.folder / "made/systems" / row["method"]).glob("*.parquet"))
        ]
        for row in table["rows"]
    }
    assert {len(runs) for runs in read.values()} == {1, 2}
    seen = read["encoder"][0]["seen"].to_numpy(zero_copy_only=False)
    assert table["queries"] == {"all": 40, "seen": int(seen.sum()), "unseen": int((~seen).sum())}
    baseline = np.stack([run["nDCG@10"].to_numpy() for run in read[table["reference"]]])
    p_values = []
    for row in table["rows"]:
        quality = np.stack([run["nDCG@10"].to_numpy() for run in read[row["method"]]])
        assert row["nDCG@10"]["all"] == pytest.approx(quality.mean())
        assert row["nDCG@10"]["unseen"] == pytest.approx(quality[:, ~seen].mean())
        assert row["R@1"]["seen"] == pytest.approx(
            np.mean([run["R@1"].to_numpy()[seen].mean() for run in read[row["method"]]])
        )
        if row["method"] == table["reference"]:
            assert row["difference"]["all"] is None
            continue
        paired = compare_paired(quality, baseline)
        assert row["difference"]["all"]["mean"] == pytest.approx(paired.difference)
        assert row["difference"]["all"]["interval"] == pytest.approx(paired.interval)
        p_values.append((paired.p_value, row["difference"]["all"]["p (Holm)"]))
    raw, adjusted = zip(*p_values, strict=True)
    assert list(adjusted) == pytest.approx(holm(raw).tolist())


def test_the_best_map_is_the_reference_unless_another_is_wanted(results):
    _, cells = results
    table, _ = make_tables(cells)
    means = {row["method"]: row["nDCG@10"]["all"] for row in table["rows"]}
    assert table["reference"] == max(("query-map", "two-sided-map"), key=means.__getitem__)
    table, _ = make_tables(cells, reference="encoder")
    assert table["reference"] == "encoder"
    only = {cell: result for cell, result in cells.items() if cell.method in ("encoder", "bm25")}
    assert make_tables(only)[0]["reference"] == "encoder"


def test_detection_is_measured_and_calibrated(results):
    store, cells = results
    _, table = make_tables(cells)
    rows = {row["method"]: row for row in table["rows"]}
    assert table["protocol"] == "hidden" and 0 < table["base rate"] < 1
    assert rows["similarity"]["ECE"] is None and 0 <= rows["adapter"]["ECE"] < 1
    # one of a cluster's four is labelled, another hidden: nearness to the labelled one gives it away
    assert rows["similarity-to-positive"]["AUROC"] > 0.9
    pairs = pq.read_table(store.folder / "made/detection/similarity/seed-0.parquet")
    assert pairs.num_rows == 80 * FIT.depth
    assert set(pairs.column_names) == {"query_id", "document_id", "false_negative", "score"}


def report_of(cells):
    return {
        "command": "rrra compare made --out <here>",
        "machine": {"python": "3"},
        "settings": {"encoder": "none", "max_length": 8, **QUICK.settings(["seeds", "fit"])},
        "other_code": [],
        "tables": make_tables(cells),
    }


def test_the_page_is_well_formed_and_needs_nothing_else(results):
    from rrra_hf.comparison.plots import plots_of

    report = report_of(results[1])
    text = page(report, [plots_of(table) for table in report["tables"]])
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert root.find(".//table") is not None
    assert len(root.findall(".//{http://www.w3.org/2000/svg}svg")) == 2
    assert "<script" not in text and "@import" not in text
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("src", "href"):
                assert value.startswith("#"), (element.tag, name, value)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    assert used <= set(ids)
    assert "&lt;here&gt;" in text


def test_plots_of_the_same_table_are_the_same(results):
    from rrra_hf.comparison.plots import plots_of

    table = make_tables(results[1])[0]
    assert plots_of(table) == plots_of(table)


def test_markdown_has_a_row_for_each_method(results):
    report = report_of(results[1])
    text = markdown(report)
    for table in report["tables"]:
        header, rows = grid_of(table)
        assert f"| {' | '.join(header)} |" in text
        for row in rows:
            assert len(row) == len(header) and f"| {' | '.join(row)} |" in text
    assert markdown({**report, "other_code": ["x"]}) != text


def test_exponential_gains_are_shown_for_graded_labels_only(results):
    table = make_tables(results[1])[0]
    assert EXPONENTIAL in grid_of(table)[0]
    for row in table["rows"]:
        row[EXPONENTIAL] = row["nDCG@10"]
    assert EXPONENTIAL not in grid_of(table)[0]


# -------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def folder(collection, tmp_path_factory):
    path = tmp_path_factory.mktemp("collections") / "words"
    collection.save(path)
    return path


def test_the_command_compares_and_resumes(folder, tiny_bert, tmp_path):
    out = tmp_path / "out"
    options = ["--model", tiny_bert, "--seeds", 2, "--fit-steps", 5, "--out", out]
    arguments = [folder, "--methods", "encoder, query-map,adapter,bm25", *options]
    outcome = rrra("compare", *arguments, "--markdown", tmp_path / "docs" / "results.md")
    assert outcome.status == 0, outcome.message
    assert "query-map" in outcome.out and "report:" in outcome.out
    assert "…" not in outcome.out  # nothing is cut where there is no terminal
    for name in ("results.json", "results.md", "report.html"):
        assert (out / name).is_file()
    assert (tmp_path / "docs/results.md").read_text() == (out / "results.md").read_text()
    assert list((out / "plots").glob("*.svg"))
    written = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}
    assert len(written) == 6  # two of the four don't depend on the seed
    again = rrra("compare", *arguments, "--json")
    assert again.status == 0
    assert [row["method"] for row in again.json["tables"][0]["rows"]] == [
        "encoder",
        "query-map",
        "adapter",
        "bm25",
    ]
    assert written == {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}


def test_a_run_killed_while_encoding_continues(folder, tiny_bert, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ["compare", folder, "--model", tiny_bert, "--methods", "encoder", "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr("rrra_hf.comparison.run_cells", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        assert rrra(*arguments).status == 1
    assert {path.name for path in out.iterdir()} == {"cells", "embeddings"}
    assert rrra(*arguments).status == 0


def test_the_command_detects_and_trains_strategies(folder, tiny_bert, tmp_path):
    options = ["--seeds", 1, "--fit-steps", 5, "--train-steps", 2, "--train-batch-size", 8, "--json"]
    outcome = rrra(
        "compare",
        folder,
        *("--model", tiny_bert),
        *("--methods", "in-batch,top-k,oracle,encoder"),
        "--detect",
        *options,
        *("--out", tmp_path / "out"),
    )
    assert outcome.status == 0, outcome.message
    tables = {table["table"]: table for table in outcome.json["tables"]}
    assert set(tables) == {"training", "systems", "detection"}
    assert tables["training"]["reference"] == "in-batch"
    assert tables["detection"]["protocol"] == "injected"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "colbert"], "--methods must be among systems, strategies, encoder"),
        (["--methods", "cross-encoder"], "--cross-encoder must be given for the method 'cross-encoder'"),
        (["--train", "half"], "--train must be one of none, lora, full"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--train-steps", "0"], "--train-steps must be at least 1"),
        (["--train-batch-size", "1"], "--train-batch-size must be at least 2"),
        (["--fit-steps", "0"], "--fit-steps must be at least 1"),
        (["--reference", "oracle"], "--reference must be one of the methods, encoder"),
    ],
)
def test_bad_options_are_usage_errors(folder, tmp_path, options, message):
    outcome = rrra("compare", folder, "--out", tmp_path / "out", *options)
    assert outcome.status == 2
    assert message in outcome.message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_refused(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    outcome = rrra("compare", folder, "--out", tmp_path)
    assert outcome.status == 1 and "holds other files and no cells" in outcome.message


def test_a_collection_without_a_test_split_is_refused(folder, tiny_bert, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "qrels/test.tsv").unlink()
    outcome = rrra("compare", copy, "--model", tiny_bert, "--out", tmp_path / "out")
    assert outcome.status == 1 and "no split 'test'" in outcome.message


def test_too_few_queries_are_refused(collection, tiny_bert):
    qrels = {**collection.qrels_by_split, "test": {"test0": {"d1": 1}}}
    small = replace(collection, qrels_by_split=qrels)
    with pytest.raises(ValueError, match=r"'test' of words must have at least 2 queries .* it has 1"):
        prepare(small, SentenceTransformer(str(tiny_bert), device="cpu"))


def test_missing_extras_are_named(monkeypatch, folder, tmp_path, trial):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = rrra("compare", folder, "--out", tmp_path / "out")
    assert outcome.status == 1 and "pip install 'rrra-hf[compare]'" in outcome.message
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ImportError, match="bm25 and rrf need bm25s"):
        methods_of("systems")["bm25"].run(trial)


def test_help_has_an_example():
    outcome = rrra("compare", "--help")
    assert outcome.status == 0 and "rrra compare data/scifact" in outcome.message


def test_results_hold_no_absolute_paths(folder, tiny_bert, tmp_path):
    """What is published in `results.md` says nothing of the machine's folders."""
    out = tmp_path / "out"
    rrra("compare", folder, "--model", tiny_bert, "--methods", "encoder,bm25", "--out", out)
    text = (out / "results.md").read_text().replace(str(tiny_bert), "")
    assert str(Path(folder).parent) not in text
