"""Reading loses nothing, and invents nothing."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import pytest
import zstandard
from datasets import Dataset

from herrings import HERRING, labels, write_jsonl, write_table
from rrra_hf.data import load_collection

DAMAGED = {"corpus.jsonl.gz": gzip.compress, "corpus.jsonl.zst": zstandard.compress}


def pairs_of(tmp_path: Path) -> Path:
    return write_table(tmp_path / "pairs.csv", [{"query": "x", "document_id": "1"}])


def test_quotes_in_tsv_are_characters(tmp_path: Path) -> None:
    texts = ['"Quoted', 'He said "no"', "plain", '"', "last"]
    lines = [f"{number}\t{text}\n" for number, text in enumerate(texts, 1)]
    (tmp_path / "corpus.tsv").write_text("id\ttext\n" + "".join(lines))
    collection = load_collection(tmp_path / "corpus.tsv", pairs=pairs_of(tmp_path))
    assert collection.document_texts == texts


def test_quotes_around_fields_of_tsv_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "corpus.tsv").write_text('id\ttext\n1\t"A fish."\n')
    collection = load_collection(tmp_path / "corpus.tsv", pairs=pairs_of(tmp_path))
    assert collection.document_texts == ['"A fish."']
    assert "corpus.tsv: fields in 1 lines begin and end with a quote" in caplog.text


def test_lines_that_an_open_quote_takes_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"{number},text\n" for number in range(1002)]
    (tmp_path / "corpus.csv").write_text('id,text\n1,x\n2,x\n3,"open\n' + "".join(lines[4:]))
    with pytest.raises(ValueError, match=r"corpus.csv, line 4: .*it ends in line 1002"):
        load_collection(tmp_path / "corpus.csv", pairs=pairs_of(tmp_path))
    collection = load_collection(tmp_path / "corpus.csv", pairs=pairs_of(tmp_path), skip_bad=True)
    assert (collection.document_ids, collection.skipped) == (["1", "2"], {"malformed line": 999})
    assert "corpus.csv, line 4: " in caplog.text and "999 lines skipped" in caplog.text


def test_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("id,text,text\n1,x,y\n")
    with pytest.raises(ValueError, match=r"corpus.csv, line 1: .*\['text'\] more than once"):
        load_collection(tmp_path / "corpus.csv", pairs=pairs_of(tmp_path))


@pytest.mark.parametrize("identifier", [1.0, True, float("nan"), None, b"1", ["1"]])
@pytest.mark.parametrize("suffix", [".parquet", "dataset"])
def test_ids_are_texts_or_integers(tmp_path: Path, identifier: Any, suffix: str) -> None:
    records = [{"id": identifier, "text": "x"}]
    parts = {
        "queries": Dataset.from_list([{"id": "q", "text": "x"}]),
        "qrels": Dataset.from_list([{"query-id": "q", "corpus-id": "1", "score": 1}]),
    }
    with pytest.raises(ValueError, match=r"row \d: (column 'id' holds|the document has an empty id)"):
        if suffix == "dataset":
            load_collection({"corpus": Dataset.from_list(records), **parts})
        else:
            Dataset.from_list(records).to_parquet(tmp_path / "corpus.parquet")
            load_collection(tmp_path / "corpus.parquet", pairs=pairs_of(tmp_path))


def test_grades_are_no_booleans() -> None:
    parts = {
        "corpus": Dataset.from_list(HERRING),
        "queries": Dataset.from_list([{"id": "q", "text": "x"}]),
        "qrels": Dataset.from_list([{"query-id": "q", "corpus-id": "a", "score": True}]),
    }
    with pytest.raises(ValueError, match="must be an integer, got True"):
        load_collection(parts)


def test_only_the_first_skipped_records_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"id": "1", "text": "x"}, *({"id": f"e{number}", "text": ""} for number in range(20))]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", records)
    with caplog.at_level(logging.WARNING):
        collection = load_collection(corpus, pairs=pairs_of(tmp_path), skip_bad=True)
    assert collection.skipped == {"empty text": 20}
    assert "line 6: document 'e4'" in caplog.text and "'e5'" not in caplog.text


# -------------------------------------------------------------------- labels of pairs


def test_pairs_labelled_zero_are_known_negatives() -> None:
    pairs = [
        {"query": "x", "positive": "A fish.", "label": 1},
        {"query": "x", "positive": "A tree.", "label": 0},
    ]
    collection = load_collection(Dataset.from_list(pairs))
    assert labels(collection) == {"x": {"A fish.": 1, "A tree.": 0}}


@pytest.mark.parametrize("label", [0.7, True, "yes", None])
def test_labels_of_pairs_are_grades(label: Any) -> None:
    pairs = Dataset.from_list([{"query": "x", "positive": "A fish.", "label": label}])
    with pytest.raises(ValueError, match=r"row 0: the grade .* must be an integer"):
        load_collection(pairs)


def test_negatives_of_triplets_are_known_negatives() -> None:
    triplets = [
        {"anchor": "x", "positive": "A fish.", "negative": "A tree."},
        {"anchor": "y", "positive": "A tree.", "negative": "A bush."},
    ]
    collection = load_collection(Dataset.from_list(triplets))
    assert labels(collection) == {"x": {"A fish.": 1, "A tree.": 0}, "y": {"A tree.": 1, "A bush.": 0}}


def test_numbered_negatives_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    triplets = [
        {"anchor": "x", "positive": "A fish.", "negative_1": "A tree.", "negative_2": "A bush."},
        {"anchor": "x", "positive": "A fish.", "negative_1": "Grass.", "negative_2": None},
    ]
    collection = load_collection(Dataset.from_list(triplets))
    assert labels(collection) == {"x": {"A fish.": 1, "A tree.": 0, "A bush.": 0, "Grass.": 0}}


def test_text_that_is_both_positive_and_negative_is_named() -> None:
    triplets = [
        {"anchor": "x", "positive": "A fish.", "negative": "A tree."},
        {"anchor": "x", "positive": "A tree.", "negative": "A bush."},
    ]
    with pytest.raises(ValueError, match=r"row 1: .* have the grade 1 here and 0 before"):
        load_collection(Dataset.from_list(triplets))
    skipped = load_collection(Dataset.from_list(triplets), skip_bad=True)
    assert skipped.skipped == {"contradicting grades": 1}


# -------------------------------------------------------------------- compressed files


@pytest.mark.parametrize("name", DAMAGED)
def test_compressed_files_are_read(tmp_path: Path, name: str) -> None:
    plain = write_jsonl(
        tmp_path / "corpus.jsonl", [{"id": str(row), "text": "é" * 100} for row in range(500)]
    )
    (tmp_path / name).write_bytes(DAMAGED[name](plain.read_bytes()) * 1)
    collection = load_collection(tmp_path / name, pairs=pairs_of(tmp_path))
    assert len(collection.document_ids) == 500


@pytest.mark.parametrize("name", DAMAGED)
def test_parts_of_a_compressed_file_follow_each_other(tmp_path: Path, name: str) -> None:
    parts = (b'{"id": "1", "text": "x"}\n', b'{"id": "2", "text": "y"}\n')
    (tmp_path / name).write_bytes(b"".join(map(DAMAGED[name], parts)))
    assert load_collection(tmp_path / name, pairs=pairs_of(tmp_path)).document_ids == ["1", "2"]


@pytest.mark.parametrize("name", DAMAGED)
def test_compressed_files_that_were_cut_off_are_damaged(tmp_path: Path, name: str) -> None:
    content = DAMAGED[name](b'{"id": "1", "text": "x"}\n' * 100)
    for size in (len(content) // 2, len(content) - 1, 3):
        (tmp_path / name).write_bytes(content[:size])
        with pytest.raises(ValueError, match="is damaged"):
            load_collection(tmp_path / name, pairs=pairs_of(tmp_path), skip_bad=True)


@pytest.mark.parametrize("name", DAMAGED)
def test_compressed_bombs_are_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name]((b" " * 999 + b"\n") * 80_000))
    with pytest.raises(ValueError, match=f"{name} is not meant to be read: it holds more than"):
        load_collection(tmp_path / name, pairs=pairs_of(tmp_path))
