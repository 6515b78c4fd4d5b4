"""Of the encoder as it came and the trained ones, a run keeps the one that ranks unseen queries better."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rrra_hf import RRRAModel
from rrra_hf.embeddings import embed_collection
from rrra_hf.fitting import fit_model
from rrra_hf.hub import model_card
from rrra_hf.retrieval import evaluate_embeddings
from rrra_hf.training import train
from rrra_hf.training.choice import Choice, choose_encoder
from rrra_hf.training.train_data import with_development
from train_runs import ARGUMENTS, FIT, make_collection

QUICK = replace(ARGUMENTS, stage1_max_steps=1, stage3_max_steps=1)


def chosen(gain: float, spread: float, queries: int) -> Choice:
    """Choose where differences are `gain + spread` and `gain - spread` in turn."""
    frozen = np.full(queries, 0.5)
    stage3 = frozen + gain + spread * (-1.0) ** np.arange(queries)
    return choose_encoder({"frozen": frozen, "stage1": frozen - 0.1, "stage3": stage3})


def test_a_gain_must_exceed_its_standard_error_and_more_so_on_few_queries() -> None:
    for queries in (10, 100):
        error = 0.1 * np.sqrt(queries / (queries - 1)) / np.sqrt(queries)
        least = error * (1 + 20 / queries)
        assert chosen(least + 1e-6, 0.1, queries).encoder == "stage3"
        below = chosen(least - 1e-6, 0.1, queries)
        assert below.encoder == "frozen"
        assert (below.difference, below.standard_error) == pytest.approx((least - 1e-6, error))


def test_ties_and_a_single_query_go_to_the_encoder_as_it_came() -> None:
    same = np.array([0.2, 0.4, 0.9])
    assert choose_encoder({"frozen": same, "stage1": same, "stage3": same}).encoder == "frozen"
    one = choose_encoder({"frozen": np.zeros(1), "stage1": np.zeros(1), "stage3": np.ones(1)})
    assert (one.encoder, one.standard_error) == ("frozen", None)


def test_of_two_trained_encoders_the_better_one_is_kept() -> None:
    frozen = np.full(50, 0.5)
    quality = {"frozen": frozen, "stage1": frozen + 0.2, "stage3": frozen + 0.1}
    assert choose_encoder(quality).encoder == "stage1"


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=30))
def test_no_encoder_is_kept_that_is_worse(values: list[tuple[float, float, float]]) -> None:
    quality = dict(zip(("frozen", "stage1", "stage3"), np.array(values).T, strict=True))
    assert quality[choose_encoder(quality).encoder].mean() >= quality["frozen"].mean()


def test_the_sentence_says_what_was_found() -> None:
    assert chosen(0.1, 0.0, 40).sentence == (
        "Training the encoder helped: with an adapter fitted to it, nDCG@10 of 40 development queries is "
        "0.500 with the encoder as it came and 0.600 with that of stage 3 (standard error of the difference "
        "0.000). The encoder of stage 3 is kept."
    )
    assert "did not clearly help" in chosen(0.01, 0.3, 40).sentence
    assert "did not help" in chosen(-0.1, 0.0, 40).sentence


# ---------------------------------------------------------------- in a run


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step in each stage, which is too few."""
    folder = tmp_path_factory.mktemp("choice") / "run"
    train(make_collection(), tiny_bert, folder, QUICK)
    return folder


def test_if_training_did_not_help_the_result_is_that_of_a_fit(run: Path, tiny_bert: Path) -> None:
    saved = RRRAModel.from_pretrained(run / "model")
    # Without a split dev, the fit has all queries, as those that were held out are training queries, too.
    fitted = fit_model(RRRAModel.from_encoder(tiny_bert), make_collection(), FIT)
    expected = fitted.state_dict()
    assert saved.state_dict().keys() == expected.keys()
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, expected[name]), name
    record = dict(saved.adapter.config.fit)
    record.pop("training")
    assert record == json.loads(json.dumps(fitted.adapter.config.fit))
    assert (saved.adapter.config.lambda_, saved.config.lora) == (fitted.adapter.config.lambda_, None)


def test_results_log_and_card_say_that_training_did_not_help(
    run: Path, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["final"]["encoder"] == results["comparison"]["encoder"] == "frozen"
    sentence = results["comparison"]["sentence"]
    assert "did not" in sentence
    card = model_card(run / "model").text
    assert sentence in card
    assert "as in the base model" in card and "LoRA" not in card.split("## Usage")[0]
    (run / "comparison/results.json").rename(tmp_path / "comparison.json")
    with caplog.at_level(logging.INFO, logger="rrra_hf.training"):
        train(make_collection(), tiny_bert, run, QUICK)
    assert sentence in caplog.text


def test_the_figures_are_those_of_adapters_fitted_without_the_development_queries(
    run: Path, tiny_bert: Path
) -> None:
    recorded = RRRAModel.from_pretrained(run / "model").adapter.config.fit["training"]["stages"]["comparison"]
    parts = with_development(make_collection(), QUICK.development_fraction, QUICK.seed)
    training = replace(parts, qrels_by_split={"train": parts.qrels_by_split["train"]})
    development = parts.split("dev")
    for name in ("frozen", "stage1", "stage3"):
        model = RRRAModel.from_encoder(tiny_bert)
        if name != "frozen":
            model = RRRAModel.from_pretrained(run / name / "model")
        embeddings = embed_collection(development, model.to_sentence_transformer())
        adapter = fit_model(model, training, FIT).adapter
        quality = evaluate_embeddings(development, embeddings, adapter, depth=FIT.depth)
        found = recorded["development"][name]["adapter"]["nDCG@10"]
        assert quality["adapter"].mean["nDCG@10"] == pytest.approx(found, abs=1e-6)
