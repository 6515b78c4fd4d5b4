from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rrra_hf.data import Collection, load_collection
from rrra_hf.data import loading as loading_module

DOCUMENTS = [
    {"_id": "d1", "title": "Herring", "text": "A silver fish."},
    {"_id": "d2", "title": "", "text": "A tall tree."},
    {"_id": "d3", "title": "Title alone", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "what is a herring"},
    {"_id": "q2", "text": "tall plants"},
    {"_id": "q3", "text": "never judged"},
]
TRAIN = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"
TEST = "query-id\tcorpus-id\tscore\nq2\td2\t2.0\n"
HERRING = [{"id": "a", "title": "", "text": "A fish."}, {"id": "b", "title": "T", "text": "A tree."}]


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    write_jsonl(folder / "queries.jsonl", QUERIES)
    (folder / "qrels" / "train.tsv").write_text(TRAIN)
    (folder / "qrels" / "test.tsv").write_text(TEST)
    return folder


def content(collection: Collection) -> tuple[Any, ...]:
    return (
        collection.corpus.to_dict(),
        collection.queries.to_dict(),
        collection.qrels_by_split,
        collection.siblings,
    )


# -------------------------------------------------------------------- BEIR folders


def test_beir_folder_is_read_whole(beir: Path) -> None:
    collection = load_collection(beir)
    assert collection.name == "tiny"
    assert collection.document_ids == ["d1", "d2", "d3"]
    assert collection.document_texts == ["Herring A silver fish.", "A tall tree.", "Title alone"]
    assert collection.query_ids == ["q1", "q2", "q3"]
    assert collection.query_texts[2] == "never judged"
    assert collection.qrels_by_split == {"test": {"q2": {"d2": 2}}, "train": {"q1": {"d1": 1}}}
    assert collection.qrels == {"q1": {"d1": 1}, "q2": {"d2": 2}}
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


def test_grades_of_zero_or_less_are_not_relevant(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t-1\nq1\td2\t0\nq3\td3\t3\n")
    collection = load_collection(beir)
    assert collection.qrels_by_split["train"] == {"q3": {"d3": 3}}
    assert collection.skipped == {}


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


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(TEXT, min_size=1, max_size=4, unique=True), text=TEXT, grade=st.integers(1, 9))
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


# -------------------------------------------------------------------- a corpus file and pairs


def write_table(path: Path, records: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        return write_jsonl(path, records)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows = [list(records[0]), *(list(record.values()) for record in records)]
    path.write_text("".join(delimiter.join(f'"{field}"' for field in row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_corpus_and_pairs_are_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    corpus = write_table(tmp_path / f"corpus{suffix}", HERRING)
    pairs = write_table(
        tmp_path / f"pairs{suffix}",
        [
            {"query": "green, or silver", "document_id": "a", "split": "train"},
            {"query": "green, or silver", "document_id": "b", "split": "train"},
            {"query": "wood", "document_id": "b", "split": "dev"},
        ],
    )
    collection = load_collection(corpus, pairs=pairs)
    assert collection.document_texts == ["A fish.", "T A tree."]
    assert collection.query_texts == ["green, or silver", "wood"]
    assert collection.qrels_by_split == {"train": {"q0": {"a": 1, "b": 1}}, "dev": {"q1": {"b": 1}}}


def test_columns_are_named_by_the_caller(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.parquet", [{"pid": "a", "name": "T", "body": "x"}])
    pairs = write_table(tmp_path / "p.csv", [{"question": "why", "passage": "a"}])
    columns = {"id": "pid", "title": "name", "text": "body", "query": "question", "document_id": "passage"}
    collection = load_collection(corpus, pairs=pairs, columns=columns)
    assert collection.document_texts == ["T x"]
    assert collection.qrels_by_split == {"train": {"q0": {"a": 1}}}


def test_unknown_column_key_names_the_legal_ones(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.jsonl", HERRING)
    with pytest.raises(ValueError, match=r"columns names \['body'\]; it may name \['id', 'title'"):
        load_collection(corpus, pairs=corpus, columns={"body": "x"})


def test_pairs_may_name_documents_by_their_text(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.jsonl", [*HERRING, {"id": "c", "title": "", "text": "A fish."}])
    pairs = write_table(
        tmp_path / "p.jsonl",
        [{"query": "one", "document": "A fish."}, {"query": "two", "document": "T A tree."}],
    )
    collection = load_collection(corpus, pairs=pairs)
    assert collection.qrels == {"q0": {"a": 1, "c": 1}, "q1": {"b": 1}}


@pytest.mark.parametrize(
    ("pair", "reason", "match"),
    [
        ({"query": "x", "document": "A fish"}, "unknown document", "line 2: no document .* text 'A fish'"),
        ({"query": "x", "document_id": "z"}, "unknown document", "line 2: document 'z'"),
        ({"query": " ", "document_id": "a"}, "empty text", "line 2: the query has no text"),
        ({"query": "x"}, "missing column", r"line 2: no column 'document_id'; there are \['query'\]"),
        ({"document_id": "a"}, "missing column", "line 2: no column 'query' or 'anchor'"),
    ],
)
def test_bad_pair_is_named_or_skipped(tmp_path: Path, pair: dict[str, str], reason: str, match: str) -> None:
    corpus = write_table(tmp_path / "c.jsonl", HERRING)
    pairs = write_jsonl(tmp_path / "p.jsonl", [{"query": "good", "document_id": "a"}, pair])
    with pytest.raises(ValueError, match=match):
        load_collection(corpus, pairs=pairs)
    collection = load_collection(corpus, pairs=pairs, skip_bad=True)
    assert (collection.skipped, collection.query_texts) == ({reason: 1}, ["good"])


def test_csv_fields_are_counted_and_lines_told_across_line_breaks(tmp_path: Path) -> None:
    corpus = tmp_path / "c.csv"
    corpus.write_text('id,text\na,"two\nlines"\nb,one,more\n')
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    with pytest.raises(ValueError, match=r"c.csv, line 4: 3 fields where the header has 2"):
        load_collection(corpus, pairs=pairs)
    collection = load_collection(corpus, pairs=pairs, skip_bad=True)
    assert (collection.document_texts, collection.skipped) == (["two\nlines"], {"malformed line": 1})


def test_unclosed_quote_in_csv_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "c.csv"
    corpus.write_text('id,text\na,x\nb,"never closed\n')
    with pytest.raises(ValueError, match=r"line 3: not a row of delimited fields"):
        load_collection(corpus, pairs=corpus)


def test_long_csv_fields_stay_whole(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "c.csv", [{"id": "a", "text": "x" * 200_000}])
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    assert len(load_collection(corpus, pairs=pairs).document_texts[0]) == 200_000


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "c.parquet"
    corpus.write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"c\.parquet is not a Parquet file or is damaged"):
        load_collection(corpus, pairs=corpus)


def test_undecodable_parquet_row_is_named_or_skipped(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b"], "text": texts}), tmp_path / "c.parquet")
    pairs = write_table(tmp_path / "p.csv", [{"query": "x", "document_id": "a"}])
    with pytest.raises(ValueError, match=r"c.parquet, row 2: not UTF-8"):
        load_collection(tmp_path / "c.parquet", pairs=pairs)
    collection = load_collection(tmp_path / "c.parquet", pairs=pairs, skip_bad=True)
    assert collection.skipped == {"undecodable bytes": 1}


def test_corpus_file_needs_pairs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pairs must name the file"):
        load_collection(write_table(tmp_path / "c.jsonl", HERRING))


def test_pairs_beside_anything_else_are_refused(beir: Path) -> None:
    with pytest.raises(ValueError, match="pairs goes with a corpus file"):
        load_collection(beir, pairs="pairs.csv")


def test_columns_beside_a_layout_with_fixed_names_are_refused(beir: Path) -> None:
    with pytest.raises(ValueError, match="columns goes with files and datasets"):
        load_collection(beir, columns={"text": "body"})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*c.csv"):
        load_collection(tmp_path / "c.csv", pairs=tmp_path / "p.csv")


def test_unknown_format_names_the_known(tmp_path: Path) -> None:
    (tmp_path / "c.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"unknown format; known are \.jsonl, \.csv, \.tsv, \.parquet"):
        load_collection(tmp_path / "c.xlsx", pairs=tmp_path / "c.xlsx")


# -------------------------------------------------------------------- datasets


def as_datasets() -> dict[str, Any]:
    return {
        "corpus": Dataset.from_list(DOCUMENTS),
        "queries": Dataset.from_list(QUERIES),
        "qrels": Dataset.from_dict(
            {"query-id": ["q1", "q2"], "corpus-id": ["d1", "d2"], "score": [1.0, 0.0]}
        ),
    }


def test_datasets_are_read() -> None:
    collection = load_collection(as_datasets())
    assert collection.document_ids == ["d1", "d2", "d3"]
    assert collection.qrels_by_split == {"train": {"q1": {"d1": 1}}}


def test_qrels_datasets_by_split_are_read() -> None:
    source = as_datasets()
    source["qrels"] = {"dev": source["qrels"]}
    assert load_collection(source, "dev").query_ids == ["q1"]


def test_bad_row_of_a_dataset_is_named() -> None:
    source = as_datasets() | {"corpus": Dataset.from_list([*DOCUMENTS, DOCUMENTS[0]])}
    with pytest.raises(ValueError, match=r"corpus, row 3: .*'d1'.*corpus, row 0"):
        load_collection(source)


def test_mapping_without_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source lacks \['queries', 'qrels'\]; it has \['corpus'\]"):
        load_collection({"corpus": Dataset.from_list(DOCUMENTS)})


@pytest.mark.parametrize("names", [("query", "positive"), ("anchor", "positive"), ("query", "document")])
def test_dataset_of_pairs_makes_its_corpus(names: tuple[str, str]) -> None:
    query, document = names
    pairs = Dataset.from_dict(
        {query: ["x", "y", "x"], document: ["A fish.", "A fish.", "A tree."], "negative": ["n"] * 3}
    )
    collection = load_collection(pairs)
    assert collection.document_texts == ["A fish.", "A tree."]
    assert collection.qrels == {"q0": {"d0": 1, "d1": 1}, "q1": {"d0": 1}}


def test_empty_text_in_a_dataset_of_pairs_is_named_or_skipped_once() -> None:
    pairs = Dataset.from_dict({"query": ["x", "y", "z"], "positive": ["A fish.", " ", None]})
    with pytest.raises(ValueError, match=r"row 1: document 'd1' has no text"):
        load_collection(pairs)
    assert load_collection(pairs, skip_bad=True).skipped == {"empty text": 2}


def test_source_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="got int"):
        load_collection(3)  # type: ignore[arg-type]


# -------------------------------------------------------------------- Hub datasets


def hub_layout(folder: Path) -> Path:
    """A local folder laid out as retrieval datasets on the Hub are: three configurations."""
    for name in ("documents", "questions", "labels"):
        (folder / name).mkdir(parents=True)
    write_jsonl(folder / "documents" / "corpus.jsonl", DOCUMENTS)
    write_jsonl(folder / "questions" / "queries.jsonl", QUERIES)
    for split, query in (("train", "q1"), ("test", "q2")):
        record = {"query-id": query, "corpus-id": "d2", "score": 1}
        write_jsonl(folder / "labels" / f"{split}.jsonl", [record])
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: default\n  data_files:\n"
        "  - {split: train, path: labels/train.jsonl}\n  - {split: test, path: labels/test.jsonl}\n"
        "- config_name: corpus\n  data_files: [{split: corpus, path: documents/corpus.jsonl}]\n"
        "- config_name: queries\n  data_files: [{split: queries, path: questions/queries.jsonl}]\n"
        "---\n"
    )
    return folder


def test_hub_layout_is_read_through_datasets(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "scifacts")
    collection = load_collection(str(folder), cache_dir=tmp_path / "cache")
    assert collection.name == "scifacts"
    assert collection.qrels_by_split == {"train": {"q1": {"d2": 1}}, "test": {"q2": {"d2": 1}}}
    assert collection.document_ids == ["d1", "d2", "d3"]


def test_unknown_name_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, configuration: str, **_: Any) -> None:
        raise ConnectionError(f"no route to {name}/{configuration}")

    monkeypatch.setattr(loading_module, "load_dataset", offline)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*'corpus'.*ConnectionError: no route"):
        load_collection("nobody/nothing")


def test_python_docs_is_a_source(monkeypatch: pytest.MonkeyPatch, beir: Path) -> None:
    collection = load_collection(beir)
    monkeypatch.setattr(loading_module, "python_docs", lambda cache_dir: collection)
    assert load_collection("python-docs", "test").query_ids == ["q2"]
