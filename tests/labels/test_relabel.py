"""Mended training sets: what is added, dropped and scored follows from the probabilities, and trains."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.cross_encoder import losses as of_pairs
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import BoW

from rrra_hf import RRRALoss, mine_hard_negatives, relabel
from tiny import WORDS, word_collection

COLLECTION = word_collection(40, train=30)
CORPUS = COLLECTION.document_texts
PAIRS = COLLECTION.to_dataset("pairs")
NAMES = ["negative_1", "negative_2", "negative_3"]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


@pytest.fixture(scope="module")
def mined(encoder: SentenceTransformer) -> Dataset:
    """N-tuples with suspects among their negatives."""
    return mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, threshold=1)


@pytest.fixture(scope="module")
def probability(encoder: SentenceTransformer) -> dict[str, dict[str, float]]:
    """Probability of each document for each anchor, in the order of cosines; 1 for positives."""
    every = mine_hard_negatives(
        PAIRS, encoder, corpus=CORPUS, num_negatives=38, threshold=1, output_format="labeled-pair"
    )
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in every:
        found[row["anchor"]][row["positive"]] = row["label"]
    return found


@pytest.fixture(scope="module")
def threshold(mined: Dataset) -> float:
    """One that a third of the negatives of `mined` reach."""
    return float(np.quantile(1 - np.array(mined["scores"][:]), 2 / 3))


def test_found_positives_get_rows_after_those_that_there_are(
    encoder: SentenceTransformer, probability: dict[str, dict[str, float]], threshold: float
) -> None:
    mended = relabel(PAIRS, encoder, "add", corpus=CORPUS, threshold=threshold)
    assert mended.column_names == PAIRS.column_names
    assert mended.take(len(PAIRS)).to_list() == PAIRS.to_list()
    added = [(row["anchor"], row["positive"]) for row in mended.skip(len(PAIRS))]
    expected = [
        (anchor, text)
        for anchor, found in probability.items()
        for text, p in sorted(found.items(), key=lambda item: -item[1])
        if threshold <= p < 1
    ]
    assert added == expected != []


def test_what_is_added_is_no_negative_any_more(
    encoder: SentenceTransformer, mined: Dataset, threshold: float
) -> None:
    mended = relabel(mined, encoder, "add", corpus=CORPUS, threshold=threshold)
    assert mended.column_names == mined.column_names
    positives = defaultdict(set)
    for row in mended:
        positives[row["anchor"]].add(row["positive"])
    for row in mended:
        assert not positives[row["anchor"]] & {row[name] for name in NAMES}
    assert len(mended) > len(mined)


def test_suspects_give_their_places_to_the_next_candidates(
    encoder: SentenceTransformer,
    mined: Dataset,
    probability: dict[str, dict[str, float]],
    threshold: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "rrra_hf"):
        mended = relabel(mined, encoder, "drop", corpus=CORPUS, threshold=threshold, gamma=2)
    replaced = 0
    for before, after in zip(mined, mended, strict=True):
        found = probability[before["anchor"]]
        good = [text for text, p in found.items() if p < threshold]
        given = [before[name] for name in NAMES]
        following = iter(text for text in good if text not in given)
        expected = [text if text in good else next(following) for text in given]
        assert [after[name] for name in NAMES] == expected
        assert after["scores"] == pytest.approx([(1 - found[text]) ** 2 for text in expected], rel=1e-4)
        assert (after["anchor"], after["positive"]) == (before["anchor"], before["positive"])
        replaced += sum(text not in good for text in given)
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("rrra_hf.labels"))
    assert line == (
        f"drop: 30 rows of 29 anchors, 40 documents; of 90 negatives, {replaced} are suspects, {replaced} "
        "were replaced; 0 rows were added, 0 left out for want of negatives."
    )


def test_rows_without_enough_negatives_are_left_out_and_counted(
    encoder: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    rows = {"anchor": ["list files", "sort text"], "positive": ["list the files", "sort a text"]}
    triplets = Dataset.from_dict({**rows, "negative": ["list the files", "old line"]})
    with caplog.at_level(logging.INFO, "rrra_hf"):
        mended = relabel(triplets, encoder, "drop", threshold=1)
    # The first row's negative is its positive, and one of the other two documents takes its place.
    assert mended["negative"][:] in (["old line", "old line"], ["sort a text", "old line"])
    with pytest.raises(ValueError, match="No row has enough negatives without suspects"):
        relabel(triplets.select([0]), encoder, "drop")
    few = Dataset.from_dict({**rows, "negative_1": ["list the files"] * 2, "negative_2": ["old line"] * 2})
    with caplog.at_level(logging.INFO, "rrra_hf"):
        assert len(relabel(few, encoder, "drop", threshold=1)) == 2
        assert len(relabel(few.select([0]), encoder, "soft")) == 1
    assert "1 are suspects, 1 were replaced" in caplog.text


def test_labels_are_believed_and_kept(encoder: SentenceTransformer, threshold: float) -> None:
    found = relabel(PAIRS, encoder, "add", corpus=CORPUS, threshold=threshold)[len(PAIRS)]
    rows = [{**row, "label": 1} for row in PAIRS] + [{**found, "label": 0}]
    mended = relabel(Dataset.from_list(rows), encoder, "add", corpus=CORPUS, threshold=threshold).to_list()
    assert mended[: len(rows)] == rows
    assert {row["label"] for row in mended[len(rows) :]} == {1}
    assert {**found, "label": 1} not in mended


def test_estimates_of_before_are_replaced(encoder: SentenceTransformer, mined: Dataset) -> None:
    expected = relabel(mined, encoder, "drop", corpus=CORPUS).to_list()
    soft = relabel(mined, encoder, "soft", corpus=CORPUS)
    assert relabel(soft, encoder, "drop", corpus=CORPUS).to_list() == expected


def test_soft_scores_are_those_of_the_pairs(
    encoder: SentenceTransformer, mined: Dataset, probability: dict[str, dict[str, float]]
) -> None:
    tuples, pairs, lists = (
        relabel(mined, encoder, "soft", corpus=CORPUS, output_format=name)
        for name in ("n-tuple", "labeled-pair", "labeled-list")
    )
    assert tuples.remove_columns("label").to_list() == mined.remove_columns("scores").to_list()
    for row, listed in zip(tuples, lists, strict=True):
        texts = [row["positive"], *(row[name] for name in NAMES)]
        assert (listed["anchor"], listed["positive"], listed["labels"]) == (
            row["anchor"],
            texts,
            row["label"],
        )
        expected = [probability[row["anchor"]][text] for text in texts]
        assert row["label"] == pytest.approx(expected, rel=1e-4) and row["label"][0] == 1
    flat = {
        (row["anchor"], text): p
        for row in tuples
        for text, p in zip([row["positive"], *(row[name] for name in NAMES)], row["label"], strict=True)
    }
    assert {(row["anchor"], row["positive"]): row["label"] for row in pairs} == flat


TEXTS = ["list files", "List  files", "find a file", "sort text", "copy", "old line", "", "новая строка"]
numbers = st.integers(0, len(TEXTS) - 1).filter(lambda number: TEXTS[number])


@settings(max_examples=25)
@given(
    rows=st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=6),
    mode=st.sampled_from(["add", "drop", "soft"]),
    least=st.sampled_from([0.0005, 0.01, 0.5, 1.0]),
)
def test_whatever_is_given_no_text_is_made_up_and_no_positive_is_a_negative(
    rows: list[tuple[int, ...]], mode: Any, least: float
) -> None:
    encoder = SentenceTransformer(modules=[BoW(vocab=WORDS)], device="cpu")
    names = ["query", "answer", "negative_1", "negative_2"]
    given_rows = [dict(zip(names, (TEXTS[number] for number in row), strict=True)) for row in rows]
    try:
        mended = relabel(Dataset.from_list(given_rows), encoder, mode, threshold=least).to_list()
    except ValueError as error:
        assert "No row has enough negatives" in str(error)
        return
    assert {text for row in mended for name in names for text in [row[name]]} <= set(TEXTS)
    if mode == "soft":
        assert [{name: row[name] for name in names} for row in mended] == given_rows
        assert all(0 <= p <= 1 for row in mended for p in row["label"])
        return
    positives = {(row["query"], row["answer"]) for row in [*given_rows, *mended]}
    for row in mended:
        assert not {(row["query"], row["negative_1"]), (row["query"], row["negative_2"])} & positives
        assert all(1 - least < weight <= 1 for weight in row["scores"]) or least == 1


# -------------------------------------------------------------------- training

ARGUMENTS = {"max_steps": 1, "per_device_train_batch_size": 8, "report_to": "none", "use_cpu": True}


@pytest.mark.parametrize(
    ("mode", "output_format", "loss"),
    [
        ("soft", "n-tuple", losses.MarginMSELoss),
        ("soft", "n-tuple", lambda model: losses.DistillKLDivLoss(model, teacher_temperature=0.2)),
        ("soft", "labeled-pair", losses.CoSENTLoss),
        ("soft", "labeled-pair", losses.AnglELoss),
        ("soft", "labeled-pair", losses.CosineSimilarityLoss),
        ("add", "n-tuple", RRRALoss),
        ("drop", "n-tuple", RRRALoss),
        ("drop", "n-tuple", losses.MultipleNegativesRankingLoss),
    ],
)
def test_the_result_trains_an_encoder(
    tiny_bert: Path, mined: Dataset, tmp_path: Path, mode: Any, output_format: Any, loss: Callable[[Any], Any]
) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    dataset = relabel(mined, model, mode, corpus=CORPUS, output_format=output_format)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(str(tmp_path), save_strategy="no", **ARGUMENTS),
        train_dataset=dataset,
        loss=loss(model),
    )
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize(
    ("output_format", "loss"),
    [
        ("n-tuple", of_pairs.MarginMSELoss),
        ("labeled-pair", of_pairs.BinaryCrossEntropyLoss),
        ("labeled-pair", of_pairs.MSELoss),
        ("labeled-list", of_pairs.LambdaLoss),
        ("labeled-list", of_pairs.ListNetLoss),
        ("labeled-list", of_pairs.ListMLELoss),
        ("labeled-list", of_pairs.PListMLELoss),
        ("labeled-list", of_pairs.RankNetLoss),
        ("labeled-list", of_pairs.ADRMSELoss),
    ],
)
def test_the_result_trains_a_cross_encoder(
    tiny_bert: Path,
    encoder: SentenceTransformer,
    mined: Dataset,
    tmp_path: Path,
    output_format: Any,
    loss: Any,
) -> None:
    model = CrossEncoder(str(tiny_bert), num_labels=1, device="cpu")
    dataset = relabel(mined, encoder, "soft", corpus=CORPUS, output_format=output_format)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(str(tmp_path), save_strategy="no", **ARGUMENTS),
        train_dataset=dataset,
        loss=loss(model),
    )
    assert np.isfinite(trainer.train().training_loss)


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("keep", {}, "mode must be one of add, drop, soft, got 'keep'"),
        (
            "soft",
            {"output_format": "triplet"},
            "output_format must be one of n-tuple, labeled-pair, labeled-list",
        ),
        ("add", {"output_format": "labeled-pair"}, "output_format is for mode='soft', got 'labeled-pair'"),
        ("drop", {}, "mode='drop' needs columns of negatives, such as negative or negative_1; dataset has"),
        ("soft", {}, "mode='soft' needs columns of negatives"),
        ("add", {"threshold": 1.5}, "threshold must be in (0, 1], got 1.5"),
    ],
)
def test_what_is_not_legal_is_refused(
    encoder: SentenceTransformer, mode: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        relabel(PAIRS, encoder, mode, **options)


def test_labels_beside_negatives_are_refused(encoder: SentenceTransformer) -> None:
    both = Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "negative": ["c"], "label": [1]})
    with pytest.raises(ValueError, match="dataset must have labels or columns of negatives, not both"):
        relabel(both, encoder, "add")
