"""A word index is built once for the same texts, and again when what is in the cache can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from rrra_hf.indexes import WordIndex, index_words
from rrra_hf.indexes.tokenize import runs_of, stems_of
from rrra_hf.indexes.word_cache import VERSION

TEXTS = ["apple banana apple", "banana cherry", "", "date"]


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_second_index_is_the_first(tmp_path: Path) -> None:
    built = index_words(TEXTS, tmp_path)
    before = files(tmp_path)
    opened = index_words(TEXTS, tmp_path)
    assert before == files(tmp_path)
    plain = WordIndex.of(TEXTS)
    for index in (built, opened):
        for name in ("vocabulary", "idf", "lengths"):
            assert_array_equal(getattr(index, name), getattr(plain, name))
        assert_array_equal(
            index.search(index.count(["apple date"]), 3), plain.search(plain.count(["apple date"]), 3)
        )


def test_other_texts_have_another_index(tmp_path: Path) -> None:
    index_words(TEXTS, tmp_path)
    assert len(index_words([*TEXTS, "elder"], tmp_path)) == 5
    assert len(index_words(TEXTS[::-1], tmp_path)) == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_index_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index_words(TEXTS, tmp_path)
    (path,) = tmp_path.glob("words-*/index/idf.npy")
    path.write_bytes(path.read_bytes()[:-1])
    left_by_a_killed_process = path.parent.with_name(".index.0123abcd.tmp")
    left_by_a_killed_process.mkdir()
    assert_array_equal(index_words(TEXTS, tmp_path).idf, WordIndex.of(TEXTS).idf)
    assert "damaged" in caplog.text
    assert not left_by_a_killed_process.exists()
    caplog.clear()
    index_words(TEXTS, tmp_path)
    assert not caplog.records


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index_words(TEXTS)
    assert not list(tmp_path.iterdir())


def test_the_version_goes_with_the_words() -> None:
    """If this fails because words are read differently now, raise `VERSION`, and write both down here."""
    words = [
        stem for run in runs_of("Running HTTPServer2's don't; 東京都") for stem in stems_of(run, "english")
    ]
    assert (VERSION, words) == (1, ["run", "httpserver2", "http", "server", "2", "東京", "京都"])


def test_what_a_killed_process_left_beside_a_finished_index_is_removed(tmp_path: Path) -> None:
    index_words(TEXTS, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / ".index.0123abcd.old.tmp").mkdir()
    (folder / "index.lock").touch()
    index_words(TEXTS, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["index"]
