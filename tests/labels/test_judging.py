"""A judge is asked where the adapter is unsure, and its answers are saved as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import expit
from sentence_transformers import CrossEncoder

from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection
from rrra_hf.labels.judges import Cost, CrossEncoderJudge, Texts, open_judge
from rrra_hf.labels.review import judging
from rrra_hf.labels.review.decisions import Decision, Decisions
from rrra_hf.labels.review.judging import LOW, cost_of_judging, judge_uncertain


class Oracle:
    """Finds documents with the word fish relevant, and can't tell of those with the word fog."""

    name = "oracle"

    def __init__(self, calls_per_pair: int = 1, answers: float = np.inf):
        self.calls = 0
        self.asked: list[Texts] = []
        self.calls_per_pair = calls_per_pair
        self.answers = answers

    def cost(self, texts: Sequence[Texts]) -> Cost:
        return Cost(len(texts), 10 * len(texts))

    def judge(
        self, texts: Sequence[Texts], max_calls: int | None = None
    ) -> Iterator[tuple[int, bool | None]]:
        limit = np.inf if max_calls is None else self.calls + max_calls
        for place, (query, document) in reversed(list(enumerate(texts))):
            if len(self.asked) >= self.answers:
                raise ConnectionError("the endpoint is gone")
            if self.calls + self.calls_per_pair > limit:
                self.calls = int(limit)
                return
            self.calls += self.calls_per_pair
            self.asked.append((query, document))
            yield place, None if "fog" in document else "fish" in document


def task(
    probability: list[list[float]], documents: list[str] | None = None
) -> tuple[Collection, CandidatePool]:
    """A collection whose queries have all documents as candidates."""
    p = np.array(probability)
    texts = documents or [f"{'fish' if number % 2 else 'house'} {number}" for number in range(p.shape[1])]
    collection = Collection(
        name="tiny",
        corpus=Dataset.from_dict(
            {"id": [f"d{i}" for i in range(len(texts))], "title": ["The"] * len(texts), "text": texts}
        ),
        queries=Dataset.from_dict(
            {"id": [f"q{i}" for i in range(len(p))], "text": [f"query {i}" for i in range(len(p))]}
        ),
        qrels_by_split={},
    )
    present = ~np.isnan(p)
    pool = CandidatePool(
        query_ids=collection.query_ids,
        document_ids=collection.document_ids,
        positives=[np.array([], dtype=int)] * len(p),
        candidates=np.where(present, np.arange(p.shape[1]), -1),
        scores=np.where(present, 0.5, -np.inf),
        probability=p,
    )
    return collection, pool


def test_only_pairs_of_which_the_adapter_knows_less_are_asked_about() -> None:
    collection, pool = task([[0.5, 0.99, 0.3, 0.01, np.nan], [0.0, 0.2, 0.05, 0.06, 0.96]])
    judge, decisions = Oracle(), Decisions()
    assert cost_of_judging(collection, pool, decisions, judge) == Cost(4, 40)
    report = judge_uncertain(collection, pool, decisions, judge)
    assert set(judge.asked) == {
        ("query 0", "The house 0"),
        ("query 0", "The house 2"),
        ("query 1", "The fish 1"),
        ("query 1", "The fish 3"),
    }
    assert report == ("oracle", 4, 2, 2, 0, 1, 7)
    assert report.saved == 3 and LOW == 0.02
    assert {decision.pair: (decision.relevant, decision.by) for decision in decisions} == {
        ("q0", "d0"): (False, "judge:oracle"),
        ("q0", "d2"): (False, "judge:oracle"),
        ("q1", "d1"): (True, "judge:oracle"),
        ("q1", "d3"): (True, "judge:oracle"),
    }
    assert decisions["q1", "d1"].probability == pytest.approx(0.2)


def test_a_judge_that_errs_more_is_asked_less() -> None:
    collection, pool = task([[0.5, 0.3, 0.15, 0.85]])
    for judge_error, calls in ((0.0, 4), (0.2, 2), (0.4, 1), (0.5, 0)):
        assert (
            cost_of_judging(collection, pool, Decisions(), Oracle(), judge_error=judge_error).calls == calls
        )


def test_what_was_decided_is_not_asked_about_again() -> None:
    collection, pool = task([[0.5, 0.4, 0.6, 0.4]])
    decisions = Decisions()
    decisions.add(Decision("q0", "d0", True, "person", 0.5))
    decisions.add(Decision("q0", "d1", True, "judge:another", 0.5))
    decisions.add(Decision("q0", "d2", True, "adapter", 0.5))
    judge = Oracle()
    judge_uncertain(collection, pool, decisions, judge)
    assert {document for _, document in judge.asked} == {"The house 2", "The fish 3"}
    assert decisions["q0", "d2"] == Decision(
        "q0", "d2", False, "judge:oracle", decisions["q0", "d2"].probability
    )


def test_a_few_calls_go_to_the_pairs_that_are_worth_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ROUND", 2)
    collection, pool = task([[0.2, 0.6, 0.1], [0.7, 0.3, 0.2]])
    judge = Oracle()
    assert cost_of_judging(collection, pool, Decisions(), judge, max_calls=2).calls == 2
    report = judge_uncertain(collection, pool, Decisions(), judge, max_calls=2)
    assert set(judge.asked) == {("query 1", "The house 0"), ("query 0", "The fish 1")}
    assert report.calls == 2


@pytest.mark.parametrize(("max_calls", "asked"), [(None, 10), (5, 2)])
def test_calls_are_counted_and_not_pairs(
    monkeypatch: pytest.MonkeyPatch, max_calls: int | None, asked: int
) -> None:
    monkeypatch.setattr(judging, "ROUND", 3)
    collection, pool = task([[0.5] * 10])
    judge = Oracle(calls_per_pair=2)
    report = judge_uncertain(collection, pool, Decisions(), judge, max_calls=max_calls)
    assert len(judge.asked) == asked
    assert report.calls == judge.calls == (max_calls or 20)


def test_pairs_without_an_answer_are_counted_and_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ROUND", 1)
    collection, pool = task([[0.5, 0.5, 0.5]], ["fog", "fish", "fog over fish"])
    judge, decisions = Oracle(), Decisions()
    report = judge_uncertain(collection, pool, decisions, judge)
    assert (report.relevant, report.not_relevant, report.undecided) == (1, 0, 2)
    assert len(judge.asked) == 3 and len(decisions) == 1


def test_rounds_follow_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ROUND", 40)
    # Nothing is relevant, which is clear after some answers.
    collection, pool = task([[0.3] * 200], ["house"] * 200)
    judge = Oracle()
    report = judge_uncertain(collection, pool, Decisions(), judge)
    assert report.without == 200 and 40 <= report.calls < 120


def test_pairs_that_become_uncertain_are_left_for_a_second_run() -> None:
    # All are relevant, so what was improbable isn't any more.
    collection, pool = task([[0.3] * 30 + [0.03] * 50], ["fish"] * 80)
    decisions = Decisions()
    assert cost_of_judging(collection, pool, decisions, Oracle()).calls == 30
    first = judge_uncertain(collection, pool, decisions, Oracle())
    assert (first.calls, first.left) == (30, 50)
    assert cost_of_judging(collection, pool, decisions, Oracle()).calls == 50
    second = judge_uncertain(collection, pool, decisions, Oracle(), max_calls=20)
    assert (second.calls, second.left) == (20, 30)


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    collection, pool = task([[0.5] * 10, [0.4] * 10])
    with Decisions.open(tmp_path / "d.jsonl") as decisions, pytest.raises(ConnectionError, match="gone"):
        judge_uncertain(collection, pool, decisions, Oracle(answers=7))
    again = Oracle()
    with Decisions.open(tmp_path / "d.jsonl") as decisions:
        assert len(decisions) == 7
        judge_uncertain(collection, pool, decisions, again)
    whole = Decisions()
    judge_uncertain(collection, pool, whole, Oracle())
    assert {decision.pair: decision.relevant for decision in decisions} == {
        decision.pair: decision.relevant for decision in whole
    }
    assert len(again.asked) == len(whole) - 7


def test_what_cannot_be_judged_is_refused() -> None:
    collection, pool = task([[0.5, 0.5]])
    for options, message in (
        ({"judge_error": 0.6}, r"judge_error must be in \[0, 0.5\]"),
        ({"max_calls": 0}, "max_calls must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            judge_uncertain(collection, pool, Decisions(), Oracle(), **options)
    others = replace(pool, document_ids=["d1", "d0"])
    with pytest.raises(ValueError, match="pool must have the documents of the collection"):
        judge_uncertain(collection, others, Decisions(), Oracle())
    others = replace(pool, query_ids=["q7"])
    with pytest.raises(ValueError, match="pool must have queries of the collection, 'q7' isn't one"):
        judge_uncertain(collection, others, Decisions(), Oracle())


# -------------------------------------------------------------------- cross-encoders


def test_a_cross_encoder_judges_by_its_probability(tiny_bert: Path, tmp_path: Path) -> None:
    CrossEncoder(str(tiny_bert), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "ce"))
    judge = open_judge(f"cross-encoder:{tmp_path / 'ce'}", device="cpu")
    assert isinstance(judge, CrossEncoderJudge) and judge.name == f"cross-encoder:{tmp_path / 'ce'}"
    texts = [
        ("how do i list files", f"{word} the old text") for word in ("list", "copy", "sort", "find")
    ] * 10
    logits = judge.model.predict(texts, activation_fn=lambda x: x)
    np.testing.assert_allclose(judge.probabilities(texts), expit(logits), rtol=1e-4)
    assert list(judge.judge(texts, 35)) == list(enumerate((logits > 0).tolist()))[:35]
    assert judge.calls == 35 and judge.cost(texts).calls == 40


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("oracle", {}, "judge must be cross-encoder:NAME or openai:MODEL, got 'oracle'"),
        ("openai:", {}, "judge must be cross-encoder:NAME or openai:MODEL, got 'openai:'"),
        ("cross-encoder:x", {"base_url": "http://a"}, "base_url must be None for a cross-encoder"),
    ],
)
def test_judges_that_there_are_not_are_refused(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_judge(name, **options)


def test_a_model_with_several_scores_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    CrossEncoder(str(tiny_bert), num_labels=3, device="cpu").save_pretrained(str(tmp_path / "nli"))
    with pytest.raises(ValueError, match=r"model must have one score per pair, .*nli has 3"):
        CrossEncoderJudge(str(tmp_path / "nli"), device="cpu")
