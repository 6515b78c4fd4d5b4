"""What is hidden or put in, and strategies that train against it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState

from comparison_task import QUICK
from rrra_hf.comparison import Trial, choose_methods, methods_of, run_cells
from rrra_hf.comparison.probabilities import judged_pool
from rrra_hf.comparison.strategies import STRATEGIES
from rrra_hf.comparison.strategies.early_stopping import EVERY, PATIENCE, EarlyStopping
from rrra_hf.comparison.strategies.judged import mixed_pool
from rrra_hf.comparison.strategies.train_encoder import development_measure
from rrra_hf.comparison.strategies.train_maps import drawn_batches
from rrra_hf.comparison.truth import ground_truth


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


def test_with_a_rate_of_zero_the_labels_are_as_they_are(words):
    truth = ground_truth(Trial(words, 0, replace(QUICK, injected_rate=0.0)))
    assert truth.protocol == "labelled"
    assert truth.documents is words.documents
    assert not truth.false_negative.any()


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
    results = run_cells([task], choose_methods("strategies", None, arguments), arguments, store)
    assert len(results) == len(methods_of("strategies")) - 1  # all but what needs a cross-encoder
    assert len({result.figures["nDCG@10"] for result in results.values()}) > 3
    assert {result.rows.num_rows for result in results.values()} == {40}


def test_the_oracle_never_draws_a_false_negative(trial):
    truth = ground_truth(trial)
    batches = drawn_batches(trial, STRATEGIES["oracle"], 16)
    for _ in range(10):
        batch = next(batches)
        assert not truth.false_negative[batch.rows[:, :1], batch.places].any()


def test_suspects_are_not_drawn_where_there_are_others(trial):
    suspects = judged_pool(trial).suspects()
    others = (~suspects).sum(axis=1)
    assert 0 < suspects.mean() < 1
    batches = drawn_batches(trial, STRATEGIES["drop"], 16)
    for _ in range(10):
        batch = next(batches)
        enough = others[batch.rows[:, 0]] >= batch.places.shape[1]
        assert not suspects[batch.rows[:, :1], batch.places][enough].any()


def test_the_mixed_target_is_the_mean_of_both(trial):
    pool, mixed = judged_pool(trial), mixed_pool(trial).ranking_scores

    def softmax(first, scores):
        shares = np.exp(np.column_stack([first, scores]))
        return shares / shares.sum(axis=1, keepdims=True)

    best = pool.ranking_scores.max(axis=1, initial=0.0)
    taught = softmax(best, pool.ranking_scores)
    shared = np.column_stack([np.ones(len(pool)), pool.probability])
    shared /= shared.sum(axis=1, keepdims=True)
    both = taught + shared
    np.testing.assert_allclose(np.exp(mixed), both[:, 1:] / both[:, :1], rtol=1e-4, atol=1e-6)


def test_training_stops_when_the_encoder_gets_no_better():
    qualities = iter([0.6, 0.4, 0.5, 0.3, 0.9])
    weights = torch.nn.Linear(1, 1)
    stopping = EarlyStopping(weights, lambda: next(qualities), before=0.5)
    state, control = TrainerState(max_steps=EVERY * 10), TrainerControl()
    stopped = None
    for state.global_step in range(1, EVERY * 10):
        stopping.on_step_end(None, state, control)
        if control.should_training_stop:
            stopped = state.global_step
            break
    assert stopped == EVERY * (1 + PATIENCE)
    assert stopping.history == [0.5, 0.6, 0.4, 0.5, 0.3]


def test_before_training_quality_is_that_of_the_embeddings_that_there_are(words, store):
    trial = Trial(words, 0, replace(QUICK, train="full"))
    measure, before = development_measure(trial, words.encoder)
    assert before == pytest.approx(measure(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("train", ["lora", "full"])
def test_strategies_train_the_encoder_itself(words, store, train):
    arguments = replace(QUICK, seeds=1, train=train, steps=2, learning_rate=1e-2)
    names = ["untrained", "in-batch", "top-k", "rrra", "drop", "distill", "oracle-relabel", "ccr", "gist"]
    results = run_cells([words], choose_methods("strategies", names, arguments), arguments, store)
    assert {result.rows.num_rows for result in results.values()} == {12}
    without = replace(words, name="without", encoder_name=None)
    with pytest.raises(ValueError, match="encoder must be given for without to be trained"):
        run_cells([without], choose_methods("strategies", ["in-batch"], arguments), arguments, store)
