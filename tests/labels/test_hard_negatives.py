"""Hard negatives of a dataset: those that sentence-transformers finds, without suspects, and with weights."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
    TripletLoss,
)
from sentence_transformers.util import mine_hard_negatives as theirs

from rrra_hf import CachedRRRALoss, RRRALoss, RRRAModel, mine_hard_negatives
from rrra_hf.labels.hard_negatives import NOT_TAKEN
from tiny import word_collection

PAGE = Path(__file__).parents[2] / "docs/how-to/relabel.md"
COLLECTION = word_collection(40, train=30)
# One anchor has two positives: the tiny collection draws some queries twice.
PAIRS = COLLECTION.to_dataset("pairs")
CORPUS = COLLECTION.document_texts
NAMES = [f"negative_{number}" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


def negatives(dataset: Dataset) -> dict[tuple[str, str], list[str]]:
    """Negatives of each pair, of n-tuples."""
    names = [name for name in dataset.column_names if name.startswith("negative")]
    return {(row["anchor"], row["positive"]): [row[name] for name in names] for row in dataset}


# -------------------------------------------------------------------- as theirs, if nothing is a suspect


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_negatives": 5, "range_min": 2},
        {"range_min": 1, "range_max": 6, "num_negatives": 5},
        {"max_score": 0.95},
        {"min_score": 0.93, "num_negatives": 2},
        {"absolute_margin": 0.005},
        {"relative_margin": 0.01, "range_max": 38},
        {"query_prompt": "query ", "corpus_prompt_name": "old"},
        {"query_prompt_name": "old", "corpus_prompt": "new line "},
    ],
    ids=str,
)
def test_without_suspects_negatives_are_those_of_sentence_transformers(
    encoder: SentenceTransformer, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.prompts["old"] = "passage old "
    # All documents are candidates.
    expected = theirs(PAIRS, encoder, corpus=CORPUS, output_format="n-tuple", **{"range_max": 39, **options})
    found = mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, threshold=1, **options)
    assert found.column_names == [*expected.column_names, "scores"]
    assert negatives(found) == negatives(expected) != {}
    assert encoder.prompts == {"query": "", "document": "", "old": "passage old "}


def test_every_argument_of_theirs_is_taken_or_refused_with_what_to_do_and_the_page_lists_it(
    encoder: SentenceTransformer,
) -> None:
    taken = set(inspect.signature(mine_hard_negatives).parameters)
    asked = set(inspect.signature(theirs).parameters)
    assert asked - taken == set(NOT_TAKEN)
    assert asked <= set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    for name, advice in NOT_TAKEN.items():
        with pytest.raises(ValueError, match=re.escape(f"{name} isn't taken: {advice}.")):
            mine_hard_negatives(PAIRS, encoder, **{name: None})
    with pytest.raises(TypeError, match="unexpected keyword argument 'negatives'"):
        mine_hard_negatives(PAIRS, encoder, negatives=3)


# -------------------------------------------------------------------- suspects and weights


def labels_of(encoder: SentenceTransformer, dataset: Dataset = PAIRS, **options: Any) -> dict[Any, float]:
    """Label of each pair that is mined."""
    options = {"corpus": CORPUS, "num_negatives": 38, "threshold": 1, **options}
    mined = mine_hard_negatives(dataset, encoder, output_format="labeled-pair", **options)
    return {(anchor, document): label for anchor, document, label in map(dict.values, mined)}


def test_suspects_are_passed_over_and_others_weigh_as_they_are_irrelevant(
    encoder: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    probability = labels_of(encoder)
    threshold = float(np.median([p for p in probability.values() if p < 1]))
    with caplog.at_level(logging.INFO, "rrra_hf"):
        mined = mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, threshold=threshold, gamma=2)
    every = negatives(mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, threshold=1, num_negatives=37))
    for row in mined:
        anchor, taken = row["anchor"], [row[name] for name in NAMES]
        good = [text for text in every[anchor, row["positive"]] if probability[anchor, text] < threshold]
        assert taken == good[:3]
        assert row["scores"] == pytest.approx([(1 - probability[anchor, text]) ** 2 for text in taken])
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("rrra_hf.labels"))
    suspects = sum(threshold <= p < 1 for p in probability.values())
    assert re.match(
        rf"{len(mined)} pairs of \d+ anchors, 40 documents: {3 * len(mined)} negatives; {suspects} suspects",
        line,
    )


def test_formats_have_the_same_negatives(encoder: SentenceTransformer) -> None:
    rows, triplets, lists, pairs = (
        mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, output_format=name)
        for name in ("n-tuple", "triplet", "labeled-list", "labeled-pair")
    )
    names = ["anchor", "positive"]
    assert rows.column_names == [*names, *NAMES, "scores"]
    assert triplets.column_names == [*names, "negative", "scores"]
    assert (lists.column_names, pairs.column_names) == ([*names, "labels"], [*names, "label"])
    one_by_one = [
        {**{name: row[name] for name in names}, "negative": row[name], "scores": [weight]}
        for row in rows
        for name, weight in zip(NAMES, row["scores"], strict=True)
    ]
    assert triplets.to_list() == one_by_one
    for row, listed in zip(rows, lists, strict=True):
        assert (listed["anchor"], listed["positive"]) == (
            row["anchor"],
            [row[name] for name in ("positive", *NAMES)],
        )
        assert listed["labels"] == pytest.approx([1, *(1 - np.array(row["scores"]))], abs=1e-6)
    flat = {
        (row["anchor"], text): label
        for row in lists
        for text, label in zip(row["positive"], row["labels"], strict=True)
    }
    assert {(row["anchor"], row["positive"]): row["label"] for row in pairs} == flat
    assert len(pairs) == len(flat)


def test_random_negatives_are_any_within_the_limits_and_repeat_with_the_seed(
    encoder: SentenceTransformer,
) -> None:
    def drawn(seed: int) -> dict[Any, list[str]]:
        return negatives(
            mine_hard_negatives(
                PAIRS, encoder, corpus=CORPUS, sampling_strategy="random", range_max=9, threshold=1, seed=seed
            )
        )

    best = negatives(mine_hard_negatives(PAIRS, encoder, corpus=CORPUS, num_negatives=9, threshold=1))
    first, second = drawn(0), drawn(1)
    assert first == drawn(0) != second
    for pair, taken in first.items():
        assert [text for text in best[pair] if text in taken] == taken
    assert {best[pair].index(text) for pair in first for text in first[pair]} == set(range(9))


# -------------------------------------------------------------------- what the dataset knows

ANCHORS = {"anchor": ["list files", "list files", "sort text"]}
KNOWN = {**ANCHORS, "positive": ["list the files", "find files", "sort a text"]}


def test_positives_of_other_rows_and_the_anchor_itself_are_never_negatives(
    encoder: SentenceTransformer,
) -> None:
    corpus = ["List  files", "sort text", "copy a folder", "new line", "old line"]
    mined = mine_hard_negatives(
        Dataset.from_dict(KNOWN), encoder, corpus=corpus, num_negatives=5, threshold=1
    )
    found = negatives(mined)
    others = {"sort a text", "sort text", "copy a folder", "new line", "old line"}
    assert set(found["list files", "find files"]) == set(found["list files", "list the files"]) == others
    assert "sort text" not in found["sort text", "sort a text"]


def test_known_negatives_come_first_with_weight_1(encoder: SentenceTransformer) -> None:
    triplets = Dataset.from_dict({**KNOWN, "negative": ["old line", "list the files", "new line"]})
    labelled = Dataset.from_dict(
        {
            "question": [*ANCHORS["anchor"], "list files", "sort text", "never answered"],
            "passage": [*KNOWN["positive"], "old line", "new line", "old line"],
            "label": [1, 1, 2, 0, -1, 0],
        }
    )
    for dataset in (triplets, labelled):
        mined = mine_hard_negatives(dataset, encoder, corpus=CORPUS, num_negatives=2, threshold=1)
        # A negative that is a positive of another row isn't known.
        assert mined["negative_1"][:] == ["old line", "old line", "new line"]
        assert [weights[0] for weights in mined["scores"]] == [1, 1, 1]
        assert all(weights[1] < 1 for weights in mined["scores"])
    assert labels_of(encoder, labelled, num_negatives=1)["sort text", "new line"] == 0


def test_columns_have_usual_names_or_are_the_first_two(encoder: SentenceTransformer) -> None:
    texts, answers = PAIRS["anchor"][:], PAIRS["positive"][:]
    expected = mine_hard_negatives(PAIRS, encoder).to_list()
    for names in (("frage", "antwort"), ("question", "text")):
        dataset = Dataset.from_dict({names[0]: texts, names[1]: answers})
        found = mine_hard_negatives(dataset, encoder).rename_columns(
            dict(zip(names, ("anchor", "positive"), strict=True))
        )
        assert found.to_list() == expected
    swapped = Dataset.from_dict(
        {"answer": answers, "number": [str(n) for n in range(len(texts))], "query": texts}
    )
    assert mine_hard_negatives(swapped, encoder).column_names[:2] == ["query", "answer"]
    named = mine_hard_negatives(swapped, encoder, "answer", "query", num_negatives=1)
    assert named.column_names[:2] == ["answer", "query"]


@pytest.mark.parametrize("kind", ["numpy", "torch", "pandas", "arrow"])
def test_datasets_may_have_a_format_or_a_transform(encoder: SentenceTransformer, kind: str) -> None:
    dataset = PAIRS.add_column("label", [1] * len(PAIRS))
    expected = mine_hard_negatives(dataset, encoder).to_list()
    assert mine_hard_negatives(dataset.with_format(kind), encoder).to_list() == expected
    numbers = Dataset.from_dict({"anchor": range(len(PAIRS)), "positive": range(len(PAIRS))})
    texts = numbers.with_transform(
        lambda batch: {name: [PAIRS[int(row)][name] for row in rows] for name, rows in batch.items()}
    )
    assert mine_hard_negatives(texts, encoder).to_list() == expected


def test_what_is_left_out_is_said(encoder: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset.from_dict({**KNOWN, "source": ["a"] * 3})
    with caplog.at_level(logging.INFO, "rrra_hf"):
        # Two anchors share three documents: one of them has two others, the other one.
        mined = mine_hard_negatives(dataset, encoder, num_negatives=2, threshold=1)
    assert negatives(mined) == {("sort text", "sort a text"): ["list the files", "find files"]} or negatives(
        mined
    ) == {("sort text", "sort a text"): ["find files", "list the files"]}
    assert "2 pairs with too few negatives, left out; left out: the columns ['source']." in caplog.text
    triplets = mine_hard_negatives(dataset, encoder, num_negatives=2, threshold=1, output_format="triplet")
    assert len(triplets) == 4


def test_any_text_comes_back_as_it_was(encoder: SentenceTransformer) -> None:
    texts = ["naïve  café ", "日本語の文", "emoji 🎣\n\ttab", "old line\u2028new"]
    dataset = Dataset.from_dict({"anchor": ["α", "β", "γ", "δ"], "positive": texts})
    mined = mine_hard_negatives(dataset, encoder, num_negatives=3, threshold=1)
    assert mined["positive"][:] == texts
    for row in mined:
        assert {row[name] for name in ("positive", *NAMES)} == set(texts)


# -------------------------------------------------------------------- models


def test_an_encoder_may_be_a_model_or_its_folder(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    expected = mine_hard_negatives(PAIRS, encoder).to_list()
    for model in (tiny_bert, str(tiny_bert), RRRAModel.from_encoder(tiny_bert)):
        assert negatives(Dataset.from_list(expected)) == negatives(mine_hard_negatives(PAIRS, model))
    with pytest.raises(
        TypeError, match="model must be a SentenceTransformer, an RRRAModel or a name, got int"
    ):
        mine_hard_negatives(PAIRS, 3)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Can't load a model named 'nowhere'"):
        mine_hard_negatives(PAIRS, "nowhere")


def test_embeddings_and_words_are_kept_and_tell_prompts_apart(
    encoder: SentenceTransformer, tmp_path: Path
) -> None:
    first = mine_hard_negatives(PAIRS, encoder, cache_folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert mine_hard_negatives(PAIRS, encoder, cache_folder=tmp_path).to_list() == first.to_list()
    assert len(list(tmp_path.iterdir())) == 3
    mine_hard_negatives(PAIRS, encoder, cache_folder=tmp_path, query_prompt="old ")
    assert len(list(tmp_path.iterdir())) == 5


# -------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("loss", "output_format"),
    [
        (RRRALoss, "n-tuple"),
        (RRRALoss, "triplet"),
        (CachedRRRALoss, "n-tuple"),
        (MultipleNegativesRankingLoss, "n-tuple"),
        (CachedMultipleNegativesRankingLoss, "n-tuple"),
        (MarginMSELoss, "n-tuple"),
        (TripletLoss, "triplet"),
    ],
)
def test_the_result_trains_in_the_plain_trainer(
    tiny_bert: Path, tmp_path: Path, loss: Any, output_format: Any
) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    mined = mine_hard_negatives(PAIRS, model, corpus=CORPUS, output_format=output_format, threshold=1)
    assert one_step(model, mined, loss(model), tmp_path) > 0


def one_step(model: SentenceTransformer, dataset: Dataset, loss: Any, folder: Path) -> float:
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        max_steps=1,
        per_device_train_batch_size=8,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
    return trainer.train().training_loss


def test_weights_reach_the_loss(tiny_bert: Path, tmp_path: Path) -> None:
    def loss_of(dataset: Dataset) -> float:
        model = SentenceTransformer(str(tiny_bert), device="cpu")
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        return one_step(model, dataset, RRRALoss(model), tmp_path)

    mined = mine_hard_negatives(PAIRS, tiny_bert, corpus=CORPUS, threshold=1)
    unweighted = mined.remove_columns("scores")
    ones = unweighted.add_column("scores", [[1.0] * 3] * len(mined))
    assert loss_of(ones) == pytest.approx(loss_of(unweighted))
    assert loss_of(mined) < loss_of(unweighted)


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (PAIRS.select([]), {}, "dataset must have rows, got none"),
        (
            PAIRS,
            {"anchor_column_name": "query"},
            "anchor_column_name must be one of ['anchor', 'positive'], got",
        ),
        (
            PAIRS,
            {"positive_column_name": "anchor", "anchor_column_name": "anchor"},
            "positive_column_name must",
        ),
        (
            PAIRS.select_columns("anchor"),
            {},
            "dataset must have columns of anchors and positives, got ['anchor']",
        ),
        (
            Dataset.from_dict({"a": ["x"], "b": [[["y"]]]}),
            {},
            "column 'b' must hold texts, got list in row 0",
        ),
        (
            Dataset.from_dict({"a": ["x"], "b": [" "]}),
            {},
            "column 'b' must hold texts, got an empty text in row 0",
        ),
        (
            Dataset.from_dict({"a": ["x"], "b": [None]}),
            {},
            "column 'b' must hold texts, got NoneType in row 0",
        ),
        (
            Dataset.from_dict({"a": ["x"], "b": ["y"], "score": [0.5]}),
            {},
            "column 'score' must hold integers, got 0.5 in row 0",
        ),
        (
            Dataset.from_dict({"a": ["x"], "b": ["y"], "label": [float("nan")]}),
            {},
            "column 'label' must hold integers, got nan in row 0",
        ),
        (Dataset.from_dict({"a": ["x"], "b": ["y"], "label": [0]}), {}, "all labels in column 'label' are 0"),
        (PAIRS, {"corpus": "one text"}, "corpus must be a list of texts, got one text"),
        (PAIRS, {"corpus": ["a", 3]}, "corpus must hold texts, got int in row 1"),
        (PAIRS, {"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        (PAIRS, {"range_min": -1}, "range_min must be at least 0, got -1"),
        (
            PAIRS,
            {"range_min": 3, "range_max": 5},
            "range_max must be at least range_min + num_negatives, 6, got 5",
        ),
        (PAIRS, {"relative_margin": -0.1}, "margin must be a number of at least 0, got -0.1"),
        (PAIRS, {"sampling_strategy": "best"}, "sampling_strategy must be 'top' or 'random', got 'best'"),
        (
            PAIRS,
            {"output_format": "pairs"},
            "output_format must be one of n-tuple, triplet, labeled-pair, label",
        ),
        (PAIRS, {"threshold": 0}, "threshold must be in (0, 1], got 0"),
        (PAIRS, {"gamma": -1}, "gamma must be a number of at least 0, got -1"),
        (PAIRS, {"query_prompt_name": "none"}, "query_prompt_name must be one of"),
        (PAIRS, {"min_score": 2}, f"None of {len(PAIRS)} pairs has 3 negatives among"),
        (
            PAIRS,
            {"min_score": 2, "output_format": "labeled-pair"},
            f"None of {len(PAIRS)} pairs has 3 negatives",
        ),
    ],
    ids=str,
)
def test_what_is_not_legal_is_refused(
    encoder: SentenceTransformer, dataset: Dataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mine_hard_negatives(dataset, encoder, **options)


@pytest.mark.parametrize(
    ("dataset", "given"),
    [
        (DatasetDict(train=PAIRS), "DatasetDict with the splits ['train']; pass one of them"),
        (PAIRS.to_iterable_dataset(), "IterableDataset"),
        ([{"anchor": "x", "positive": "y"}], "list"),
    ],
    ids=str,
)
def test_other_types_are_refused(encoder: SentenceTransformer, dataset: Any, given: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"dataset must be a datasets.Dataset, got {given}.")):
        mine_hard_negatives(dataset, encoder)
