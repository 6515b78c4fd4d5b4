"""Documents that are split: what the passages are, how they are found, changed, saved and measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from forgery import forge
from retrievers import ids, make_collection, vocabulary_encoder
from rrra_hf import Retriever
from rrra_hf.data import Collection
from rrra_hf.retrieval import evaluate
from rrra_hf.retrieval.documents import document_table
from rrra_hf.retrieval.passages import are_passages_of, rank_documents, split_documents

pytest.importorskip("semantic_text_splitter")

LONG = {
    "tools": {
        "title": "Tools",
        "text": "Copy a file to a folder. List the files of it.\n\nSort the list of names.",
        "metadata": {"year": 2020},
    },
    "short": "sort sort",
}


@pytest.fixture
def retriever() -> Retriever:
    return Retriever(vocabulary_encoder()).index(LONG, split=6)


# -------------------------------------------------------------------- splitting


def test_passages_end_with_sentences_and_paragraphs_and_know_their_place() -> None:
    rows = split_documents(document_table(LONG), vocabulary_encoder(), 6).to_pylist()
    assert [(row["id"], row["document_id"], row["start"], row["text"]) for row in rows] == [
        ("tools#0", "tools", 0, "Copy a file to a folder."),
        ("tools#1", "tools", 25, "List the files of it."),
        ("tools#2", "tools", 48, "Sort the list of names."),
        ("short#0", "short", 0, "sort sort"),
    ]
    assert [row["title"] for row in rows] == ["Tools", "Tools", "Tools", ""]
    assert [row["metadata"] for row in rows] == ['{"year":2020}'] * 3 + [""]


def test_the_encoders_own_tokens_are_counted(encoder: SentenceTransformer) -> None:
    tokenizer = encoder.tokenizer
    text = " ".join(["unbelievable", "files"] * 40)
    rows = split_documents(document_table({"d": text}), encoder, 7).to_pylist()
    assert len(rows) > 1
    assert all(len(tokenizer.tokenize(row["text"])) <= 7 for row in rows)
    before = tokenizer(text, truncation=True, max_length=5)["input_ids"]
    split_documents(document_table({"d": text}), encoder, 7)
    assert tokenizer(text, truncation=True, max_length=5)["input_ids"] == before


texts = st.text(st.sampled_from("ab é😀中\n.#\x00 "), min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text(st.sampled_from("a#01"), min_size=1, max_size=4), texts, min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_passages_are_all_of_a_document_but_white_space(documents: dict[str, str], split: int) -> None:
    table = document_table(documents)
    passages = split_documents(table, vocabulary_encoder(), split)
    names = passages["id"].to_pylist()
    # Also of ids that look like those of passages.
    assert len(set(names)) == len(names)
    for row in passages.to_pylist():
        text = documents[row["document_id"]]
        assert text[row["start"] : row["start"] + len(row["text"])] == row["text"]
    for name, text in documents.items():
        of_it = [row["text"] for row in passages.to_pylist() if row["document_id"] == name]
        assert "".join("".join(of_it).split()) == "".join(text.split())
    assert are_passages_of(passages, table)
    assert not are_passages_of(passages.slice(0, len(names) - 1), table) or len(names) > len(documents)


def test_a_document_without_text_is_one_passage() -> None:
    rows = split_documents(document_table({"d": {"title": "Copy"}}), vocabulary_encoder(), 3).to_pylist()
    assert [(row["id"], row["title"], row["text"], row["start"]) for row in rows] == [("d#0", "Copy", "", 0)]


def test_illegal_lengths_are_refused(encoder: SentenceTransformer) -> None:
    longest = encoder.max_seq_length
    with pytest.raises(ValueError, match="split must be at least 1, got 0"):
        Retriever(encoder).index(LONG, split=0)
    with pytest.raises(ValueError, match=rf"split must be at most {longest}, .* got {longest + 1}"):
        Retriever(encoder).index(LONG, split=longest + 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(ImportError, match=r"pip install 'rrra-hf\[split\]'"):
        Retriever(vocabulary_encoder()).index(LONG, split=6)


# -------------------------------------------------------------------- searching


def test_hits_name_the_passage_and_its_document(retriever: Retriever) -> None:
    hit = retriever.search("sort the list", rerank=False, return_documents=True)[0][0]
    assert hit["corpus_id"] == "tools#2" and hit["document_id"] == "tools"
    assert LONG["tools"]["text"][hit["start"] :] == hit["text"] == "Sort the list of names."
    assert (hit["title"], hit["metadata"]) == ("Tools", {"year": 2020})
    assert retriever.document("tools#2") == {
        "id": "tools#2",
        "title": "Tools",
        "text": "Sort the list of names.",
        "document_id": "tools",
        "start": 48,
        "metadata": {"year": 2020},
    }
    assert "start" not in Retriever(vocabulary_encoder()).index(LONG).search("sort")[0][0]
    found = retriever.search("sort", filter={"year": {"$gte": 2020}})[0]
    assert {hit["document_id"] for hit in found} == {"tools"} and len(found) == 3


def test_documents_are_added_replaced_and_deleted_whole(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path)
    retriever = Retriever.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="1 are indexed, the first is 'tools'"):
        retriever.add({"tools": "sort"})
    retriever.add({"new": "Copy a file to a folder. Copy it."}).update({"tools": "list " * 8, "a#0": "x"})
    names = ["short#0", "new#0", "new#1", "tools#0", "tools#1", "a#0#0"]
    assert retriever.documents["id"].to_pylist() == names
    # Ids of passages are none of documents.
    assert retriever.delete(["tools#0", "new", "unknown"]) == 1
    expected = {"short": LONG["short"], "tools": "list " * 8, "a#0": "x"}
    anew = Retriever(vocabulary_encoder()).index(expected, split=6)
    assert retriever.search("sort a list") == anew.search("sort a list")
    retriever.save_pretrained(tmp_path)
    assert Retriever.from_pretrained(tmp_path).search("sort a list") == anew.search("sort a list")


def test_a_saved_retriever_is_checked(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path)
    meta = tmp_path / "index/meta.json"
    for value in (0, "6", 2.5, True, [6]):
        forge(meta, split=value)
        with pytest.raises(ValueError, match=r"meta\.json is damaged: split must be null or at least 1"):
            Retriever.from_pretrained(tmp_path)
    forge(meta, split=6)
    path = tmp_path / "index/documents.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, "start", [[-1, 0, 0, 0]]), path)
    with pytest.raises(ValueError, match=r"documents\.parquet is damaged: a passage starts before"):
        Retriever.from_pretrained(tmp_path)
    pq.write_table(table.drop_columns(["document_id"]), path)
    with pytest.raises(ValueError, match=r"documents\.parquet is damaged: its column 'document_id'"):
        Retriever.from_pretrained(tmp_path)


# -------------------------------------------------------------------- measuring


def long_collection() -> Collection:
    corpus = {
        "id": ["a", "b", "c", "d"],
        "title": ["", "", "", "List"],
        "text": ["copy file. list list list list.", "copy list.", "copy sort. copy sort.", "list"],
    }
    return make_collection(corpus=Dataset.from_dict(corpus))


def test_documents_are_measured_by_their_best_passages() -> None:
    collection = long_collection()
    retriever = Retriever(vocabulary_encoder(), adapter=None).index(collection, split=2)
    assert ids(retriever.search("copy file")[0])[0] == "a#0"
    # Relevant to "copy file" is c, behind a, and b, which is as near. Relevant to "list" is d, behind two
    # passages of a, which are as near.
    found = evaluate(retriever, collection, ["nDCG@10", "R@4", "MRR@10"]).quality["encoder"]
    assert found.per_query["R@4"].tolist() == [1.0, 1.0]
    assert found.per_query["MRR@10"].tolist() == [1 / 3, 1 / 2]


def test_a_retriever_of_other_documents_is_refused() -> None:
    collection = long_collection()
    retriever = Retriever(vocabulary_encoder()).index(collection, split=2)
    evaluate(retriever, collection)
    for changed in ({"a": "copy"}, {"new": "copy"}):
        other = Retriever(vocabulary_encoder()).index(collection, split=2).update(changed)
        with pytest.raises(ValueError, match="index is of another corpus"):
            evaluate(other, collection)
    retriever.delete(["b"])
    with pytest.raises(ValueError, match="index is of another corpus"):
        evaluate(retriever, collection)


def test_a_document_is_ranked_once_by_its_best_passage() -> None:
    passages = np.array([[4, 0, 3, 1, 2], [2, -1, -1, -1, -1]])
    ranked = rank_documents(passages, np.array([0, 0, 1, 2, 2]))
    assert ranked.tolist() == [[2, 0, 1, -1, -1], [1, -1, -1, -1, -1]]
