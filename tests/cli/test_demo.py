"""`rrra demo` on the documentation of few packages, with a tiny encoder."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bad_input import succeed
from command_line import Outcome, rrra
from rrra_hf.data.python_docs.packages import Package

SYSTEMS = ["encoder", "BM25", "both, rank fusion", "adapter, without a label", "adapter, fitted to labels"]
QUESTION = "read a csv file into a table"

Run = Callable[..., Outcome]


@pytest.fixture
def demo(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, logging_as_before: None
) -> Run:
    """Run the demo in `tmp_path / "demo"`, with few packages in place of all that are installed."""
    packages = [Package(name, weight=5) for name in ("click", "requests", "tqdm")]
    monkeypatch.setattr("rrra_hf.data.python_docs.packages.PACKAGES", packages)

    def run(*options: object) -> Outcome:
        where = ["--out", tmp_path / "demo", "--model", tiny_bert, "--documents", 150]
        done = rrra("demo", *where, *options)
        assert done.status == 0, done.err
        assert "%|" not in done.err and "Traceback" not in done.err
        return done

    return run


class Page(HTMLParser):
    """Texts of headings, and what the page would load."""

    def __init__(self, text: str):
        super().__init__()
        self.headings: list[str] = []
        self.loads: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        given = dict(attributes)
        found = [given.get("src"), given.get("href"), given.get("xlink:href")]
        self.loads += [name for name in found if name is not None and not name.startswith("#")]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        if self._tag in ("h1", "h2", "h3") and data.strip():
            self.headings.append(data.strip())


def test_the_demo_measures_finds_missing_labels_and_leaves_a_page(demo: Run, tmp_path: Path) -> None:
    result = demo("--json").json
    assert 100 <= result["documents"] <= 150
    assert list(result["systems"]) == SYSTEMS
    assert all(list(row) == ["nDCG@10", "R@1", "R@100"] for row in result["systems"].values())
    for sides in result["searches"].values():
        assert [len(hits) for hits in sides.values()] == [5, 5]
    assert sum(result["reliability"]["pairs"]) == result["queries"]["test"] * result["documents"]
    probabilities = [suspect["probability"] for suspect in result["suspects"]]
    assert len(probabilities) == 20 and probabilities == sorted(probabilities, reverse=True)
    assert result["missing"]["low"] <= result["missing"]["expected"] <= result["missing"]["high"]

    hits = succeed("search", tmp_path / "demo/retriever", QUESTION, "--json").json[0]["hits"]
    first = result["searches"][QUESTION]["reranked"][0]
    assert hits[0]["probability"] == pytest.approx(first["probability"], abs=1e-6)

    path = Path(result["page"])
    content = path.read_bytes()
    page = Page(content.decode())
    assert page.loads == [] and set(result["searches"]) <= set(page.headings)
    assert content.count(b"<svg") == 2 and content.count(b'class="suspect"') == 20
    # Again, without --json: the same page, and the same figures as text.
    path.unlink()
    printed = demo().out
    assert path.read_bytes() == content
    for name, row in result["systems"].items():
        assert re.search(rf"│ {name} +│ +{row['nDCG@10']:.3f} │", printed)
        assert f"<td>{name}</td><td>{row['nDCG@10']:.3f}</td>".encode() in content
    assert f"About {result['missing']['expected']:.0f} labels are missing" in printed
    assert str(path) in printed.replace("\n", "")


def test_without_matplotlib_the_demo_says_what_to_install_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "rrra_hf.cli.demo_page", raising=False)
    failed = rrra("demo", "--out", tmp_path / "demo")
    assert failed.status == 1
    assert "pip install 'rrra-hf[demo]'" in failed.message and "Collecting" not in failed.err


@pytest.mark.slow
def test_the_demo_trains_an_encoder_when_it_is_asked_to(demo: Run, tmp_path: Path) -> None:
    result = demo("--train", "--steps", 1, "--json").json
    assert list(result["systems"]) == [*SYSTEMS, "encoder trained"]
    page = (tmp_path / "demo/index.html").read_text(encoding="utf-8")
    assert result["training"] and result["training"] in page
