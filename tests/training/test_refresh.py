"""Pool and adapter follow the encoder; a resumed run goes on as if it had not been interrupted."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alike import assert_alike
from refreshed import DEPTH, FIT, Run, losses
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.candidates import LabelledQueries, mine
from rrra_hf.candidates.reading import judge_candidates
from rrra_hf.embeddings import embed_collection, encode
from rrra_hf.fitting import cross_fit, fit_adapter
from rrra_hf.labels import best_positive_scores
from rrra_hf.losses import RRRALoss
from rrra_hf.training import Refresh


class AfterRefresh(TrainerCallback):
    """Calls a function after the steps at which a refresh has been made."""

    def __init__(self, steps: int, function: Callable[[], None]):
        self.steps = steps
        self.function = function

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step % self.steps == 0 and state.global_step < state.max_steps:
            self.function()


def assert_same_models(first: RRRAModel, second: RRRAModel) -> None:
    assert_alike(second.state_dict(), first.state_dict())
    assert_alike(second.adapter.config.to_dict(), first.adapter.config.to_dict())


# ---------------------------------------------------------------- what a refresh does


def test_candidates_and_probabilities_are_those_of_the_encoder_as_it_stands(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run()
    before, pools = run.resampler.pool, []

    def compare() -> None:
        found = run.resampler.pool
        training, development = run.collection.split("train"), run.collection.split("dev")
        with torch.random.fork_rng():
            run.encoder.eval()
            queries, documents, fingerprint = embed_collection(training, run.encoder)
            held_out = encode(run.encoder, development.query_texts, task="query")
            expected = mine(run.collection, run.encoder, DEPTH)
            adapter = fit_adapter(held_out, documents, development.positive_rows, arguments=FIT)
            run.encoder.train()
        assert found.fingerprint == fingerprint
        assert_array_equal(found.candidates, expected.candidates)
        assert_array_equal(found.scores, expected.scores)
        positives = training.positive_rows
        judged = judge_candidates(adapter, queries, found.candidates, documents, None, None, positives)
        assert found.probability is not None
        assert_allclose(found.probability, judged.probability, rtol=1e-5)
        assert torch.equal(run.model.adapter.reader.readout.bias, adapter.reader.readout.bias)
        pools.append(found)

    run.train(tmp_path, run.refresh(tmp_path), AfterRefresh(3, compare))
    assert len(pools) == 3
    assert (pools[0].candidates != before.candidates).any()
    assert (pools[1].candidates != pools[0].candidates).any()


def test_draws_come_from_the_new_pool(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(labels="rows")
    loss = RRRALoss(run.encoder, pool=run.resampler.pool)
    refresh = run.refresh(tmp_path, every_epochs=1, loss=loss)
    first = [row["labels"] for row in run.resampler.dataset]

    class Compare(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            pool = run.resampler.pool
            assert loss.pool is pool
            rows = [row["labels"] for row in run.resampler.dataset]
            assert all(set(negatives) <= set(pool.candidates[query]) for query, _, *negatives in rows)

    trainer = SentenceTransformerTrainer(
        model=run.encoder,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=3, use_cpu=True, report_to="none", learning_rate=5e-3
        ),
        train_dataset=run.resampler.dataset,
        loss=loss,
        callbacks=[run.resampler, refresh, Compare()],
    )
    trainer.train()
    assert [path.name for path in (tmp_path / "refresh").iterdir()] == ["step-8"]
    pool = run.resampler.pool
    assert not all(set(negatives) <= set(pool.candidates[query]) for query, _, *negatives in first)


def test_the_adapter_is_refitted_in_place(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    adapter, weights = run.model.adapter, list(run.model.adapter.parameters())
    pointers = [weight.data_ptr() for weight in weights]
    trainer = run.train(tmp_path, run.refresh(tmp_path), max_steps=5)
    assert run.model.adapter is adapter
    assert [weight.data_ptr() for weight in adapter.parameters()] == pointers
    assert trainer.optimizer is not None
    trained = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    assert trained >= set(map(id, weights))
    fitted = RetrieverAdapter.from_pretrained(tmp_path / "refresh/step-3/adapter")
    assert fitted.reader.readout.weight.abs().sum() > 0
    assert adapter.config == fitted.config
    assert adapter.config.fit["arguments"]["hidden_size"] == 8
    # Without a gradient, weight decay alone would move them; there is none.
    assert all(torch.equal(value, fitted.state_dict()[name]) for name, value in adapter.state_dict().items())


def test_cross_fitted_probabilities_and_an_adapter_of_all_training_queries(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run()
    compared = []

    def compare() -> None:
        training, development = run.collection.split("train"), run.collection.split("dev")
        with torch.random.fork_rng():
            run.encoder.eval()
            queries, documents, _ = embed_collection(training, run.encoder)
            labelled = LabelledQueries(
                encode(run.encoder, development.query_texts, task="query"), development.positive_rows
            )
            run.encoder.train()
        mined = replace(run.resampler.pool, probability=None)
        fit: dict[str, Any] = {"development": labelled, "arguments": FIT}
        judged = cross_fit(mined, queries, documents, folds=2, **fit)
        assert_array_equal(run.resampler.pool.probability, judged.probability)
        adapter = fit_adapter(queries, documents, pool=mined, **fit)
        assert torch.equal(run.model.adapter.reader.output_layer.weight, adapter.reader.output_layer.weight)
        compared.append(True)

    run.train(
        tmp_path,
        run.refresh(tmp_path, probabilities="cross_fit", folds=2),
        AfterRefresh(3, compare),
        max_steps=4,
    )
    assert compared


def test_what_outscores_the_positives_now_is_set_aside(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run, aside = make_run(), []

    def compare() -> None:
        pool = run.resampler.pool
        with torch.random.fork_rng():
            run.encoder.eval()
            queries, documents, _ = embed_collection(run.collection.split("train"), run.encoder)
            run.encoder.train()
        above = pool.scores > best_positive_scores(queries, documents, pool.positives)[:, None]
        assert_array_equal(above, pool.probability == 1)
        aside.append(above.mean())

    run.train(tmp_path, run.refresh(tmp_path, drop_above_positive=True), AfterRefresh(3, compare))
    assert len(aside) == 3
    assert all(0 < share < 1 for share in aside)


@pytest.mark.parametrize("probabilities", ["held_out", "cross_fit"])
def test_known_negatives_stay_so(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probabilities: str
) -> None:
    run, fitted = make_run(), []
    collection = run.resampler.collection
    negatives = [np.setdiff1d(np.arange(6), rows) for rows in collection.positive_rows]
    monkeypatch.setitem(vars(collection), "negative_rows", negatives)
    own = [np.setdiff1d([29], rows) for rows in run.collection.split("dev").positive_rows]
    monkeypatch.setattr("rrra_hf.candidates.labelled.excluded_rows", lambda collection: own)
    settings = {"folds": 2, "drop_above_positive": True, "probabilities": probabilities}
    fit = "rrra_hf.training.refresh.fit_adapter"
    monkeypatch.setattr(fit, lambda *args, **given: fitted.append(given) or fit_adapter(*args, **given))
    run.train(tmp_path, run.refresh(tmp_path, **settings), max_steps=4)
    pool = run.resampler.pool
    assert pool.known_negative.any()
    assert (pool.probability[pool.known_negative] == 0).all()
    given = fitted[0]["pool" if probabilities == "held_out" else "development"]
    assert [rows.tolist() for rows in given.excluded] == [rows.tolist() for rows in own]


def test_an_encoder_without_an_adapter_is_refreshed_too(
    make_run: Callable[..., Run], tiny_bert: Path, tmp_path: Path
) -> None:
    run = make_run()
    run.encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    before = run.resampler.pool
    run.train(tmp_path, run.refresh(tmp_path, refit_adapter=False), max_steps=4)
    assert (run.resampler.pool.candidates != before.candidates).any()
    assert not list(tmp_path.rglob("adapter"))


def test_training_with_refreshes_that_are_discarded_is_training_without(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, refreshed = make_run(), make_run()
    expected = losses(plain.train(tmp_path))
    monkeypatch.setattr(Refresh, "_load", lambda *_, **__: None)
    assert losses(refreshed.train(tmp_path, refreshed.refresh(tmp_path))) == expected
    assert (tmp_path / "refresh/step-9").exists()
    assert_same_models(plain.model, refreshed.model)


def test_random_numbers_and_modes_are_left_as_they_were(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    run.encoder.train()
    run.model.adapter.eval()

    def states() -> list[Any]:
        _, keys, *rest = np.random.get_state()  # noqa: NPY002
        return [random.getstate(), torch.get_rng_state().tolist(), list(keys), rest]

    before = states()
    run.refresh(tmp_path).on_step_end(
        SentenceTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True),
        TrainerState(global_step=3, max_steps=9),
        TrainerControl(),
        model=run.encoder,
    )
    assert (tmp_path / "refresh/step-3").exists()
    assert states() == before
    assert run.encoder.training
    assert run.model.encoder.training
    assert not run.model.adapter.training


def test_there_is_no_refresh_at_the_last_step(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    run.train(tmp_path, run.refresh(tmp_path), max_steps=3)
    assert not (tmp_path / "refresh").exists()


def test_a_refresh_tells_what_it_did(
    make_run: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rrra_hf.training.refresh")
    run = make_run()
    before = run.resampler.pool
    run.train(tmp_path, run.refresh(tmp_path), max_steps=4)
    after = run.resampler.pool
    new = [
        candidate not in old
        for old, row in zip(before.candidates, after.candidates, strict=True)
        for candidate in row
    ]
    assert after.probability is not None
    [message] = (message for message in caplog.messages if message.startswith("Refresh at step 3: "))
    assert f"{100 * np.mean(new):.1f} % of the candidates changed" in message
    assert message.endswith(f"probability {after.probability.mean():.3f}")


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize(
    ("settings", "save_steps", "batch_sampler"),
    [
        pytest.param({"every_steps": 3}, 5, "no_duplicates", id="amid an epoch"),
        pytest.param({"every_steps": 3}, 6, "no_duplicates", id="at the step of a refresh"),
        pytest.param({"every_steps": 3}, 2, "no_duplicates", id="before the first"),
        pytest.param({"every_steps": 3}, 5, "batch_sampler", id="with duplicates"),
        pytest.param({"every_epochs": 1}, 4, "no_duplicates", id="between epochs"),
        pytest.param({"every_epochs": 1}, 7, "no_duplicates", id="amid an epoch after a refresh"),
    ],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    make_run: Callable[..., Run],
    tmp_path: Path,
    settings: dict[str, int],
    save_steps: int,
    batch_sampler: str,
) -> None:
    common: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": save_steps,
        "batch_sampler": batch_sampler,
    }
    whole, resumed = make_run(), make_run()
    expected = losses(whole.train(tmp_path, whole.refresh(tmp_path, **settings), **common))
    assert len(expected) == 12
    for checkpoint in tmp_path.glob("checkpoint-*"):
        if checkpoint.name != f"checkpoint-{save_steps}":
            shutil.rmtree(checkpoint)
    (tmp_path / "refresh/.step-3.0123abcd.tmp").mkdir()
    found = losses(
        resumed.train(
            tmp_path, resumed.refresh(tmp_path, **settings), resume=f"checkpoint-{save_steps}", **common
        )
    )
    assert found == expected
    assert_same_models(whole.model, resumed.model)
    assert not (tmp_path / "refresh/.step-3.0123abcd.tmp").exists()


def test_an_adapter_that_was_trained_on_since_its_refresh_is_kept(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    common: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8}
    runs = [make_run(labels=None), make_run(labels=None)]
    for run, resume in zip(runs, (None, "checkpoint-5"), strict=True):
        loss = RRRALoss(run.encoder, source="adapter", adapter_weight=1.0)
        run.train(tmp_path, run.refresh(tmp_path), resume=resume, loss=loss, **common)
    assert_same_models(runs[0].model, runs[1].model)


def test_what_no_checkpoint_goes_back_to_is_deleted(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run()
    common: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4}
    run.train(tmp_path, run.refresh(tmp_path, every_steps=2), max_steps=11, save_total_limit=2, **common)
    # At the refresh of step 10 there are the checkpoints 4 and 8.
    folders = sorted((tmp_path / "refresh").iterdir())
    assert [path.name for path in folders] == ["step-10", "step-4", "step-8"]
    again = make_run()
    again.train(tmp_path, again.refresh(tmp_path, every_steps=100), max_steps=1)
    assert list((tmp_path / "refresh").iterdir()) == []


def test_resuming_without_the_refreshes_is_refused(make_run: Callable[..., Run], tmp_path: Path) -> None:
    for settings in ({"every_steps": 3}, {"every_epochs": 1}):
        run, resumed = make_run(), make_run()
        run.train(tmp_path, run.refresh(tmp_path, **settings), save_strategy="steps", save_steps=5)
        shutil.rmtree(tmp_path / "refresh")
        with pytest.raises(FileNotFoundError, match=r"refresh has no refresh of the run .* at step 5"):
            resumed.train(tmp_path, resumed.refresh(tmp_path, **settings), resume="checkpoint-5")


def test_a_damaged_refresh_is_named(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run, resumed = make_run(), make_run()
    run.train(tmp_path, run.refresh(tmp_path), max_steps=6, save_strategy="steps", save_steps=5)
    meta = tmp_path / "refresh/step-3/pool/pool.json"
    meta.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"step-3/pool/pool.json is missing or damaged"):
        resumed.train(tmp_path, resumed.refresh(tmp_path), resume="checkpoint-5", max_steps=6)
