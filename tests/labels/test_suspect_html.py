"""Shared words are marked, and nothing that a text holds becomes HTML."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrra_hf.indexes import WordIndex
from rrra_hf.labels.review.pair_texts import Suspect
from rrra_hf.labels.review.shared_words import mark_shared, stems
from rrra_hf.labels.review.suspect_html import LABELLED, LENGTH, suspect_html

HOSTILE = "<script>alert(1)</script><mark>&amp; \" ' </p></article> \u202e ${x} {{y}}"


def marked(query: str, text: str, language: str) -> list[str]:
    return re.findall("<mark>(.*?)</mark>", mark_shared(text, stems(query, language), language))


@pytest.mark.parametrize(
    ("query", "text", "language", "expected"),
    [
        ("the horses", "The HORSE, the horsefly; horse's", "english", ["HORSE", "horse"]),
        ("set up", "call setUp() or SET_UP", "english", ["setUp", "SET_UP"]),
        ("Straße", "strasse STRASSE", "none", ["strasse", "STRASSE"]),
        ("東京都", "京都は東京の西", "none", ["京都", "東京"]),
        ("猫", "猫 と 犬", "none", ["猫"]),
        ("ｆｕｌｌ", "full ｆｕｌｌ", "none", ["full", "ｆｕｌｌ"]),
        ("the of", "the of", "english", []),
    ],
)
def test_shared_words_are_marked(query: str, text: str, language: str, expected: list[str]) -> None:
    assert marked(query, text, language) == expected


texts = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from(["<b>", "horse", "&", "東京都", "é", "_"])).map("".join)
)


@given(texts, texts)
def test_marking_changes_no_text_and_adds_no_other_element(query: str, text: str) -> None:
    html = mark_shared(text, stems(query, "none"), "none")
    plain = html.replace("<mark>", "").replace("</mark>", "")
    assert unescape(plain) == text and not set("<>\"'") & set(plain)


@given(
    st.lists(st.sampled_from(["horses", "horse", "barks", "bark", "the", "setUp", "up"]), min_size=1),
    st.data(),
)
def test_words_are_marked_where_the_index_finds_them(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    query = data.draw(st.sampled_from(["horse", "barking", "set", "the", "cat"]))
    index = WordIndex.of([text, "barking cat set"], language="english")
    shared = index.count([query]).multiply(index.count([text])).nnz > 0
    assert bool(marked(query, text, "english")) == shared


def test_a_suspect_shows_everything_as_text() -> None:
    html = suspect_html(Suspect("q", "d", HOSTILE, HOSTILE, [HOSTILE] * 5, 0.666), "english")
    elements = set(re.findall("<([a-z0-9]+)", html))
    assert elements == {"article", "h2", "div", "section", "h3", "span", "p", "mark"}
    assert "67%" in html and f"and {5 - LABELLED} more" in html
    assert html.count('dir="auto"') == 2 + LABELLED


def test_long_texts_are_cut_and_say_so() -> None:
    html = suspect_html(Suspect("q", "d", "query", "x" * (LENGTH + 1234), [], 0.5), "english")
    assert "x" * LENGTH in html and "x" * (LENGTH + 1) not in html
    assert "… and 1,234 characters more" in html and ">nothing<" in html
