"""Decisions are saved when they are made, and none is ever lost."""

from __future__ import annotations

import json
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrra_hf.labels.review.decisions import Decision, Decisions


def decided(document: str = "d1", relevant: bool = True, by: str = "person") -> Decision:
    return Decision("q1", document, relevant, by, 0.5)


def lines(*decisions: Decision) -> str:
    return "".join(json.dumps(vars(decision)) + "\n" for decision in decisions)


# -------------------------------------------------------------------- which decision counts


@pytest.mark.parametrize("makers", [("adapter", "judge:a", "person"), ("person", "judge:a", "adapter")])
def test_a_person_counts_before_a_judge_and_a_judge_before_the_adapter(makers: tuple[str, ...]) -> None:
    decisions = Decisions()
    for by in makers:
        decisions.add(decided(relevant=by == "person", by=by))
    assert [(decision.by, decision.relevant) for decision in decisions] == [("person", True)]
    decisions.undo(decided(relevant=True, by="person"))
    assert decisions["q1", "d1"].by == "judge:a"
    decisions.undo(decided(relevant=False, by="judge:a"))
    assert decisions["q1", "d1"].by == "adapter"
    decisions.undo(decided(relevant=False, by="adapter"))
    assert ("q1", "d1") not in decisions and len(decisions) == 0 and decisions.made == ()
    with pytest.raises(ValueError, match="decision must be one that was made, got Decision"):
        decisions.undo(decided())


def test_of_one_rank_the_last_counts() -> None:
    decisions = Decisions()
    for by, relevant in (("judge:a", True), ("judge:b", False), ("person", True), ("person", False)):
        decisions.add(decided(relevant=relevant, by=by))
    assert decisions["q1", "d1"] == decided(relevant=False)
    decisions.undo(decisions.made[-1])
    assert decisions["q1", "d1"] == decided(relevant=True)
    decisions.undo(decisions.made[-1])
    assert decisions["q1", "d1"] == decided(relevant=False, by="judge:b")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("query_id", 3, "query_id must be a string, got 3"),
        ("relevant", "yes", "relevant must be true or false, got 'yes'"),
        ("by", "judge:", "by must be 'person', 'judge:NAME' or 'adapter', got 'judge:'"),
        ("probability", 1.5, r"probability must be in \[0, 1\], got 1.5"),
        ("probability", float("nan"), r"probability must be in \[0, 1\], got nan"),
        ("probability", True, r"probability must be in \[0, 1\], got True"),
    ],
)
def test_a_decision_says_what_is_wrong_with_it(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decision(**{**vars(decided()), field: value})


# -------------------------------------------------------------------- the file

# Ids hold whatever a collection holds.
steps = st.one_of(
    st.builds(
        Decision,
        st.sampled_from(["q1", "q\n\u2028\x85", "\ud800"]),
        st.sampled_from(["d1", '"}{"undo":']),
        st.booleans(),
        st.sampled_from(["person", "judge:a", "judge:b", "adapter"]),
        st.floats(0, 1),
    ),
    # The place of a decision to take back.
    st.integers(0, 9),
)


@settings(max_examples=30)
@given(st.lists(st.lists(steps, max_size=6), max_size=3))
def test_what_is_read_is_what_was_made(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[list[Decision | int]]
) -> None:
    path = tmp_path_factory.mktemp("decisions") / "decisions.jsonl"
    remembered = Decisions()
    for session in sessions:
        before = path.read_bytes() if path.exists() else b""
        with Decisions.open(path) as decisions:
            for step in session:
                for each in (decisions, remembered):
                    if isinstance(step, Decision):
                        each.add(step)
                    elif step < len(each.made):
                        each.undo(each.made[step])
        # Nothing is ever rewritten.
        assert path.read_bytes().startswith(before)
        assert list(Decisions.read(path)) == list(decisions) == list(remembered)


@pytest.mark.parametrize("length", [1, 20, len(lines(decided())) - 2])
def test_a_line_that_a_killed_process_was_writing_is_left_out(tmp_path: Path, length: int) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(lines(decided("d1")) + lines(decided("d2"))[:length])
    assert [decision.document_id for decision in Decisions.read(path)] == ["d1"]
    with Decisions.open(path) as decisions:
        decisions.add(decided("d3"))
    assert path.read_text() == lines(decided("d1"), decided("d3"))


def test_a_last_line_without_its_end_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(lines(decided("d1"), decided("d2"))[:-1])
    with Decisions.open(path) as decisions:
        decisions.add(decided("d3"))
    assert path.read_text() == lines(decided("d1"), decided("d2"), decided("d3"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a decision"),
        ("[" * 100_000, "not a decision"),
        ("{}", "it must be an object with the fields query_id, document_id, relevant, by, probability"),
        (lines(decided()).replace("true", "1").strip(), "relevant must be true or false, got 1"),
        ('{"undo": 3}', "it must be an object with the fields"),
        (json.dumps({"undo": vars(decided("d9"))}), "it takes back what wasn't decided"),
    ],
)
def test_other_damage_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "decisions.jsonl"
    path.write_text(lines(decided("d1")) + line + "\n" + lines(decided("d2")))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"decisions\.jsonl, line 2: .*{message}"):
        Decisions.read(path)
    with pytest.raises(ValueError, match="line 2"), Decisions.open(path):
        pass
    assert path.read_bytes() == before


@given(st.data())
def test_a_damaged_file_is_read_or_refused_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "decisions.jsonl"
    content = bytearray(lines(decided("d1"), decided("d2")).encode())
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    content[start:stop] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    try:
        Decisions.read(path)
    except ValueError as error:
        assert re.search(r"decisions\.jsonl, line \d: not a decision", str(error))


def test_one_process_at_a_time_decides(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    with (
        Decisions.open(path),
        pytest.raises(BlockingIOError, match=r"decisions\.jsonl is being written by another process"),
        Decisions.open(path),
    ):
        pass


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file become larger, as on a disk that is full."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_decision_that_does_not_fit_on_the_disk_leaves_no_part_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    with Decisions.open(path) as decisions:
        decisions.add(decided("d1"))
        for change in (lambda: decisions.add(decided("d2")), lambda: decisions.undo(decided("d1"))):
            with largest_file(path.stat().st_size + 10), pytest.raises(OSError):
                change()
        assert decisions.made == (decided("d1"),)
        decisions.add(decided("d3"))
    assert path.read_text() == lines(decided("d1"), decided("d3"))
