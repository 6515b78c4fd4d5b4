"""What people have opens: each format, written by its own library where there is one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import ir_measures
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from langchain_core.documents import Document

from herrings import HERRING, labels, write_jsonl, write_table
from rrra_hf.data import load_collection, read_run, write_run

PAIRS = [
    {"query": "what swims", "positive": "A fish.", "negative": "A tree."},
    {"query": "what grows", "positive": "A tree.", "negative": "A fish."},
]
JUDGED = {"what swims": {"A fish.": 1, "A tree.": 0}, "what grows": {"A tree.": 1, "A fish.": 0}}

# -------------------------------------------------------------------- in memory

TABLES: dict[str, Any] = {
    "list": lambda records: records,
    "dataset": Dataset.from_list,
    "streamed dataset": lambda records: IterableDataset.from_generator(lambda: iter(records)),
    "arrow": pa.Table.from_pylist,
    "pandas": lambda records: pd.DataFrame(records, index=[7, 3]),
    "polars": pl.DataFrame,
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_in_memory_are_read(kind: str) -> None:
    assert labels(load_collection(TABLES[kind](PAIRS))) == JUDGED


@pytest.mark.parametrize("kind", TABLES)
def test_tables_in_memory_are_read_as_parts(kind: str) -> None:
    make = TABLES[kind]
    queries = [{"id": "q1", "text": "what swims"}, {"id": "q2", "text": "what grows"}]
    qrels = [
        {"query-id": "q1", "corpus-id": "a", "score": 1},
        {"query-id": "q2", "corpus-id": "b", "score": 0},
    ]
    source = {"corpus": make(HERRING), "queries": make(queries), "qrels": {"test": make(qrels)}}
    assert load_collection(source).qrels_by_split == {"test": {"q1": {"a": 1}, "q2": {"b": 0}}}


def test_null_ids_of_a_data_frame_are_no_text() -> None:
    with pytest.raises(ValueError, match=r"row 0: column 'id' holds float 1.0"):
        load_collection(pd.DataFrame({"id": [1, None], "text": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"row 1: the document has an empty id"):
        load_collection(pl.DataFrame({"id": [1, None], "text": ["a", "b"]}))
    with pytest.raises(ValueError, match="dataset has a column with values of several types"):
        load_collection(pd.DataFrame({"id": [1, "x"], "text": ["a", "b"]}))


def test_splits_of_a_dataset_dict_are_kept() -> None:
    source = DatasetDict({"train": Dataset.from_list(PAIRS[:1]), "validation": Dataset.from_list(PAIRS[1:])})
    collection = load_collection(source)
    assert collection.splits == ["train", "dev"]
    assert labels(collection.split("validation")) == {"what grows": JUDGED["what grows"]}


# -------------------------------------------------------------------- columns

NAMES = [("anchor", "positive"), ("question", "answer"), ("sentence1", "sentence2"), ("query", "passage")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_pairs_alone_are_read_in_every_format(tmp_path: Path, suffix: str, names: tuple[str, str]) -> None:
    pairs = [dict(zip(names, (pair["query"], pair["positive"]), strict=True)) for pair in PAIRS]
    collection = load_collection(write_table(tmp_path / f"pairs{suffix}", pairs))
    assert labels(collection) == {"what swims": {"A fish.": 1}, "what grows": {"A tree.": 1}}


def test_two_columns_of_text_are_query_and_document(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faq = write_table(tmp_path / "faq.csv", [{"Frage": "Was schwimmt?", "Antwort": "Ein Fisch."}])
    collection = load_collection(faq)
    assert labels(collection) == {"Was schwimmt?": {"Ein Fisch.": 1}}
    assert "'Frage' is read as the query" in caplog.text and "--column document=..." in caplog.text


def test_ids_by_content_stay_when_rows_are_added(tmp_path: Path) -> None:
    few, more = ([{"question": f"q{row}", "answer": f"a{row}"} for row in rows] for rows in ([2], [1, 2]))
    ids = [set(load_collection(records).document_ids) for records in (few, more)]
    assert ids[0] < ids[1]


@pytest.mark.parametrize(
    "record",
    [
        {"subject": "a", "body": "b", "status": "c"},
        {"query": "a", "x": "b", "y": "c"},
        {"query": "a", "text": "b"},
        {"id": "1", "x": "a", "y": "b"},
        {"query": "a", "document_id": "b"},
        {"number": 3},
    ],
)
def test_columns_that_are_not_clear_are_listed(tmp_path: Path, record: dict[str, Any]) -> None:
    path = write_jsonl(tmp_path / "tickets.jsonl", [record])
    with pytest.raises(ValueError, match=r"tickets.jsonl has columns \[.*--column query=") as refusal:
        load_collection(path)
    assert all(name in str(refusal.value) for name in record)


def test_columns_that_are_not_clear_can_be_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"subject": "a", "body": "b", "status": "c", "answer": "d"}])
    pairs = load_collection(path, columns={"query": "subject", "document": "body"})
    assert labels(pairs) == {"a": {"b": 1}}
    assert load_collection(path, columns={"text": "body"}).document_texts == ["b"]


def test_documents_of_the_same_text_without_ids_are_one(caplog: pytest.LogCaptureFixture) -> None:
    collection = load_collection([{"text": "x"}, {"text": "x"}, {"title": "x", "text": "x"}])
    assert collection.document_texts == ["x", "x x"]
    assert "1 documents repeat the text of another" in caplog.text


# -------------------------------------------------------------------- tools


def test_flag_embedding_is_read(tmp_path: Path) -> None:
    record = {"query": "what swims", "pos": ["A fish.", "A whale."], "neg": ["A tree."], "pos_scores": [1, 2]}
    collection = load_collection(write_jsonl(tmp_path / "train.jsonl", [record]))
    assert labels(collection) == {"what swims": {"A fish.": 1, "A whale.": 1, "A tree.": 0}}


def test_llama_index_is_read(tmp_path: Path) -> None:
    # As `EmbeddingQAFinetuneDataset.save_json` writes it.
    made = {
        "queries": {"q1": "what swims"},
        "corpus": {"d1": "A fish.", "d2": "A tree."},
        "relevant_docs": {"q1": ["d1"]},
        "mode": "text",
    }
    (tmp_path / "qa.json").write_text(json.dumps(made, indent=4))
    collection = load_collection(tmp_path / "qa.json")
    assert collection.document_ids == ["d1", "d2"]
    assert collection.qrels == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "qa.json is not JSON"),
        ('{"queries": {}, "corpus": []}', "qa.json must hold a list of records, or an object"),
        ('{"queries": {"q": "x"}, "corpus": {"d": null}, "relevant_docs": {}}', "corpus entry 1: .* no text"),
        (
            '{"queries": {"q": "x"}, "corpus": {"d": "x"}, "relevant_docs": {"q": ["e"]}}',
            "relevant_docs entry 1: document 'e' is not in the corpus",
        ),
    ],
)
def test_json_files_of_another_form_are_refused(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "qa.json").write_text(content)
    with pytest.raises(ValueError, match=match):
        load_collection(tmp_path / "qa.json")


def test_documents_of_langchain_are_read(tmp_path: Path) -> None:
    documents = [Document("A fish.", metadata={"page": 1}), Document("A tree.", id="b")]
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(document.model_dump_json() + "\n" for document in documents))
    collection = load_collection(path)
    assert collection.document_texts == ["A fish.", "A tree."]
    assert collection.document_ids[1] == "b"


# -------------------------------------------------------------------- TREC and MS MARCO


def corpus_and_queries(folder: Path) -> dict[str, Path]:
    queries = [{"id": "q1", "text": "what swims"}, {"id": "q2", "text": "what grows"}]
    return {
        "source": write_table(folder / "corpus.csv", HERRING),
        "queries": write_table(folder / "queries.csv", queries),
    }


def test_judgements_of_trec_are_read(tmp_path: Path) -> None:
    path = tmp_path / "qrels.dev.txt"
    judged = [ir_measures.Qrel("q1", "a", 2, "0"), ir_measures.Qrel("q2", "b", 0, "0")]
    path.write_text("".join(f"{q.query_id} {q.iteration} {q.doc_id} {q.relevance}\n" for q in judged))
    assert list(ir_measures.read_trec_qrels(str(path))) == judged
    collection = load_collection(**corpus_and_queries(tmp_path), qrels=path)
    assert collection.qrels_by_split == {"dev": {"q1": {"a": 2}, "q2": {"b": 0}}}


def test_lines_of_another_width_are_named(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text("q1 0 a 1\nq2 b 1\n")
    with pytest.raises(ValueError, match=r"qrels.txt, line 2: 3 fields, expected 4"):
        load_collection(**corpus_and_queries(tmp_path), qrels=path)
    path.write_text("q1 Q0 a 1 2.5 bm25\n")
    with pytest.raises(ValueError, match=r"qrels.txt, line 1: six columns are those of a run"):
        load_collection(**corpus_and_queries(tmp_path), qrels=path)


def test_judgements_need_queries(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="qrels needs the file of their queries"):
        load_collection(corpus_and_queries(tmp_path)["source"], qrels=tmp_path / "qrels.txt")


def test_runs_are_those_of_ir_measures(tmp_path: Path) -> None:
    hits = [{"corpus_id": "b", "score": 0.1 + 0.2}, {"corpus_id": "a", "score": 0.3}]
    write_run(tmp_path / "a.run", {"q1": hits})
    assert read_run(tmp_path / "a.run") == {"q1": hits}
    theirs = list(ir_measures.read_trec_run(str(tmp_path / "a.run")))
    assert [(hit.query_id, hit.doc_id, hit.score) for hit in theirs] == [
        ("q1", hit["corpus_id"], hit["score"]) for hit in hits
    ]


def test_runs_that_no_line_can_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have no spaces, got 'a b'"):
        write_run(tmp_path / "a.run", {"q1": [{"corpus_id": "a b", "score": 1}]})
    (tmp_path / "b.run").write_text("q1 Q0 a 1 high bm25\n")
    with pytest.raises(ValueError, match=r"b.run, line 1: a run has six columns"):
        read_run(tmp_path / "b.run")


def test_ms_marco_is_read_without_headers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gzip.open(tmp_path / "collection.tsv.gz", "wt") as file:
        file.write('0\tA fish.\n1\t"A tree" is tall.\n')
    (tmp_path / "queries.train.tsv").write_text("7\twhat swims\n8\twhat grows\n")
    (tmp_path / "qrels.train.tsv").write_text("7\t0\t0\t1\n8\t0\t1\t1\n")
    collection = load_collection(
        tmp_path / "collection.tsv.gz",
        queries=tmp_path / "queries.train.tsv",
        qrels=tmp_path / "qrels.train.tsv",
    )
    assert labels(collection) == {"what swims": {"A fish.": 1}, "what grows": {'"A tree" is tall.': 1}}
    assert "collection.tsv.gz: the first line is no header, so the columns are id, text" in caplog.text


def test_triples_of_ms_marco_are_read(tmp_path: Path) -> None:
    long = "A fish swims in the sea, and in rivers and lakes."
    (tmp_path / "triples.tsv").write_text(f"what swims\t{long}\tA tree.\n")
    assert labels(load_collection(tmp_path / "triples.tsv")) == {"what swims": {long: 1, "A tree.": 0}}


# -------------------------------------------------------------------- BEIR and MTEB


def test_qrels_beside_the_corpus_are_read(beir: Path) -> None:
    for path in (beir / "qrels").iterdir():
        path.unlink()
    (beir / "qrels").rmdir()
    collection = load_collection(beir)
    assert (collection.splits, len(collection.query_ids)) == ([], 3)
    (beir / "qrels.tsv").write_text("q1\td1\t1\n")
    assert load_collection(beir).qrels_by_split == {"train": {"q1": {"d1": 1}}}
    (beir / "qrels.test.txt").write_text("q2 0 d2 1\n")
    assert load_collection(beir).splits == ["test", "train"]
    (beir / "qrels.train.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(ValueError, match="several files of judgements of one split"):
        load_collection(beir)


def test_compressed_folders_are_read(beir: Path) -> None:
    before = load_collection(beir).qrels_by_split
    for path in [*beir.glob("*.jsonl"), *beir.glob("qrels/*")]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load_collection(beir).qrels_by_split == before


def test_corpus_alone_is_a_folder(beir: Path) -> None:
    for path in [beir / "queries.jsonl", *beir.glob("qrels/*")]:
        path.unlink()
    (beir / "qrels").rmdir()
    collection = load_collection(beir)
    assert (len(collection.document_ids), collection.query_ids, collection.splits) == (3, [], [])


def hub_folder(folder: Path, files: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """A local folder with configurations, each with splits."""
    lines = ["---", "configs:"]
    for configuration, splits in files.items():
        lines += [f"- config_name: {configuration}", "  data_files:"]
        for split, records in splits.items():
            (folder / configuration).mkdir(parents=True, exist_ok=True)
            write_jsonl(folder / configuration / f"{split}.jsonl", records)
            lines.append(f"  - {{split: {split}, path: {configuration}/{split}.jsonl}}")
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)


@pytest.mark.parametrize(
    ("prefix", "qrels"), [("", "qrels"), ("", "default"), ("en-", "en-qrels"), ("en-", "default")]
)
def test_layouts_of_mteb_are_read(tmp_path: Path, prefix: str, qrels: str) -> None:
    files = {
        f"{prefix}corpus": {"test": HERRING},
        f"{prefix}queries": {"test": [{"id": "q", "text": "what swims"}]},
        qrels: {"test": [{"query-id": "q", "corpus-id": "a", "score": 1}]},
    }
    collection = load_collection(hub_folder(tmp_path / "mteb", files), cache_dir=tmp_path / "cache")
    assert collection.qrels_by_split == {"test": {"q": {"a": 1}}}


def test_pairs_of_the_hub_are_read(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "pairs", {"default": {"train": PAIRS[:1], "validation": PAIRS[1:]}})
    collection = load_collection(folder, cache_dir=tmp_path / "cache")
    assert (labels(collection), collection.splits) == (JUDGED, ["train", "dev"])


def test_configurations_that_are_not_clear_are_listed(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", {name: {"train": PAIRS} for name in ("pair", "triplet")})
    with pytest.raises(ValueError, match=r"has the configurations \['pair', 'triplet'\]"):
        load_collection(folder)


def test_json_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS))
    assert labels(load_collection(tmp_path / "pairs.json")) == JUDGED
