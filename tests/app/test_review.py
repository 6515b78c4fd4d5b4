"""The review page, and the page without a server, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from browsing import wait_for
from forked import WAIT
from review_task import HOSTILE, task
from rrra_hf.app.review import NOTHING_LEFT, create_review, progress_html
from rrra_hf.app.reviewing import Progress
from rrra_hf.labels.review.decisions import Decision, Decisions
from rrra_hf.labels.review.page import write_page
from rrra_hf.labels.review.recalibration import Recalibration

Serve = Callable[[gr.Blocks], str]


def press(browser: Chrome, keys: str) -> None:
    ActionChains(browser).send_keys(keys).perform()


def wait_until(browser: Chrome, selector: str, text: str) -> None:
    """Wait until an element holds a text."""
    WebDriverWait(browser, WAIT, ignored_exceptions=[Exception]).until(
        lambda _: text in browser.find_element(By.CSS_SELECTOR, selector).text
    )


def saved(path: Path) -> list[tuple[str, bool]]:
    return [(decision.document_id, decision.relevant) for decision in Decisions.read(path)]


def test_progress_is_told_in_words() -> None:
    html = progress_html(Progress(1200, 3, 34.4, Recalibration(1.0, 0.0, 1)))
    for text in ("1,200 relevant, 3 not relevant; about 34 missing labels left", "follow 1 decision<", "97%"):
        assert text in html
    assert "width: 0%" in progress_html(Progress(0, 0, 0.0, Recalibration()))


@pytest.mark.slow
def test_keys_and_buttons_decide_skip_and_undo(
    browser: Chrome, serve: Serve, contacted: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    with Decisions.open(path) as decisions:
        browser.set_window_size(1280, 900)
        url = serve(create_review(*task([[0.6, 0.5, 0.4, 0.3]]), decisions))
        browser.get(url)
        wait_until(browser, ".found", "copy files number 0")
        assert browser.find_element(By.TAG_NAME, "h1").text == "Missing labels in tiny"
        assert browser.find_element(By.CSS_SELECTOR, ".suspect h2").text == "file 0"
        assert [mark.text for mark in browser.find_elements(By.CSS_SELECTOR, ".found mark")] == ["0"]
        assert "move a file" in browser.find_element(By.CSS_SELECTOR, ".suspect").text
        assert browser.find_element(By.CSS_SELECTOR, ".found .probability").text == "60%"
        press(browser, "y")
        wait_until(browser, ".found", "number 1")
        # It is on the disk before the next pair is shown.
        assert saved(path) == [("d0", True)]
        wait_until(browser, ".progress", "Probabilities follow 1 decision")
        press(browser, "s")
        wait_until(browser, ".found", "number 2")
        browser.find_element(By.ID, "review-n").click()
        wait_until(browser, ".found", "number 3")
        assert saved(path) == [("d0", True), ("d2", False)]
        press(browser, "u")
        wait_until(browser, ".found", "number 2")
        assert saved(path) == [("d0", True)]
        # Another tab, or the same after a reload, goes on where the review is.
        browser.refresh()
        wait_until(browser, ".found", "number 2")
        for key, next_one in (("y", "number 3"), ("n", "number 1")):
            press(browser, key)
            wait_until(browser, ".found", next_one)
        press(browser, "y")
        wait_until(browser, ".message", NOTHING_LEFT)
        assert saved(path) == [("d0", True), ("d2", True), ("d3", False), ("d1", True)]
        browser.find_element(By.ID, "review-u").click()
        wait_until(browser, ".found", "number 1")
        assert contacted == []
        loaded = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert loaded and all(address.startswith(url) for address in loaded)


@pytest.mark.slow
def test_keys_of_the_browser_and_keys_held_down_decide_nothing(browser: Chrome, serve: Serve) -> None:
    decisions = Decisions()
    browser.get(serve(create_review(*task([[0.6, 0.5, 0.4]]), decisions)))
    wait_until(browser, ".found", "number 0")
    send = "document.dispatchEvent(new KeyboardEvent('keydown', {{key: 'y', bubbles: true, {}: true}}))"
    for modifier in ("ctrlKey", "metaKey", "altKey", "repeat"):
        browser.execute_script(send.format(modifier))
    # The page has answered everything before when it answers this.
    press(browser, "s")
    wait_until(browser, ".found", "number 1")
    assert len(decisions) == 0


@pytest.mark.slow
def test_what_cannot_be_saved_is_said(browser: Chrome, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = Decisions()
    browser.get(serve(create_review(*task([[0.6, 0.5]]), decisions)))
    wait_until(browser, ".found", "number 0")

    def full(_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(decisions, "add", full)
    press(browser, "y")
    wait_until(browser, "body", "Nothing was saved: the disk is full")
    assert "number 0" in browser.find_element(By.CSS_SELECTOR, ".found").text
    monkeypatch.undo()
    press(browser, "y")
    wait_until(browser, ".found", "number 1")
    assert len(decisions) == 1


@pytest.mark.slow
def test_texts_are_shown_as_text_on_both_pages(browser: Chrome, serve: Serve, tmp_path: Path) -> None:
    collection, pool = task([[0.6, 0.5]], HOSTILE)
    write_page(tmp_path / "page.html", collection, pool, Decisions(), [("<b>Documents</b>", "<img src=x>")])
    pages = [serve(create_review(collection, pool, Decisions())), (tmp_path / "page.html").as_uri()]
    for page in pages:
        browser.get(page)
        wait_until(browser, ".found", HOSTILE)
        assert browser.execute_script("return window.harmed") is None
        assert not browser.find_elements(By.CSS_SELECTOR, ".suspect img, .suspect script, .suspect b, td b")


@pytest.mark.slow
def test_long_texts_and_those_from_right_to_left_stay_in_their_place(browser: Chrome, serve: Serve) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for text in ("x" * 100_000, "שלום עולם"):
            browser.get(serve(create_review(*task([[0.6, 0.5]], text), Decisions())))
            wait_until(browser, ".found", text[:100])
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
            assert browser.find_element(By.CSS_SELECTOR, ".found").rect["height"] < 600
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_the_page_without_a_server_decides_by_keys_and_saves_a_file(browser: Chrome, tmp_path: Path) -> None:
    collection, pool = task([[0.6, 0.5, 0.4]])
    decided = Decision("q0", "d1", True, "person", 0.5)
    known = Decisions()
    known.add(decided)
    write_page(tmp_path / "page.html", collection, pool, known, [("Documents", "4")])
    browser.execute_cdp_cmd(
        "Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    )
    browser.get((tmp_path / "page.html").as_uri())
    assert "number 1" not in wait_for(browser, "ol").text
    press(browser, "yn")
    press(browser, "u")
    press(browser, "n")
    assert browser.find_element(By.TAG_NAME, "output").text == "2 decided"
    browser.find_element(By.TAG_NAME, "button").click()
    WebDriverWait(browser, WAIT).until(lambda _: (tmp_path / "saved/decisions.jsonl").exists())
    assert saved(tmp_path / "saved/decisions.jsonl") == [("d0", True), ("d2", False)]
    assert browser.get_log("browser") == []


def test_the_page_without_a_server_is_the_same_each_time_and_loads_nothing(tmp_path: Path) -> None:
    collection, pool = task([[0.6, 0.5, 0.4, 0.0]], HOSTILE)
    for name in ("first", "second"):
        write_page(tmp_path / name, collection, pool, Decisions(), [("Documents", "5")], suspects=2)
    content = (tmp_path / "first").read_text(encoding="utf-8")
    assert content == (tmp_path / "second").read_text(encoding="utf-8")
    assert content.count("<li ") == 2 and "<td>Documents</td><td>5</td>" in content
    assert "http" not in content.replace("http-equiv", "") and "default-src 'none'" in content
    assert json.dumps("q0").replace('"', "&quot;") in content
    with pytest.raises(ValueError, match="suspects must be at least 1, got 0"):
        write_page(tmp_path / "first", collection, pool, Decisions(), [], suspects=0)
