"""Texts are split into words as their language writes them, and their language is found by stop words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrra_hf.indexes.language import language_of
from rrra_hf.indexes.stop_lists import LANGUAGES, LISTED, stop_words
from rrra_hf.indexes.tokenize import folded_stop_words, is_unspaced, runs_of, stems_of, words_of

# The first article of the Universal Declaration of Human Rights.
ARTICLE = {
    "arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن "
    "يعامل بعضهم بعضًا بروح الإخاء.",
    "danish": "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med "
    "fornuft og samvittighed, og de bør handle mod hverandre i en broderskabets ånd.",
    "english": "All human beings are born free and equal in dignity and rights. They are endowed with "
    "reason and conscience and should act towards one another in a spirit of brotherhood.",
    "french": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
    "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "german": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
    "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "portuguese": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de "
    "razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены "
    "разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como "
    "están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "none": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
}


def words(text: str) -> list[str]:
    return [word for run in runs_of(text) for word in words_of(run)]


def stems(text: str, language: str) -> list[str]:
    return [stem for run in runs_of(text) for stem in stems_of(run, language)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5%, don't", ["it", "s", "3", "5", "don", "t"]),
        ("Straße CAFÉ cafe\u0301", ["strasse", "café", "café"]),
        ("ＡＢＣ ﬁle", ["abc", "file"]),
        ("Dampf\u00adschiff", ["dampfschiff"]),
        ("", []),
        (" _ -- … \u200d", []),
    ],
)
def test_words_are_runs_of_letters_and_digits(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("snake_case", ["snake_case", "snake", "case"]),
        ("camelCase", ["camelcase", "camel", "case"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("__init__", ["init"]),
        ("MAX_SIZE", ["max_size", "max", "size"]),
        ("Title", ["title"]),
        ("NASA", ["nasa"]),
    ],
)
def test_identifiers_are_words_and_so_are_their_parts(identifier: str, expected: list[str]) -> None:
    assert words(identifier) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में लिखना।", ["हिन्दी", "में", "लिखना"]),
        ("क\u094d\u200dष", ["क\u094dष"]),
        ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),
        ("Ẹ\u0300kọ\u0301", ["ẹ\u0300kọ\u0301"]),
        ("한국어 문서", ["한국어", "문서"]),
    ],
)
def test_marks_are_inside_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("人人生而自由。", ["人人", "人生", "生而", "而自", "自由"]),
        ("東京でラーメン", ["東京", "京で", "でラ", "ラー", "ーメ", "メン"]),
        ("ｶﾞｲﾄﾞ", ["ガイ", "イド"]),
        ("我", ["我"]),
        ("iPhoneを買う", ["iphone", "i", "phone", "を買", "買う"]),
        # A vowel sign stays with its consonant.
        ("ภาษาที่", ["ภา", "าษ", "ษา", "าที่"]),
        ("မြန်မာ။", ["မြန်", "န်မာ"]),
    ],
)
def test_scripts_without_spaces_are_split_into_pairs_of_characters(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_stems_are_those_of_the_language() -> None:
    assert stems("The horses were running", "english") == ["hors", "run"]
    assert stems("Die Häuser und das Haus", "german") == ["haus", "haus"]
    assert stems("книги и книга", "russian") == ["книг", "книг"]
    assert stems("किताबें और किताब", "hindi") == ["किताब", "किताब"]
    assert stems("الكِتاب", "arabic") == stems("كتاب", "arabic") == ["كتاب"]
    assert stems("The horses", "none") == ["the", "horses"]
    # Pairs of characters are what they are.
    assert stems("自由", "english") == ["自由"]


def test_words_of_questions_are_stop_words() -> None:
    question = "what which who how when where why do does did can could i you my we our"
    assert stems(question, "english") == []
    assert stems("Don't", "english") == stems("c'est", "french") == []


def test_every_listed_language_has_stop_words_and_stems() -> None:
    assert set(LISTED) < set(LANGUAGES)
    for language in LISTED:
        assert len(stop_words(language)) > 90
        assert len(folded_stop_words(language)) > 80
    for language in LANGUAGES:
        assert stems_of("1234", language) == ["1234"]
    assert stop_words("none") == stop_words("tamil") == ()


@pytest.mark.parametrize("language", ARTICLE)
def test_the_language_is_found(language: str) -> None:
    assert language_of([ARTICLE[language]]) == language


def test_code_with_english_comments_is_english() -> None:
    code = '''
    def write_boolean(self, n):
        """Writes a Boolean to the stream, if there is one."""
        t = TYPE_BOOL_TRUE
        self.stream.write(t)
    '''
    assert language_of([code]) == "english"


@pytest.mark.parametrize("texts", [[], [""], ["x = 1", "ls -la"], ["人人生而自由"], ["12 13 14"]])
def test_texts_may_have_no_language(texts: list[str]) -> None:
    assert language_of(texts) == "none"


def test_the_language_is_that_of_texts_all_over_the_corpus() -> None:
    corpus = [ARTICLE["french"]] * 100 + [ARTICLE["english"]] * 3900
    assert language_of(corpus) == "english"


@given(st.text(max_size=30))
def test_any_text_has_words_that_are_their_own_words(text: str) -> None:
    for run in runs_of(text):
        for word in words_of(run):
            assert word
            assert word == word.casefold() or is_unspaced(run)
