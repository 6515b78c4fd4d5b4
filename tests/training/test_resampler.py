"""Negatives are drawn when a row is read, and depend on seed, epoch and pair alone."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alike import assert_alike
from rrra_hf.candidates import CandidatePool
from rrra_hf.comparison.negatives import simans_weights, top_k_weights
from rrra_hf.data import Collection
from rrra_hf.labels import drop_strategy, rrra_strategy, rrra_weights
from rrra_hf.losses import RRRALoss
from rrra_hf.training import Resampler

Rows = list[dict[str, Any]]


def make_collection(queries: int = 40, documents: int = 60) -> Collection:
    """Query `query i` with document `text i`; the first also with document 1."""
    names = [f"q{i}" for i in range(queries)]
    labels = {name: {f"d{i}": 1} for i, name in enumerate(names)}
    labels["q0"]["d1"] = 1
    return Collection(
        name="numbers",
        corpus=Dataset.from_dict(
            {
                "id": [f"d{i}" for i in range(documents)],
                "title": [""] * documents,
                "text": [f"text {i}" for i in range(documents)],
            }
        ),
        queries=Dataset.from_dict({"id": names, "text": [f"query {i}" for i in range(queries)]}),
        qrels_by_split={"train": labels},
    )


def make_pool(collection: Collection, depth: int = 10, seed: int = 0) -> CandidatePool:
    """The candidates of query i are `depth` of the documents after i."""
    rng = np.random.default_rng(seed)
    n, m = len(collection.query_ids), len(collection.document_ids)
    candidates = (np.arange(n)[:, None] + 2 + np.argsort(rng.random((n, m - 3)), axis=1)[:, :depth]) % m
    return CandidatePool(
        query_ids=collection.query_ids,
        document_ids=collection.document_ids,
        positives=collection.positive_rows,
        candidates=candidates,
        scores=-np.sort(-rng.random((n, depth)), axis=1),
        probability=rng.random((n, depth)),
    )


def make(num_negatives: int = 4, **settings: Any) -> Resampler:
    collection = make_collection()
    return Resampler(collection, make_pool(collection), num_negatives=num_negatives, **settings)


def probabilities(pool: CandidatePool) -> np.ndarray:
    assert pool.probability is not None
    return pool.probability


def by_weight(pool: CandidatePool) -> tuple[np.ndarray, None]:
    """A strategy that draws in proportion to the weights."""
    return rrra_weights(probabilities(pool)), None


def negatives(rows: Rows) -> list[list[int]]:
    """Rows of the negatives, read from their texts."""
    return [[int(row[name].split()[1]) for name in row if name.startswith("negative_")] for row in rows]


# ---------------------------------------------------------------- what a row holds


def test_every_labelled_pair_is_a_row_with_its_texts() -> None:
    rows = list(make().dataset)
    assert len(rows) == 41
    assert [(row["query"], row["positive"]) for row in rows[:3]] == [
        ("query 0", "text 0"),
        ("query 0", "text 1"),
        ("query 1", "text 1"),
    ]
    assert list(rows[0]) == ["query", "positive", *(f"negative_{i}" for i in range(1, 5)), "scores"]


def test_negatives_are_distinct_candidates_with_the_weights_of_the_pool() -> None:
    resampler = make(strategy=rrra_strategy)
    pool, weights = resampler.pool, 1 - probabilities(resampler.pool)
    queries = [int(row["query"].split()[1]) for row in resampler.dataset]
    for query, drawn, row in zip(queries, negatives(list(resampler.dataset)), resampler.dataset, strict=True):
        places = [pool.candidates[query].tolist().index(document) for document in drawn]
        assert len(set(places)) == 4
        assert_allclose(row["scores"], weights[query, places], rtol=1e-6)


def test_suspects_are_not_drawn_unless_another_strategy_is_given() -> None:
    resampler = make()
    rows = list(resampler.dataset)
    suspects = resampler.pool.suspects()
    for row, drawn in zip(rows, negatives(rows), strict=True):
        query = int(row["query"].split()[1])
        others = set(resampler.pool.candidates[query][~suspects[query]])
        assert len(others & set(drawn)) == min(len(others), 4)
    assert rows == list(make(strategy=drop_strategy).dataset)


def test_suspects_that_fill_a_row_weigh_nothing() -> None:
    collection = make_collection()
    pool = make_pool(collection)
    probabilities(pool)[5], probabilities(pool)[5, :2] = 1.0, 0.0
    row = Resampler(collection, pool).dataset[6]
    assert row["query"] == "query 5"
    expected = [float(document in pool.candidates[5, :2]) for document in negatives([row])[0]]
    assert sorted(row["scores"]) == [0.0, 0.0, 1.0, 1.0]
    assert row["scores"] == expected


def test_rows_of_the_pool_may_be_the_labels() -> None:
    resampler = make(2, labels="rows")
    rows = list(resampler.dataset)
    assert list(rows[0]) == ["query", "positive", "negative_1", "negative_2", "labels"]
    assert rows[1]["labels"][:2] == [0, 1]
    assert [row["labels"][2:] for row in rows] == negatives(rows)
    assert torch.tensor([row["labels"] for row in rows]).dtype == torch.int64


def test_labels_may_be_left_out() -> None:
    assert make(1, labels=None).dataset.column_names == ["query", "positive", "negative_1"]


def test_columns_can_be_read_alone_or_removed() -> None:
    resampler = make()
    rows = list(resampler.dataset)
    assert list(resampler.dataset["positive"]) == [row["positive"] for row in rows]
    assert list(resampler.dataset["negative_2"]) == [row["negative_2"] for row in rows]
    assert list(resampler.dataset.remove_columns("scores")) == [
        {name: value for name, value in row.items() if name != "scores"} for row in rows
    ]


def test_a_strategy_is_any_function_of_the_pool() -> None:
    resampler = make(2, strategy=lambda pool: (top_k_weights(pool.scores, top_k=2), None))
    rows = list(resampler.dataset)
    for row, drawn in zip(rows, negatives(rows), strict=True):
        query = int(row["query"].split()[1])
        assert set(drawn) == set(resampler.pool.candidates[query, :2])
        assert row["scores"] == [1.0, 1.0]


def test_a_strategy_may_know_more_than_the_pool() -> None:
    scores = np.full(40, 0.5)
    resampler = make(1, strategy=lambda pool: (simans_weights(pool.scores, scores, a=500.0), None))
    rows = list(resampler.dataset)
    queries = np.array([int(row["query"].split()[1]) for row in rows])
    nearest = np.abs(resampler.pool.scores - 0.5).argmin(axis=1)
    best = resampler.pool.candidates[queries, nearest[queries]]
    assert np.mean(best == np.array(negatives(rows))[:, 0]) > 0.9


def test_draws_by_weight_are_in_proportion() -> None:
    collection = make_collection(1, 5)
    pool = CandidatePool(
        ["q0"],
        collection.document_ids,
        [np.array([0])],
        np.array([[2, 3, 4]]),
        np.zeros((1, 3)),
        np.array([[0.5, 0.75, 1.0]]),
    )
    collection = replace(collection, qrels_by_split={"train": {"q0": {"d0": 1}}})
    resampler = Resampler(collection, pool, num_negatives=1, strategy=by_weight)
    drawn = []
    for epoch in range(3000):
        resampler.epoch = epoch
        drawn += negatives([resampler.dataset[0]])[0]
    assert_allclose(np.bincount(drawn, minlength=5) / 3000, [0, 0, 2 / 3, 1 / 3, 0], atol=0.03)


# ---------------------------------------------------------------- the same draws for the same seed


def test_draws_are_anew_in_each_epoch_and_the_same_again() -> None:
    resampler, again = make(), make()
    first = list(resampler.dataset)
    resampler.epoch = 1
    second = list(resampler.dataset)
    assert negatives(first) != negatives(second)
    assert [row["query"] for row in first] == [row["query"] for row in second]
    again.epoch = 1
    assert list(again.dataset) == second
    resampler.epoch = 0
    assert list(resampler.dataset) == first
    assert negatives(list(make(seed=1).dataset)) != negatives(first)


def test_draws_do_not_depend_on_the_order_of_reading() -> None:
    expected, order = list(make().dataset), np.random.default_rng(0).permutation(41)
    resampler = make()
    assert [resampler.dataset[int(row)] for row in order] == [expected[row] for row in order]
    resampler.epoch = 0
    assert list(resampler.dataset.select(order)) == [expected[row] for row in order]


def test_two_processes_read_what_one_reads() -> None:
    def batches(resampler: Resampler) -> list[list[int]]:
        sampler = NoDuplicatesBatchSampler(
            resampler.dataset, 4, False, ["scores"], torch.Generator().manual_seed(0), 0
        )
        sampler.set_epoch(resampler.epoch)
        return list(sampler)

    alone, ranks = make(), [make(), make()]
    for epoch in (0, 1):
        for resampler in (alone, *ranks):
            resampler.epoch = epoch
        expected = [alone.dataset.__getitems__(batch) for batch in batches(alone)]
        for i, rank in enumerate(ranks):
            assert [rank.dataset.__getitems__(batch) for batch in batches(rank)[i::2]] == expected[i::2]


def test_copies_of_the_dataset_hear_of_epochs() -> None:
    resampler = make()
    copied, first = copy.deepcopy(resampler.dataset), list(resampler.dataset)
    resampler.epoch = 1
    assert list(copied) == list(resampler.dataset) != first


def test_the_dataset_can_be_sent_to_a_process_that_was_not_forked() -> None:
    resampler = make()
    resampler.epoch = 3
    assert list(pickle.loads(pickle.dumps(resampler.dataset))) == list(resampler.dataset)


# ---------------------------------------------------------------- another pool


def test_a_new_pool_holds_for_what_was_not_read_in_this_epoch() -> None:
    resampler = make()
    before = [resampler.dataset[row] for row in (0, 5)]
    # Texts alone say nothing of negatives.
    resampler.dataset.select_columns(["query", "positive"])[:]
    resampler.pool = make_pool(resampler.collection, seed=1)
    assert [resampler.dataset[row] for row in (0, 5)] == before
    other = Resampler(resampler.collection, resampler.pool)
    assert [resampler.dataset[row] for row in (1, 2, 40)] == [other.dataset[row] for row in (1, 2, 40)]
    resampler.epoch = other.epoch = 1
    assert list(resampler.dataset) == list(other.dataset)


def test_a_pool_of_other_queries_documents_or_positives_is_refused() -> None:
    resampler = make()
    pool = resampler.pool
    with pytest.raises(ValueError, match=r"query_ids must be those of the pool before: got 39, not 40"):
        resampler.pool = pool.select(np.arange(39))
    with pytest.raises(ValueError, match=r"query_ids must .*: row 1 is 'other', not 'q1'"):
        resampler.pool = replace(pool, query_ids=["q0", "other", *pool.query_ids[2:]])
    with pytest.raises(ValueError, match=r"document_ids must .*: row 59 is 'other', not 'd59'"):
        resampler.pool = replace(pool, document_ids=[*pool.document_ids[:-1], "other"])
    with pytest.raises(ValueError, match=r"positives must .*: row 0 is \[0\], not \[0, 1\]"):
        resampler.pool = replace(pool, positives=[np.array([0]), *pool.positives[1:]])
    assert resampler.pool is pool


def test_queries_without_candidates_are_left_out() -> None:
    collection = make_collection()
    pool = make_pool(collection)
    pool.candidates[3], probabilities(pool)[3] = -1, np.nan
    assert "query 3" not in list(Resampler(collection, pool).dataset["query"])
    probabilities(pool)[5] = 1.0
    certain = Resampler(collection, pool, strategy=rrra_strategy)
    assert certain.dataset[list(certain.dataset["query"]).index("query 5")]["scores"] == [0.0] * 4
    sampling = Resampler(collection, pool, strategy=by_weight)
    assert len(sampling.dataset) == 39
    assert not {"query 3", "query 5"} & set(sampling.dataset["query"])


def test_queries_without_candidates_in_a_later_pool_get_documents_that_weigh_nothing() -> None:
    resampler = make()
    pool = make_pool(resampler.collection)
    pool.candidates[3], probabilities(pool)[3] = -1, np.nan
    resampler.pool = pool
    rows = list(resampler.dataset)
    assert rows[4]["query"] == "query 3"
    assert rows[4]["scores"] == [0.0] * 4
    assert all(0 <= document < 60 for document in negatives(rows)[4])
    assert len(rows) == 41
    assert sum(row["scores"] == [0.0] * 4 for row in rows) == 1
    first = rows[4]
    resampler.epoch = 1
    assert resampler.dataset[4] != first
    resampler.epoch = 0
    assert resampler.dataset[4] == first


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        ({"labels": "ids"}, "labels must be 'weights', 'rows' or None, got 'ids'"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"strategy": lambda pool: (pool.scores[:, :3], None)}, r"chances of shape \(40, 10\), .*\(40, 3\)"),
        ({"strategy": lambda pool: (-pool.scores, None)}, "chances .* finite and at least 0"),
        ({"strategy": lambda pool: (pool.scores, np.log(pool.scores))}, "weights .* finite and at least 0"),
        ({"strategy": lambda pool: (0 * pool.scores, None)}, "No training query has a candidate"),
    ],
)
def test_illegal_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_chances_where_there_is_no_candidate_are_refused() -> None:
    collection = make_collection()
    pool = make_pool(collection)
    pool.candidates[:, -1] = -1
    with pytest.raises(ValueError, match="0 where there is no candidate"):
        Resampler(collection, pool, strategy=lambda pool: (np.ones(pool.candidates.shape), None))


def test_a_pool_of_another_collection_is_refused() -> None:
    with pytest.raises(ValueError, match=r"query_ids must be the collection's: got 40, not 39"):
        Resampler(make_collection(39), make_pool(make_collection()))
    with pytest.raises(ValueError, match=r"document_ids must be the collection's: got 60, not 70"):
        Resampler(make_collection(40, 70), make_pool(make_collection()))


# ---------------------------------------------------------------- in a trainer


class Watch(TrainerCallback):
    """Keeps the epoch and the negatives that each step's batch was made of."""

    def __init__(self, resampler: Resampler):
        self.resampler = resampler
        self.seen: list[tuple[int, list[list[int]]]] = []

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.seen.append((self.resampler.epoch, negatives(list(self.resampler.dataset))))


def train(
    encoder: Path, folder: Path, resampler: Resampler, resume: bool = False, **settings: Any
) -> SentenceTransformerTrainer:
    torch.manual_seed(0)
    model = SentenceTransformer(str(encoder), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        logging_steps=1,
        **{"num_train_epochs": 3, "batch_sampler": "no_duplicates", "save_strategy": "no", **settings},
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=resampler.dataset,
        loss=RRRALoss(model),
        callbacks=[resampler],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer: SentenceTransformerTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_trainer_tells_the_epoch(tiny_bert: Path, tmp_path: Path) -> None:
    resampler, expected = make(), make()
    watch = Watch(resampler)
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), max_steps=14, per_device_train_batch_size=8, use_cpu=True, report_to="none"
    )
    SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=resampler.dataset,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[resampler, watch],
    ).train()
    assert [epoch for epoch, _ in watch.seen] == [0, 1, 2]
    for epoch, drawn in watch.seen:
        expected.epoch = epoch
        assert drawn == negatives(list(expected.dataset))


@pytest.mark.parametrize("save_steps", [8, 12], ids=["amid an epoch", "between epochs"])
def test_a_resumed_run_sees_what_it_would_have_seen(tiny_bert: Path, tmp_path: Path, save_steps: int) -> None:
    whole = train(tiny_bert, tmp_path, make(), save_strategy="steps", save_steps=save_steps)
    assert whole.state.global_step == 18
    for checkpoint in tmp_path.glob("checkpoint-*"):
        if checkpoint.name != f"checkpoint-{save_steps}":
            checkpoint.rename(tmp_path / f"former-{checkpoint.name}")
    resumed = train(tiny_bert, tmp_path, make(), resume=True, save_strategy="steps", save_steps=save_steps)
    assert_alike(losses(resumed), losses(whole))
    assert_alike(resumed.model.state_dict(), whole.model.state_dict())


def test_workers_of_the_data_loader_see_the_epoch(tiny_bert: Path, tmp_path: Path) -> None:
    alone = train(tiny_bert, tmp_path, make(), num_train_epochs=2)
    workers = train(tiny_bert, tmp_path, make(), num_train_epochs=2, dataloader_num_workers=1)
    assert losses(alone) == losses(workers)


def test_loaders_that_would_miss_new_epochs_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataloader_persistent_workers must be False"):
        train(tiny_bert, tmp_path, make(), dataloader_num_workers=1, dataloader_persistent_workers=True)
    with pytest.raises(ValueError, match="must not be 'no_duplicates_hashed'"):
        train(tiny_bert, tmp_path, make(), batch_sampler="no_duplicates_hashed")
