"""BEIR folders are read, validated and saved."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from herrings import DOCUMENTS, content, write_jsonl
from rrra_hf.data import Collection, load_collection

# -------------------------------------------------------------------- BEIR folders


def test_beir_folder_is_read_whole(beir: Path) -> None:
    collection = load_collection(beir)
    assert collection.name == "tiny"
    assert collection.document_ids == ["d1", "d2", "d3"]
    assert collection.document_texts == ["Herring A silver fish.", "A tall tree.", "Title alone"]
    assert collection.query_ids == ["q1", "q2", "q3"]
    assert collection.query_texts[2] == "never judged"
    assert collection.qrels_by_split == {"test": {"q2": {"d2": 2}}, "train": {"q1": {"d1": 1, "d2": 0}}}
    assert collection.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
    assert collection.skipped == {}


def test_split_keeps_its_queries_and_all_documents(beir: Path) -> None:
    split = load_collection(beir, "test")
    assert (split.query_ids, split.splits, len(split.corpus)) == (["q2"], ["test"], 3)


def test_split_keeps_the_order_of_the_queries(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q3\td1\t1\nq1\td1\t1\n")
    assert load_collection(beir, "train").query_ids == ["q1", "q3"]


def test_unknown_split_names_those_there_are(beir: Path) -> None:
    with pytest.raises(ValueError, match=r"no split 'dev'; there are \['test', 'train'\]"):
        load_collection(beir, "dev")


def test_qrels_without_header_lose_no_line(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t1\nq3\td2\t1\n")
    assert load_collection(beir).qrels_by_split["train"] == {"q1": {"d1": 1}, "q3": {"d2": 1}}


def test_grades_of_zero_or_less_are_known_negatives(beir: Path, tmp_path: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t-1\nq1\td2\t0\nq3\td3\t3\nq3\td1\t0\n")
    collection = load_collection(beir)
    assert collection.qrels_by_split["train"] == {"q1": {"d1": -1, "d2": 0}, "q3": {"d3": 3, "d1": 0}}
    assert [rows.tolist() for rows in collection.negative_rows] == [[0, 1], [], [0]]
    assert [rows.tolist() for rows in collection.positive_rows] == [[], [1], [2]]
    collection.save(tmp_path / "saved")
    assert content(load_collection(tmp_path / "saved")) == content(collection)


def test_judgement_of_a_document_that_is_not_there_is_named() -> None:
    texts = Dataset.from_dict({"id": ["d1"], "title": [""], "text": ["x"]})
    collection = Collection("any", texts, texts, {"train": {"d1": {"d1": 1, "d2": 1}}})
    with pytest.raises(ValueError, match="any has a judgement of 'd2', which is not in the corpus"):
        _ = collection.positive_rows


def test_split_has_the_queries_with_a_relevant_document(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t0\nq3\td3\t3\n")
    part = load_collection(beir, "train")
    assert (part.query_ids, part.qrels) == (["q3"], {"q3": {"d3": 3}})
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t0\n")
    with pytest.raises(ValueError, match="split 'train' of tiny has no relevant document"):
        load_collection(beir, "train")


@pytest.mark.parametrize(
    ("name", "text", "reason", "match"),
    [
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "x"}',
            "duplicate id",
            "line 4: .*'d1'.*corpus.jsonl, line 1",
        ),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": "x"}',
            "duplicate id",
            "line 4: .*'q1'.*queries.jsonl, line 1",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d4", "title": " ", "text": ""}',
            "empty text",
            "line 4: .*'d4' has no text",
        ),
        ("queries.jsonl", '{"_id": "q4", "text": "\\n"}', "empty text", "line 4: .*'q4' has no text"),
        ("corpus.jsonl", '{"_id": "", "text": "x"}', "empty id", "line 4: .*empty id"),
        ("corpus.jsonl", '{"_id": null, "text": "x"}', "empty id", "line 4: .*empty id"),
        ("corpus.jsonl", "{broken", "malformed line", "line 4: not JSON .*broken"),
        ("corpus.jsonl", "[1]", "malformed line", "line 4: not a JSON object"),
        ("corpus.jsonl", '{"_id": "d4", "body": "x"}', "missing column", "line 4: no column 'text'.*'body'"),
        ("corpus.jsonl", '{"text": "x"}', "missing column", "line 4: no column '_id' or 'id'"),
        (
            "corpus.jsonl",
            '{"_id": "d4", "text": ["x"]}',
            "malformed line",
            "line 4: column 'text' holds list",
        ),
        ("corpus.jsonl", '{"_id": "d4", "text": "\\ud800"}', "undecodable bytes", "line 4: .*lone surrogate"),
        ("qrels/test.tsv", "q9\td1\t1", "unknown query", "line 3: query 'q9'"),
        ("qrels/test.tsv", "q1\td9\t1", "unknown document", "line 3: document 'd9'"),
        ("qrels/test.tsv", "q1\td1", "malformed line", "line 3: 2 fields, expected 3"),
        ("qrels/test.tsv", "q1\td1\thigh", "malformed line", "line 3: .*must be an integer, got 'high'"),
        ("qrels/test.tsv", "q1\td1\t0.5", "malformed line", "line 3: .*must be an integer, got '0.5'"),
        ("qrels/test.tsv", "q1\td1\tinf", "malformed line", "line 3: .*must be an integer, got 'inf'"),
        ("qrels/test.tsv", "q1\td1\t1_0", "malformed line", "line 3: .*must be an integer, got '1_0'"),
        ("qrels/test.tsv", "q2\td2\t0", "contradicting grades", "line 3: .*the grade 0 here and 2 before"),
        ("corpus.jsonl", '{"_id": 1.0, "text": "x"}', "malformed line", "line 4: .*'_id' holds float 1.0"),
        ("corpus.jsonl", '{"_id": NaN, "text": "x"}', "malformed line", "line 4: .*'_id' holds float nan"),
        ("corpus.jsonl", '{"_id": true, "text": "x"}', "malformed line", "line 4: .*holds bool True"),
        ("queries.jsonl", '{"_id": "q\\udc80", "text": "x"}', "undecodable bytes", "line 4: .*surrogate"),
    ],
)
def test_bad_line_is_named_or_skipped_and_counted(
    beir: Path, name: str, text: str, reason: str, match: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = content(load_collection(beir))
    with (beir / name).open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    with pytest.raises(ValueError, match=match):
        load_collection(beir)
    with caplog.at_level(logging.WARNING):
        collection = load_collection(beir, skip_bad=True)
    assert collection.skipped == {reason: 1}
    assert content(collection) == good
    assert reason in caplog.text
    assert re.search(match, caplog.text)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv"])
def test_bytes_that_are_not_utf8_are_named_with_their_line(beir: Path, name: str) -> None:
    path = beir / name
    path.write_bytes(path.read_bytes() + b"caf\xe9 " * 2 + b"\n")
    with pytest.raises(ValueError, match=r"line \d: not UTF-8 \(byte 0xe9 at character 4\)"):
        load_collection(beir)
    assert load_collection(beir, skip_bad=True).skipped == {"undecodable bytes": 1}


def test_byte_order_mark_and_windows_line_ends_are_read(beir: Path) -> None:
    path = beir / "corpus.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_collection(beir).document_ids == ["d1", "d2", "d3"]


def test_numeric_ids_are_read_as_text(beir: Path) -> None:
    write_jsonl(beir / "corpus.jsonl", [{"_id": number, "text": "x"} for number in (1, 2)])
    for name in ("train", "test"):
        (beir / "qrels" / f"{name}.tsv").write_text("q1\t1\t1\n")
    assert load_collection(beir).document_ids == ["1", "2"]


def test_long_numbers_are_read_exactly(beir: Path) -> None:
    number = 123_456_789_012_345_678_901_234
    write_jsonl(beir / "corpus.jsonl", [{"_id": number, "text": "x"}])
    for name in ("train", "test"):
        (beir / "qrels" / f"{name}.tsv").write_text(f"q1\t{number}\t1\n")
    assert load_collection(beir).document_ids == [str(number)]


def test_long_texts_stay_whole(beir: Path) -> None:
    text = "x" * 300_000
    write_jsonl(beir / "corpus.jsonl", [*DOCUMENTS, {"_id": "d4", "text": text}])
    assert load_collection(beir).document_texts[3] == text


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv"])
def test_missing_part_of_a_beir_folder_is_named(beir: Path, name: str) -> None:
    (beir / name).unlink()
    (beir / "qrels" / "test.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny has no " + name.split("/")[0]):
        load_collection(beir)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("corpus.jsonl", "no documents"),
        ("queries.jsonl", "no queries"),
        ("qrels/train.tsv", "no relevant documents"),
    ],
)
def test_nothing_at_all_is_an_error(beir: Path, name: str, match: str, skip_bad: bool) -> None:
    for path in (beir / "qrels").iterdir():
        path.write_text("")
    (beir / name).write_text("")
    with pytest.raises(ValueError, match=match):
        load_collection(beir, skip_bad=skip_bad)


def test_error_after_skipping_everything_gives_the_counts(beir: Path) -> None:
    (beir / "corpus.jsonl").write_text("{\n{\n")
    with pytest.raises(ValueError, match=r"no documents; skipped: .*'malformed line': 2"):
        load_collection(beir, skip_bad=True)


# -------------------------------------------------------------------- saving


def test_saved_collection_loads_the_same(beir: Path, tmp_path: Path) -> None:
    (beir / "siblings.json").write_text('{"d1": ["d2", "d3"]}')
    collection = load_collection(beir)
    assert collection.siblings == {"d1": ["d2", "d3"]}
    collection.save(tmp_path / "new" / "folder")
    assert content(load_collection(tmp_path / "new" / "folder")) == content(collection)
    assert (tmp_path / "new" / "folder" / "qrels" / "test.tsv").read_text() == (
        "query-id\tcorpus-id\tscore\nq2\td2\t2\n"
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
IDS = TEXT.filter(lambda text: not set(text) & set("\t\n"))


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(IDS, min_size=1, max_size=4, unique=True), text=TEXT, grade=st.integers(1, 9))
def test_any_ids_and_texts_survive_saving(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], text: str, grade: int
) -> None:
    collection = Collection(
        name="any",
        corpus=Dataset.from_dict({"id": ids, "title": [text] * len(ids), "text": ids}),
        queries=Dataset.from_dict({"id": ids, "text": [text] * len(ids)}),
        qrels_by_split={"train": {identifier: {identifier: grade} for identifier in ids}},
    )
    folder = tmp_path_factory.mktemp("any") / "saved"
    collection.save(folder)
    assert content(load_collection(folder)) == content(collection)


@pytest.mark.parametrize("name", ["a\tb", "a\nb"])
def test_ids_that_no_field_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    texts = {"id": [name], "text": ["x"]}
    corpus = Dataset.from_dict({**texts, "title": [""]})
    collection = Collection("any", corpus, Dataset.from_dict(texts), {"train": {name: {name: 1}}})
    with pytest.raises(ValueError, match=r"no tabs and line breaks, got 'a\\[tn]b'"):
        collection.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_saving_over_something_is_refused(beir: Path) -> None:
    before = sorted(path.name for path in beir.iterdir())
    with pytest.raises(FileExistsError, match="not an empty folder"):
        load_collection(beir).save(beir)
    assert sorted(path.name for path in beir.iterdir()) == before


def test_failed_saving_leaves_nothing(beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("rrra_hf.data.collection._write_qrels", fail)
    with pytest.raises(OSError, match="disk full"):
        load_collection(beir).save(tmp_path / "out" / "saved")
    assert list((tmp_path / "out").iterdir()) == []


def test_siblings_outside_the_corpus_are_named(beir: Path) -> None:
    (beir / "siblings.json").write_text('{"d1": ["d2", "d9"]}')
    with pytest.raises(ValueError, match=r"siblings.json.*document 'd9' is not in the corpus"):
        load_collection(beir)
    assert load_collection(beir, skip_bad=True).siblings == {"d1": ["d2"]}


def test_siblings_of_another_form_are_refused(beir: Path) -> None:
    (beir / "siblings.json").write_text('{"d1": "d2"}')
    with pytest.raises(ValueError, match="must map ids to lists"):
        load_collection(beir)


def test_damaged_siblings_are_refused_or_skipped(beir: Path) -> None:
    (beir / "siblings.json").write_text('{"d1": ')
    with pytest.raises(ValueError, match=r"siblings.json, line 1: not JSON"):
        load_collection(beir)
    assert load_collection(beir, skip_bad=True).skipped == {"malformed line": 1}
