"""The word index computes BM25, finds what brute force finds, and opens as it was saved."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from forgery import forge
from rrra_hf.indexes import WordIndex
from rrra_hf.indexes.word_counts import word_hash

TEXTS = ["apple banana apple", "banana cherry", "", "date"]


def fruit() -> WordIndex:
    return WordIndex.of(TEXTS, language="none")


def random_texts(count: int, words: int, seed: int, length: int = 12) -> list[str]:
    """Return texts of numbers, small ones most often."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(map(str, (words * rng.random(rng.integers(0, length)) ** 3).astype(int)))
        for _ in range(count)
    ]


def check_search(index: WordIndex, queries: csr_array, k: int) -> None:
    """Check that `search` finds what sorting all scores finds, padded, with ties by row."""
    found, found_rows = index.search(queries, k)
    assert found.shape == found_rows.shape == (queries.shape[0], k)
    present = csr_array((np.ones(queries.nnz), queries.indices, queries.indptr), shape=queries.shape)
    for dense, scores, rows in zip((present @ index.documents.T).toarray(), found, found_rows, strict=True):
        count = min(k, np.count_nonzero(dense))
        assert_allclose(scores[:count], np.sort(dense)[::-1][:count], rtol=1e-5)
        assert_allclose(scores[:count], dense[rows[:count]], rtol=1e-5)
        assert np.isneginf(scores[count:]).all() and (rows[count:] == -1).all()
        assert len(np.unique(rows[:count])) == count
        assert (np.diff(rows[:count])[np.diff(scores[:count]) == 0] > 0).all()


def same(first: WordIndex, second: WordIndex) -> None:
    assert first.language == second.language
    for name in ("vocabulary", "idf", "lengths"):
        assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(first.documents, name), getattr(second.documents, name))


# -------------------------------------------------------------------- what is computed


def test_weights_are_those_of_bm25() -> None:
    index = fruit()
    place = {
        word: int(np.searchsorted(index.vocabulary, word_hash(word))) for word in ("apple", "banana", "date")
    }
    assert_array_equal(index.lengths, [3, 2, 0, 1])
    assert_array_equal(
        index.vocabulary, np.sort([word_hash(w) for w in ("apple", "banana", "cherry", "date")])
    )
    # Of 4 documents, apple is in 1, banana in 2. Documents have 1.5 words on average.
    apple, banana = np.log(1 + 3.5 / 1.5), np.log(1 + 2.5 / 2.5)
    assert_allclose(index.idf[[place["apple"], place["banana"]]], [apple, banana], rtol=1e-6)
    weights = index.documents.toarray()
    norm = 1.2 * (0.25 + 0.75 * 3 / 1.5)
    assert_allclose(weights[0, place["apple"]], apple * 2 * 2.2 / (2 + norm), rtol=1e-6)
    assert_allclose(weights[0, place["banana"]], banana * 2.2 / (1 + norm), rtol=1e-6)
    assert_allclose(weights[3, place["date"]], apple * 2.2 / (1 + 1.2 * (0.25 + 0.75 / 1.5)), rtol=1e-6)
    assert weights[2].sum() == 0
    scores, rows = index.search(index.count(["apple banana"]), k=3)
    assert_array_equal(rows, [[0, 1, -1]])
    expected = apple * 2 * 2.2 / (2 + norm) + banana * 2.2 / (1 + norm)
    assert_allclose(scores[0, 0], expected, rtol=1e-6)
    assert np.isneginf(scores[0, 2])


def test_types_are_as_promised() -> None:
    index = fruit()
    assert len(index) == 4
    assert (index.vocabulary.dtype, index.idf.dtype, index.lengths.dtype) == (
        np.int64,
        np.float32,
        np.float32,
    )
    assert (index.documents.dtype, index.documents.shape) == (np.float32, (4, 4))
    assert index.documents.has_canonical_format
    scores, rows = index.search(index.count(["apple", "nothing"]), k=2)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    assert scores.shape == rows.shape == (2, 2)


def test_hashes_are_the_same_everywhere() -> None:
    assert word_hash("apple") == -2328654269316264298
    assert word_hash("東京") == -1140702830356262418


def test_words_that_the_corpus_lacks_are_not_counted() -> None:
    index = fruit()
    counts = index.count(["banana elderberry Banana apple", "elderberry", ""])
    assert counts.dtype == np.float32 and counts.shape == (3, 4)
    assert counts.has_canonical_format
    assert counts.sum(axis=1).tolist() == [3, 0, 0]
    assert sorted(counts.data.tolist()) == [1, 2]
    assert index.count([]).shape == (0, 4)


def test_each_word_of_a_query_counts_once() -> None:
    index = fruit()
    once, often = (
        index.count(["banana cherry", "cherry banana banana banana"])[[0]],
        index.count(["banana " * 5 + "cherry"]),
    )
    for a, b in zip(index.search(once, 4), index.search(often, 4), strict=True):
        assert_array_equal(a, b)


def test_the_counts_of_documents_are_their_lengths() -> None:
    texts = random_texts(200, 50, seed=0)
    index = WordIndex.of(texts, language="none")
    assert_array_equal(index.count(texts).sum(axis=1), index.lengths)
    assert_array_equal(index.lengths, [len(text.split()) for text in texts])


@given(
    m=st.integers(0, 60),
    words=st.integers(1, 40),
    k=st.integers(1, 80),
    seed=st.integers(0, 999),
)
def test_search_finds_what_brute_force_finds(m: int, words: int, k: int, seed: int) -> None:
    index = WordIndex.of(random_texts(m, words, seed), language="none")
    check_search(index, index.count(random_texts(5, words + 5, seed + 1)), k)


@pytest.mark.parametrize("k", [1, 10, 700])
def test_search_is_exact_where_only_a_sample_of_scores_is_looked_at(k: int) -> None:
    index = WordIndex.of(random_texts(20_000, 300, seed=1), language="none")
    check_search(index, index.count(random_texts(20, 300, seed=2, length=9)), k)


def test_of_equal_documents_the_first_ones_are_found() -> None:
    index = WordIndex.of(["tea", "a cup of tea with milk", "tea"] * 3000, language="english")
    scores, rows = index.search(index.count(["tea"]), k=1500)
    is_short = np.arange(9000) % 3 != 1
    assert_array_equal(rows[0], np.flatnonzero(is_short)[:1500])
    assert len(np.unique(scores)) == 1


def test_a_query_of_stop_words_finds_nothing() -> None:
    index = WordIndex.of(["The cat and the dog are here.", "What is it?"])
    assert index.language == "english"
    scores, rows = index.search(index.count(["What is it?", "the dogs"]), k=1)
    assert rows.tolist() == [[-1], [0]]
    assert np.isneginf(scores[0, 0])


@pytest.mark.parametrize("texts", [[], [""], ["the", "of"]])
def test_a_corpus_may_have_no_words(texts: list[str], tmp_path: Path) -> None:
    index = WordIndex.of(texts, language="english")
    index.save(tmp_path / "words")
    for each in (index, WordIndex.load(tmp_path / "words")):
        assert len(each) == len(texts) and each.documents.shape == (len(texts), 0)
        assert each.search(each.count(["cat"]), k=2)[1].tolist() == [[-1, -1]]


@pytest.mark.parametrize(
    ("documents", "query"),
    [
        (["Die Häuser der Stadt sind im Tal.", "Ein Hund und die Katze"], "Haus"),
        (["Новые книги в библиотеке и в магазине", "Он и она были в доме"], "книга"),
        (["मुझे यह किताबें पसंद हैं और वह भी", "वह घर में है"], "किताब"),
        (["人人生而自由，在尊严和权利上一律平等。", "东京是日本的首都。"], "权利"),
        (["東京都でラーメンを食べた。", "大阪に行きました。"], "ラーメン"),
        (["ผมชอบกินข้าวผัด", "วันนี้ฝนตกหนัก"], "ข้าว"),
        (["def read_csv(path): return parse(path)", "def write_json(path): pass"], "how to read CSV"),
    ],
)
def test_words_are_found_in_many_languages(documents: list[str], query: str) -> None:
    index = WordIndex.of(documents)
    assert index.search(index.count([query]), k=2)[1].tolist() == [[0, -1]]


def test_threads_find_the_same() -> None:
    index = WordIndex.of(random_texts(2000, 200, seed=3), language="english")
    texts = random_texts(200, 220, seed=4)
    expected = index.search(index.count(texts), 10)
    fresh = WordIndex.of(random_texts(2000, 200, seed=3), language="english")

    def one(text: str) -> tuple[np.ndarray, np.ndarray]:
        return fresh.search(fresh.count([text]), 10)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(one, texts))
    for part, whole in zip(zip(*found, strict=True), expected, strict=True):
        assert_array_equal(np.concatenate(part), whole)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"language must be one of auto, .*english.*none; got 'klingon'\."):
        WordIndex.of(TEXTS, language="klingon")
    index = fruit()
    with pytest.raises(ValueError, match=r"queries must have 4 columns, got 3\."):
        index.search(csr_array((1, 3), dtype=np.float32), k=1)
    with pytest.raises(ValueError, match=r"k must be at least 1, got 0\."):
        index.search(index.count(["apple"]), k=0)


# -------------------------------------------------------------------- on disk


def test_an_index_opens_as_it_was_saved(tmp_path: Path) -> None:
    texts = random_texts(500, 100, seed=5)
    index = WordIndex.of(texts)
    index.save(tmp_path / "words")
    loaded = WordIndex.load(tmp_path / "words")
    same(index, loaded)
    queries = index.count(random_texts(50, 110, seed=6))
    assert_array_equal(queries.toarray(), loaded.count(random_texts(50, 110, seed=6)).toarray())
    for a, b in zip(index.search(queries, 20), loaded.search(queries, 20), strict=True):
        assert_array_equal(a, b)


def test_what_is_opened_stays_on_disk(tmp_path: Path) -> None:
    fruit().save(tmp_path / "words")
    loaded = WordIndex.load(tmp_path / "words")
    for array in (loaded.vocabulary, loaded.idf, loaded.documents.data, loaded.documents.indices):
        assert not array.flags.writeable and not array.flags.owndata


def test_an_index_replaces_another_even_the_one_it_is_read_from(tmp_path: Path) -> None:
    path = tmp_path / "words"
    WordIndex.of(["other"]).save(path)
    fruit().save(path)
    WordIndex.load(path).save(path)
    same(WordIndex.load(path), fruit())
    assert [entry.name for entry in tmp_path.iterdir()] == ["words"]


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files \(thesis\.txt\)"):
        fruit().save(tmp_path)


FILES = [
    "document_ends",
    "document_weights",
    "document_words",
    "idf",
    "lengths",
    "vocabulary",
    "word_documents",
    "word_ends",
    "word_weights",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", ["missing", "cut", "emptied", "of another length", "of another type", "a pickle"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    fruit().save(tmp_path / "words")
    file = tmp_path / "words" / f"{name}.npy"
    array = np.load(file)
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "of another length":
        np.save(file, array[:-1])
    elif damage == "of another type":
        np.save(file, array.astype(np.float64))
    else:
        np.save(file, array.astype(object), allow_pickle=True)
    with pytest.raises(ValueError, match=f"{name}.npy"):
        WordIndex.load(tmp_path / "words")


FORGED = {
    "a word that is none": ("document_words", 0, 99, "ascend"),
    "a negative word": ("document_words", 0, -1, "ascend"),
    "a word twice": ("document_words", 1, 0, "ascend"),
    "a document that is none": ("word_documents", 0, 2**30, "ascend"),
    "a negative document": ("word_documents", -1, -(2**31), "ascend"),
    "no number": ("document_weights", 0, np.nan, "finite and not negative"),
    "an endless weight": ("word_weights", 0, np.inf, "finite and not negative"),
    "a negative frequency": ("idf", 0, -1, "finite and not negative"),
    "a document without a length": ("lengths", 0, np.nan, "finite and not negative"),
    "a vocabulary in disorder": ("vocabulary", 0, 2**62, "ascend"),
}


@pytest.mark.parametrize(("name", "place", "value", "reason"), FORGED.values(), ids=FORGED)
def test_values_that_no_corpus_has_are_refused(
    tmp_path: Path, name: str, place: int, value: float, reason: str
) -> None:
    fruit().save(tmp_path / "words")
    file = tmp_path / "words" / f"{name}.npy"
    values = np.load(file)
    values[place] = value
    np.save(file, values)
    with pytest.raises(ValueError, match=rf"{name}\.npy is damaged: it isn't the file that was saved"):
        WordIndex.load(tmp_path / "words")
    forge(tmp_path / "words" / "words.json")
    with pytest.raises(ValueError, match=rf"{name}\.npy is damaged: its values must .*{reason}"):
        WordIndex.load(tmp_path / "words")


@pytest.mark.parametrize("name", ["document_ends", "word_ends"])
@pytest.mark.parametrize(("place", "value"), [(0, 1), (-1, 99), (1, -5), (1, 99)])
def test_ends_that_would_be_outside_are_refused(tmp_path: Path, name: str, place: int, value: int) -> None:
    fruit().save(tmp_path / "words")
    file = tmp_path / "words" / f"{name}.npy"
    ends = np.load(file)
    ends[place] = value
    np.save(file, ends)
    forge(tmp_path / "words" / "words.json")
    with pytest.raises(ValueError, match=rf"{name}\.npy is damaged: its values must ascend from 0 to 5\."):
        WordIndex.load(tmp_path / "words")


def test_any_damage_to_a_header_is_reported(tmp_path: Path) -> None:
    fruit().save(tmp_path / "words")
    forge(tmp_path / "words" / "words.json")
    file = tmp_path / "words" / "idf.npy"
    whole = file.read_bytes()
    for place in range(80):
        for value in b"(',0\xff":
            file.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                loaded = WordIndex.load(tmp_path / "words")
            except ValueError as error:
                assert "idf.npy" in str(error)
            else:
                assert loaded.idf.shape == (4,)


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words"
    fruit().save(path)
    forge(path / "words.json", words=8)
    file = path / "word_ends.npy"
    file.write_bytes(file.read_bytes().replace(b"(5,)", b"(9,)"))
    with pytest.raises(ValueError, match=r"word_ends\.npy is missing or damaged"):
        WordIndex.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"language": "klingon"},
        {"words": -1},
        {"documents": 2.5},
        {"entries": "5"},
        {"format_version": 2},
        {"documents": None},
    ],
)
def test_damaged_metadata_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "words"
    fruit().save(path)
    meta = json.loads((path / "words.json").read_text())
    (path / "words.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises(ValueError, match=r"words\.json is (missing or )?damaged"):
        WordIndex.load(path)


@pytest.mark.parametrize("size", ["documents", "words", "entries"])
def test_metadata_that_contradict_the_files_are_refused(tmp_path: Path, size: str) -> None:
    path = tmp_path / "words"
    fruit().save(path)
    meta = json.loads((path / "words.json").read_text())
    (path / "words.json").write_text(json.dumps({**meta, size: 10**12}))
    with pytest.raises(ValueError, match=r"\.npy must hold|\.npy is damaged"):
        WordIndex.load(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing/words\.json is missing"):
        WordIndex.load(tmp_path / "nothing")
