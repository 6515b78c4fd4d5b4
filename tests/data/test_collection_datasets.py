"""Collections from datasets, in memory and on the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from herrings import DOCUMENTS, QUERIES, as_datasets, labels, write_jsonl
from rrra_hf.data import hub as hub_module
from rrra_hf.data import load_collection
from rrra_hf.data import loading as loading_module


def test_datasets_are_read() -> None:
    collection = load_collection(as_datasets())
    assert collection.document_ids == ["d1", "d2", "d3"]
    assert collection.qrels_by_split == {"train": {"q1": {"d1": 1}, "q2": {"d2": 0}}}


def test_qrels_datasets_by_split_are_read() -> None:
    source = as_datasets()
    source["qrels"] = {"dev": source["qrels"]}
    assert load_collection(source, "dev").query_ids == ["q1"]


def test_bad_row_of_a_dataset_is_named() -> None:
    source = as_datasets() | {"corpus": Dataset.from_list([*DOCUMENTS, DOCUMENTS[0]])}
    with pytest.raises(ValueError, match=r"corpus, row 3: .*'d1'.*corpus, row 0"):
        load_collection(source)


def test_mapping_without_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source must have the keys corpus, .* got \['queries'\]"):
        load_collection({"queries": 3})
    parts = {"corpus": Dataset.from_list(DOCUMENTS), "qrels": Dataset.from_list(DOCUMENTS)}
    with pytest.raises(ValueError, match=r"must have the key queries too; got \['corpus', 'qrels'\]"):
        load_collection(parts)


@pytest.mark.parametrize("names", [("query", "positive"), ("anchor", "positive"), ("query", "document")])
def test_dataset_of_pairs_makes_its_corpus(names: tuple[str, str]) -> None:
    query, document = names
    pairs = Dataset.from_dict(
        {query: ["x", "y", "x"], document: ["A fish.", "A fish.", "A tree."], "other": ["n"] * 3}
    )
    collection = load_collection(pairs)
    assert collection.document_texts == ["A fish.", "A tree."]
    assert labels(collection) == {"x": {"A fish.": 1, "A tree.": 1}, "y": {"A fish.": 1}}


def test_empty_text_in_a_dataset_of_pairs_is_named_or_skipped_once() -> None:
    pairs = Dataset.from_dict({"query": ["x", "y", "z"], "positive": ["A fish.", " ", None]})
    with pytest.raises(ValueError, match=r"row 1: document '36a9e7f1c95b82ff' has no text"):
        load_collection(pairs)
    assert load_collection(pairs, skip_bad=True).skipped == {"empty text": 2}


def test_source_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="got int"):
        load_collection(3)  # type: ignore[arg-type]


def hub_layout(folder: Path) -> Path:
    """A local folder with the layout of retrieval datasets on the Hub: three configurations."""
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
    def offline(name: str) -> None:
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setattr(hub_module, "get_dataset_config_names", offline)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*offline.*ConnectionError: no route"):
        load_collection("nobody/nothing")


def test_python_docs_is_a_source(monkeypatch: pytest.MonkeyPatch, beir: Path) -> None:
    collection = load_collection(beir)
    monkeypatch.setattr(loading_module, "python_docs", lambda cache_dir: collection)
    assert load_collection("python-docs", "test").query_ids == ["q2"]
