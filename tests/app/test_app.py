"""The page in a real browser: rankings, probabilities, and escaping of documents."""

from __future__ import annotations

import os
import re
import runpy
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
import pyarrow as pa
import pytest
import yaml
from packaging.version import Version
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from sentence_transformers import SentenceTransformer

from browsing import wait_for
from command_line import rrra
from forked import WAIT
from retriever_models import CORPUS, QUERY, make_adapter, make_retriever
from rrra_hf.app import Comparison, PlacedHit, compare, create_demo
from rrra_hf.app.blocks import WITH_ADAPTER
from rrra_hf.app.examples import MAX_LENGTH, phrases, questions
from rrra_hf.app.page import EXCERPT_LENGTH, NO_ADAPTER, comparison_html
from rrra_hf.data import load_collection
from rrra_hf.retrieval import Retriever
from tiny import word_collection

SPACE = Path(__file__).parents[2] / "examples" / "space"
# Code that would run if it were treated as HTML, or as JavaScript or Handlebars in Gradio's templates.
HOSTILE = (
    "<script>window.harmed = 1</script><img src='x' onerror='window.harmed = 2'>"
    "${window.harmed = 3} {{value}} </p></li> files"
)
DOCUMENTS = {**CORPUS, "hostile": {"title": "<b onclick='harm()'>files</b>", "text": HOSTILE}}


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return make_retriever(tiny_bert).index(DOCUMENTS)


@pytest.fixture(scope="module")
def plain(tiny_bert: Path) -> Retriever:
    return Retriever.from_pretrained(tiny_bert, adapter=None, device="cpu").index(CORPUS)


# -------------------------------------------------------------------- rankings


def test_documents_in_milvus_are_ranked_alike(tiny_bert: Path, plain: Retriever, tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    retriever = Retriever.from_pretrained(tiny_bert, adapter=None, device="cpu")
    retriever.index(CORPUS, kind="milvus", uri=tmp_path / "documents.db", index_type="FLAT")
    found, expected = (compare(each, QUERY, top_k=3).encoder for each in (retriever, plain))
    assert [hit.text for hit in found] == [hit.text for hit in expected]
    assert "6 documents" in str(create_demo(retriever).config)
    retriever.corpus.stored.close()


def test_both_rankings_are_those_of_the_retriever(retriever: Retriever) -> None:
    found = compare(retriever, QUERY, top_k=4)
    assert found.reranked is not None
    ids = {document["text"]: document["id"] for document in retriever.documents.to_pylist()}
    for ranking, rerank in ((found.encoder, False), (found.reranked, True)):
        hits = retriever.search(QUERY, top_k=4, rerank=rerank, probabilities=True)[0]
        assert [(ids[hit.text], hit.probability) for hit in ranking] == [
            (hit["corpus_id"], pytest.approx(hit["probability"], abs=1e-6)) for hit in hits
        ]
        assert [hit.place for hit in ranking] == [1, 2, 3, 4]
    assert [hit.place_before for hit in found.encoder] == [1, 2, 3, 4]
    places = {
        hit["corpus_id"]: place for place, hit in enumerate(retriever.search(QUERY, rerank=False)[0], 1)
    }
    assert [hit.place_before for hit in found.reranked] == [places[ids[hit.text]] for hit in found.reranked]
    assert [hit.text for hit in found.reranked] != [hit.text for hit in found.encoder]


def test_a_document_has_one_probability_on_both_sides(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    collection = word_collection(60, train=1)
    retriever = Retriever(encoder).index(collection)
    found = compare(retriever, collection.document_texts[7], top_k=8, depth=12)
    assert found.reranked is not None
    sides = [{hit.text: hit.probability for hit in side} for side in (found.encoder, found.reranked)]
    both = sides[0].keys() & sides[1].keys()
    assert len(both) > 1
    assert {text: sides[0][text] for text in both} == {text: sides[1][text] for text in both}


def test_at_least_the_documents_shown_are_reranked(retriever: Retriever) -> None:
    assert compare(retriever, QUERY, top_k=7, depth=1) == compare(retriever, QUERY, top_k=7, depth=7)


def test_without_an_adapter_there_is_one_ranking_and_a_note(plain: Retriever) -> None:
    found = compare(plain, QUERY, top_k=3)
    assert found.reranked is None
    assert [hit.probability for hit in found.encoder] == [None] * 3
    html = comparison_html(found)
    assert NO_ADAPTER in html and "%</span>" not in html


def test_linear_maps_are_named_as_they_change_both_rankings(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    for maps in ({}, {"query_map": True}, {"document_map": True}):
        mapping = Retriever(encoder, make_adapter(lambda_=0.5, **maps)).index(CORPUS)
        assert ("with the adapter's maps" in comparison_html(compare(mapping, QUERY))) == bool(maps)


@pytest.mark.parametrize(
    ("query", "top_k", "message"),
    [
        (" \n", 3, "The query is empty"),
        ("a" * 2001, 3, "at most 2,000 characters, got 2,001"),
        (QUERY, 0, "top_k must be at least 1, got 0"),
    ],
)
def test_bad_queries_are_refused(retriever: Retriever, query: str, top_k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(retriever, query, top_k)


def test_documents_found_by_words_alone_are_new(tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    corpus = {f"ls{i}": f"list the files {i}" for i in range(20)} | {"tar": "an old archive of lines"}
    retriever = Retriever(encoder).index(corpus)
    (nearest,) = compare(retriever, "list the files in an archive", top_k=1, depth=1).encoder
    assert nearest.text != corpus["tar"]
    found = compare(retriever, "list the files archive", top_k=6, depth=6)
    before = {hit.text: hit.place_before for hit in found.reranked}
    assert len(found.encoder) == len(found.reranked) == 6
    assert before[corpus["tar"]] is None
    assert "new, by words" in comparison_html(found)


def moves(*places_before: int | None) -> list[str]:
    hits = [PlacedHit(place, before, "", "text", 0.5) for place, before in enumerate(places_before, 1)]
    html = comparison_html(Comparison([], hits))
    return re.findall(r'<span class="move.*?>(.*?)</span>', html)


def test_moves_are_told_in_words() -> None:
    assert moves(1, 3, 2) == ["same place", "up 1", "down 1"]
    # The fourth document isn't among the three in the other column.
    assert moves(4, 1, 40) == ["new, up 3", "down 1", "new, up 37"]
    assert moves(None) == ["new, by words"]


def test_documents_are_escaped_and_long_ones_cut() -> None:
    hit = PlacedHit(1, 1, "<title>", HOSTILE + "\n a" * EXCERPT_LENGTH, 0.004)
    html = comparison_html(Comparison([hit], [hit]))
    assert "<script" not in html and "<img" not in html and "<title" not in html
    assert "&lt;title&gt;" in html and "a a …</p>" in html and "0%" in html


def test_a_retriever_without_an_index_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match="no index yet"):
        create_demo(make_retriever(tiny_bert))


def test_what_to_install_is_told_where_gradio_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "rrra_hf.app.blocks")
    with pytest.raises(ImportError, match=r"pip install 'rrra-hf\[app\]'"):
        import_module("rrra_hf.app.blocks")


# -------------------------------------------------------------------- examples


def test_examples_are_short_queries_of_the_collection_spread_evenly() -> None:
    queries = [f"what is number {i}" for i in range(7)]
    assert questions(queries) == [queries[i] for i in (0, 2, 4, 6)]
    assert questions(["too long " * MAX_LENGTH, "short"]) == ["short"]
    assert questions([]) == []


def test_without_queries_examples_are_sentences_and_not_names() -> None:
    sentence = "Return the {} of a table as a list"
    documents = pa.table(
        {
            "title": [f"table.get_{name}" for name in ("rows", "columns", "names")],
            "text": [
                f"get_{name}(x=None) {sentence.format('copy')}.\n\n{sentence.format(name)}. See get_{name}()."
                for name in ("rows", "columns", "names")
            ],
        }
    )
    assert phrases(documents) == [sentence.format(name) for name in ("rows", "columns", "names")]
    assert phrases(documents.slice(0, 0)) == []
    names = pa.table({"title": ["", "b"], "text": ["a_1 = 2", "x"]})
    assert phrases(names) == ["a_1 = 2", "x"]


# -------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def url(retriever: Retriever, serve: Callable[[gr.Blocks], str]) -> str:
    return serve(create_demo(retriever, title="Commands", examples=["sort a text", QUERY]))


def search(browser: Chrome, query: str) -> None:
    """Type a query and press Enter."""
    wait_for(browser, "textarea").send_keys(query, Keys.ENTER)


def column(browser: Chrome, name: str) -> list[tuple[str, str, str]]:
    """Return the visible text, probability and move of each hit in a column."""
    hits = browser.find_elements(By.CSS_SELECTOR, f"section[aria-label='{name}'] .hit")

    def text(hit: Any, selector: str) -> str:
        return " ".join(part.text for part in hit.find_elements(By.CSS_SELECTOR, selector))

    return [(text(hit, "p"), text(hit, ".probability"), text(hit, ".move")) for hit in hits]


@pytest.mark.slow
def test_a_query_shows_both_rankings_with_probabilities_and_moves(
    browser: Chrome, url: str, retriever: Retriever, contacted: list[str]
) -> None:
    browser.set_window_size(1280, 900)
    browser.get(url)
    search(browser, QUERY)
    wait_for(browser, ".rankings")
    found = compare(retriever, QUERY)
    assert found.reranked is not None
    for name, hits in (("Without adapter", found.encoder), ("With adapter", found.reranked)):
        assert [(text, probability) for text, probability, _ in column(browser, name)] == [
            (hit.text, f"{hit.probability:.0%}") for hit in hits
        ]
    said = [move for _, _, move in column(browser, "With adapter")]
    assert said == moves(*(hit.place_before for hit in found.reranked))
    assert {"up", "down"} <= {move.split()[0] for move in said}
    left, right = browser.find_elements(By.CSS_SELECTOR, "section.ranking")
    assert left.rect["y"] == right.rect["y"] and left.rect["x"] + left.rect["width"] < right.rect["x"]
    # Neither the process nor the page contacted another host.
    assert contacted == []
    # How a less probable document can rank higher is told before the results.
    assert WITH_ADAPTER in browser.find_element(By.TAG_NAME, "body").text
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert loaded and all(address.startswith(url) for address in loaded)


@pytest.mark.slow
def test_a_document_is_text_whatever_it_holds(browser: Chrome, url: str) -> None:
    browser.get(url)
    search(browser, "<img src=x onerror='window.harmed = 4'> files")
    wait_for(browser, ".rankings")
    assert HOSTILE in [text for text, _, _ in column(browser, "With adapter")]
    assert browser.execute_script("return window.harmed") is None
    assert not browser.find_elements(By.CSS_SELECTOR, ".hit img, .hit script, .hit b")


@pytest.mark.slow
def test_an_empty_query_is_refused_in_the_page(browser: Chrome, url: str) -> None:
    browser.get(url)
    search(browser, "   ")
    message = wait_for(browser, ".message[role=alert]")
    assert message.text == "The query is empty. Type what you are looking for."
    assert not browser.find_elements(By.CSS_SELECTOR, ".rankings")


@pytest.mark.slow
def test_an_example_is_searched_when_it_is_clicked(browser: Chrome, url: str, retriever: Retriever) -> None:
    browser.get(url)
    button = WebDriverWait(browser, WAIT).until(
        lambda _: browser.find_elements(By.XPATH, "//button[contains(., 'sort a text')]")
    )[0]
    button.click()
    wait_for(browser, ".rankings")
    assert column(browser, "Without adapter")[0][0] == compare(retriever, "sort a text").encoder[0].text


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 360])
def test_a_phone_shows_the_search_box_and_the_columns_below_each_other(
    browser: Chrome, url: str, width: int
) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(url)
        box = wait_for(browser, "textarea").rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 844
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        search(browser, QUERY)
        wait_for(browser, ".rankings")
        first, second = browser.find_elements(By.CSS_SELECTOR, "section.ranking")
        assert second.rect["y"] > first.rect["y"] + first.rect["height"]
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_a_page_without_an_adapter_says_so(
    browser: Chrome, plain: Retriever, serve: Callable[[gr.Blocks], str]
) -> None:
    browser.get(serve(create_demo(plain)))
    search(browser, QUERY)
    assert wait_for(browser, ".message").text == NO_ADAPTER
    assert len(column(browser, "Without adapter")) == len(CORPUS)
    # No examples were given, so they are from documents.
    assert browser.find_elements(By.XPATH, "//button[contains(., 'old files in the new folder')]")


# -------------------------------------------------------------------- command and Space


@pytest.fixture(scope="module")
def folder(retriever: Retriever, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "retriever"
    retriever.save_pretrained(path)
    return path


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Handle SIGINT, which processes in the background of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_command_serves_until_it_is_interrupted(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pages: list[str] = []

    def interrupt_when_it_answers() -> None:
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=WAIT) as answer:
                    pages.append(answer.read().decode())
                    break
            except OSError:
                continue
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_when_it_answers)
    thread.start()
    collection = folder.parent / "collection"
    word_collection(10, train=5).save(collection)
    outcome = rrra("app", folder, collection, "--port", port, "--title", "My documents", "--json")
    thread.join()
    assert outcome.status == 0, outcome.message
    assert outcome.json == {"url": f"http://127.0.0.1:{port}/", "public_url": None, "documents": 7}
    assert "My documents" in pages[0]
    assert load_collection(collection).query_texts[0] in pages[0]


def test_the_command_asks_for_an_index(tiny_bert: Path) -> None:
    outcome = rrra("app", tiny_bert)
    assert (outcome.status, outcome.out) == (1, "")
    assert f"{tiny_bert} has no index; make one with `rrra index`." in outcome.message


def test_the_space_shows_the_retriever_that_a_variable_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRRA_RETRIEVER", str(folder))
    demo = runpy.run_path(str(SPACE / "app.py"))["demo"]
    assert isinstance(demo, gr.Blocks) and demo.title == str(folder)
    monkeypatch.delenv("RRRA_RETRIEVER")
    with pytest.raises(SystemExit, match="Set the variable RRRA_RETRIEVER"):
        runpy.run_path(str(SPACE / "app.py"))


def test_the_space_names_its_software() -> None:
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    assert Version(header["sdk_version"]).major == Version(gr.__version__).major
    assert (SPACE / "requirements.txt").read_text().split() == ["rrra-hf[app]"]
