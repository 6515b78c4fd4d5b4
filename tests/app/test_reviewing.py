"""A review shows what is worth most, saves what is decided, and loses nothing when it is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from forked import Process
from review_task import review_and_tell, task
from rrra_hf.app.reviewing import Review
from rrra_hf.candidates import CandidatePool
from rrra_hf.labels.review.decisions import Decision, Decisions
from rrra_hf.labels.review.page import write_page

KILLS = int(os.environ.get("KILLS", "2"))


def shown(review: Review) -> tuple[str, str] | None:
    suspect = review.suspect()
    return None if suspect is None else (suspect.query_id, suspect.document_id)


def test_pairs_come_in_the_order_of_their_worth_until_none_is_left() -> None:
    collection, pool = task([[0.1, 0.6], [0.9, 0.0]])
    review, decisions = Review(collection, pool, decided := Decisions()), []
    while (pair := shown(review)) is not None:
        decisions.append(pair)
        review.decide(review.shown, relevant=pair == ("q0", "d1"))
    # The first decision moves the others, but not their order; the pair that can't be relevant is left out.
    assert decisions == [("q0", "d1"), ("q1", "d0"), ("q0", "d0")]
    assert [(made.pair, made.relevant, made.by) for made in decided] == [
        (pair, pair == ("q0", "d1"), "person") for pair in decisions
    ]
    assert decided["q0", "d1"].probability == pytest.approx(0.6)
    assert review.shown == "" and review.progress()[:3] == (1, 2, 0.0)


def test_a_suspect_has_its_texts_and_its_probability_follows() -> None:
    collection, pool = task([[0.5, 0.4]])
    review = Review(collection, pool, Decisions())
    suspect = review.suspect()
    assert (suspect.query, suspect.document) == ("file 0", "Text: copy files number 0")
    assert suspect.labelled == ["Text: move a file"] and suspect.probability == 0.5
    assert review.progress().left == pytest.approx(0.9)
    review.decide(review.shown, relevant=True)
    assert review.suspect().probability > 0.45
    assert review.progress().recalibration.decisions == 1


def test_an_answer_to_a_pair_that_is_no_longer_shown_decides_nothing() -> None:
    collection, pool = task([[0.5, 0.4, 0.3]])
    review, first = Review(collection, pool, decisions := Decisions()), "0-0"
    assert review.shown == first
    review.decide(first, relevant=True)
    for answer in (first, "", "0-7", "x"):
        review.decide(answer, relevant=True)
        review.skip(answer)
    assert len(decisions) == 1 and review.shown == "0-1"


def test_skipped_pairs_come_last_and_are_no_decisions() -> None:
    collection, pool = task([[0.5, 0.4, 0.3]])
    review = Review(collection, pool, decisions := Decisions())
    review.skip("0-0")
    review.skip("0-1")
    review.decide("0-2", relevant=False)
    assert review.shown == "0-0" and len(decisions) == 1


def test_undo_goes_back_through_decisions_and_skips() -> None:
    collection, pool = task([[0.5, 0.4, 0.3]])
    review = Review(collection, pool, decisions := Decisions())
    before = review.progress()
    review.decide("0-0", relevant=True)
    review.skip("0-1")
    review.decide("0-2", relevant=True)
    for expected in ("0-2", "0-1", "0-0", "0-0"):
        review.undo()
        assert review.shown == expected
    assert review.progress() == before and len(decisions) == 0
    review.decide("0-0", relevant=False)
    assert review.shown == "0-1"


def test_a_review_goes_on_where_it_was_and_undoes_earlier_decisions(tmp_path: Path) -> None:
    collection, pool = task([[0.5, 0.4, 0.3]])
    with Decisions.open(tmp_path / "d.jsonl") as decisions:
        # Of a judge, and of another collection: neither is a person's to undo.
        decisions.add(Decision("q0", "d0", True, "judge:a", 0.5))
        Review(collection, pool, decisions).decide("0-1", relevant=True)
        decisions.add(Decision("q9", "d9", True, "person", 0.5))
    with Decisions.open(tmp_path / "d.jsonl") as decisions:
        review = Review(collection, pool, decisions)
        assert review.shown == "0-2" and review.progress().relevant == 2
        review.undo()
        assert review.shown == "0-1" and review.progress().relevant == 1
        review.undo()
        assert review.shown == "0-1"
    assert {decision.pair for decision in Decisions.read(tmp_path / "d.jsonl")} == {
        ("q0", "d0"),
        ("q9", "d9"),
    }


def test_what_a_person_takes_back_a_judge_still_says() -> None:
    collection, pool = task([[0.5, 0.4]])
    decisions = Decisions()
    decisions.add(Decision("q0", "d0", True, "person", 0.5))
    decisions.add(Decision("q0", "d0", False, "judge:a", 0.5))
    review = Review(collection, pool, decisions)
    assert review.progress()[:2] == (1, 0)
    review.undo()
    assert review.progress()[:2] == (0, 1)


def test_a_decision_that_cannot_be_saved_leaves_the_review_as_it_was(tmp_path: Path) -> None:
    collection, pool = task([[0.5, 0.4]])
    with Decisions.open(tmp_path / "d.jsonl") as decisions:
        review = Review(collection, pool, decisions)
        review.decide("0-0", relevant=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                review.decide("0-1", relevant=True)
            with pytest.raises(OSError, match="No space left"):
                review.undo()
        assert review.shown == "0-1" and review.progress().relevant == 1
        review.undo()
        assert review.shown == "0-0"
    assert len(Decisions.read(tmp_path / "d.jsonl")) == 0


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_without_candidates_nothing_is_left_to_decide(shape: tuple[int, int], tmp_path: Path) -> None:
    collection, pool = task(np.empty(shape))
    review = Review(collection, pool, Decisions())
    assert review.suspect() is None and review.progress()[:3] == (0, 0, 0.0)
    review.decide("", relevant=True)
    review.undo()
    write_page(tmp_path / "page.html", collection, pool, Decisions(), [])
    assert "<li " not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_pool_without_probabilities_is_refused() -> None:
    collection, pool = task([[0.5]])
    bare = CandidatePool(pool.query_ids, pool.document_ids, pool.positives, pool.candidates, pool.scores)
    with pytest.raises(ValueError, match="pool must have probabilities"):
        Review(collection, bare, Decisions())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed are forked")
def test_no_saved_decision_is_lost_when_a_review_is_killed(tmp_path: Path) -> None:
    path, told = tmp_path / "decisions.jsonl", tmp_path / "told"
    told.touch()
    moments = Random(0)
    for kill in range(1, KILLS + 1):
        before = told.stat().st_size
        process = Process(review_and_tell, path, told)
        while told.stat().st_size == before:
            assert process.process.is_alive(), process.err
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        assert process.process.exitcode == -signal.SIGKILL
        saved = {(*made.pair, str(made.relevant)) for made in Decisions.read(path)}
        acknowledged = {tuple(line.split()) for line in told.read_text().splitlines()}
        # At most one decision per kill was saved and not told of.
        assert acknowledged <= saved and len(saved - acknowledged) <= kill


def test_the_next_of_many_pairs_is_the_first_of_all() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((200, 30)).astype(np.float32)
    review = Review(*task(p), Decisions())
    values = p * p * (1 - p) / np.log2(np.arange(30) + 2)
    assert review.shown == "{}-{}".format(*np.unravel_index(values.argmax(), p.shape))
