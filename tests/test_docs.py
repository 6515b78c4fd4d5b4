"""The documentation: snippets run, commands exist, figures are those of the results, and it builds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import griffe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from forked import WAIT
from hub_server import WRITER, HubServer
from rrra_hf import Retriever, RRRAModel, load_collection
from running import Server, serve_by_command
from snippets import (
    CHECKS,
    ROOT,
    blocks,
    check,
    check_named,
    commands,
    make_fits_quick,
    python_blocks,
    walk,
)
from tiny import word_collection

DOCS = ROOT / "docs"
PAGES = sorted(path for folder in (DOCS, DOCS / "how-to") for path in folder.glob("*.md"))
SHARING, SERVING = DOCS / "how-to/sharing.md", DOCS / "how-to/serving.md"
# These have tests of their own, the last in tests/integrations/test_vector_databases.py.
TESTED_APART = (SHARING, SERVING, DOCS / "how-to/vector-databases.md")
SNIPPETS = [path for path in PAGES if path not in TESTED_APART and python_blocks(path)]
SHELL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md", *PAGES]
# These train encoders.
SLOW = dict.fromkeys(["tutorial", "negatives", "fine-tuning", "small-embeddings"], pytest.mark.slow)
TITLE = "{http://www.w3.org/2000/svg}title"
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def docs_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a module of `docs/`."""
    monkeypatch.syspath_prepend(str(DOCS))
    return import_module


# -------------------------------------------------------------------- snippets and commands


@pytest.fixture
def reader(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Small versions of the files that the pages use, and options that make commands quick."""
    monkeypatch.chdir(tmp_path)
    make_fits_quick(monkeypatch)
    collection = word_collection(40, train=48, dev=12, test=12)
    collection.save("my-collection")
    monkeypatch.setattr(
        "rrra_hf.data.python_docs.python_docs", lambda limit: load_collection("my-collection")
    )
    model = RRRAModel.from_encoder(tiny_bert, max_seq_length=64)
    model.save_pretrained("models/mine")
    Retriever(model).index(collection).save_pretrained("retrievers/mine")

    write_lines("documents.jsonl", ({"id": row["id"], "text": row["text"]} for row in collection.corpus))
    texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    labels = [(query, next(iter(grades))) for query, grades in collection.split("train").qrels.items()]
    write_lines("pairs.jsonl", ({"query": texts[q], "document_id": d} for q, d in labels))
    write_lines("labels.jsonl", ({"query": q, "document": d} for q, d in labels))
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(len(collection.document_ids), 16)).astype(np.float32)
    rows = [collection.document_ids.index(document) for _, document in labels]
    queries = documents[rows] + rng.normal(size=(len(rows), 16)).astype(np.float32)
    write_embeddings("documents.parquet", collection.document_ids, documents)
    write_embeddings("queries.parquet", [query for query, _ in labels], queries)
    return {"--model": str(tiny_bert), "--stage1-steps": "2", "--stage3-steps": "2"}


def write_lines(name: str, records: Any) -> None:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_embeddings(name: str, ids: list[str], embeddings: np.ndarray) -> None:
    pq.write_table(pa.table({"id": ids, "embedding": embeddings.tolist()}), name)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=SLOW.get(page.stem, ())) for page in SNIPPETS], ids=name_of
)
def test_a_page_runs_from_top_to_bottom(
    page: Path, reader: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    walk(page, reader)
    printing = sum(text.count("print(") for text in python_blocks(page))
    assert len(capsys.readouterr().out.splitlines()) >= printing


def test_the_page_on_serving_runs_against_a_service(
    reader: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(serve_by_command, Path("retrievers/mine").absolute()).wait_until_it_listens()
    try:
        walk(SERVING, reader, f"http://localhost:{server.port}")
    finally:
        server.process.kill()
    assert re.search(r"^2 \d+$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_the_page_on_sharing_runs_against_a_hub(reader: dict[str, str], tmp_path: Path) -> None:
    RRRAModel.from_encoder(reader["--model"], lora=True).save_pretrained("runs/first/model")
    program = (
        "import json, sys, pathlib as p, snippets as s; s.walk(p.Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    with HubServer() as hub:
        # The client reads its settings when it is imported.
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": WRITER,
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(ROOT / "tests"),
        }
        done = subprocess.run(
            [sys.executable, "-c", program, str(SHARING), json.dumps(reader)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert hub.repositories["me/my-retriever"].private
        assert set(hub.repositories) == {"me/my-model", "me/my-encoder", "me/my-lora", "me/my-retriever"}


def test_files_that_a_page_shows_are_read(tmp_path: Path) -> None:
    documents, pairs = (text for language, text in blocks(DOCS / "how-to/pairs.md") if language == "json")
    (tmp_path / "documents.jsonl").write_text(documents, encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text(pairs, encoding="utf-8")
    collection = load_collection(tmp_path / "documents.jsonl", pairs=tmp_path / "pairs.jsonl")
    assert list(collection.qrels.values()) == [{"d1": 1}, {"d2": 1}]


@pytest.mark.parametrize("page", SHELL, ids=name_of)
def test_commands_exist_with_these_options(page: Path) -> None:
    # A block without a language is shell if it begins with a program, and output otherwise.
    for language, text in blocks(page):
        found = list(commands(text)) if language in ("", "bash") else []
        if language == "bash" or (found and found[0][0] in CHECKS):
            for words in found:
                check(words)
    for line in re.findall(r"`((?:rrra|make) [a-z][^`]*)`", page.read_text(encoding="utf-8")):
        check_named(line.split())


# -------------------------------------------------------------------- figures and pictures


def test_quoted_figures_are_those_of_the_results(docs_module: Callable[[str], Any]) -> None:
    figures = docs_module("figures")
    for path in figures.TEXTS:
        text = path.read_text(encoding="utf-8")
        assert figures.TABLE.search(text), path
        assert figures.fill(text, path.parent) == text, "python docs/figures.py"


def test_the_method_quotes_no_figure_by_hand(docs_module: Callable[[str], Any]) -> None:
    figures = docs_module("figures")
    text = figures.TABLE.sub("", figures.LINK.sub("", (DOCS / "method.md").read_text(encoding="utf-8")))
    assert re.findall(r"(?<![\w.])[-+]?[01]?\.\d{2,}", text) == []


def test_figures_are_put_into_links_and_tables(docs_module: Callable[[str], Any], tmp_path: Path) -> None:
    figures = docs_module("figures")
    (tmp_path / "results.md").write_text(
        "# Results\n\n## one: systems (30 test queries, 10 seen, 20 unseen)\n\nNote.\n\n"
        "| method | nDCG@10 | unseen |\n| --- | ---: | ---: |\n| a | 0.5 | 0.25 |\n| b | 0.75 | – |\n\n"
        "## Methods\n\n* `a`: first\n",
        encoding="utf-8",
    )
    link = '[{}](results.md "one, b, nDCG@10")'
    comment = "<!-- figures of results.md\nrows: one nDCG@10; one unseen\ncolumns: b; a\n-->\n"
    table = (
        "\n|  | b | a |\n| --- | ---: | ---: |\n"
        "| one, nDCG@10 (30 queries) | 0.75 | 0.5 |\n| one, unseen (20 queries) | – | 0.25 |\n"
    )
    text = f"It has {link.format('?')}.\n\n{comment}\nEnd.\n"
    filled = figures.fill(text, tmp_path)
    assert filled == f"It has {link.format('0.75')}.\n\n{comment}{table}\nEnd.\n"
    assert figures.fill(filled, tmp_path) == filled
    for wrong in (link.replace("one", "two"), link.replace("b,", "c,"), link.replace("@10", "@5")):
        with pytest.raises(KeyError):
            figures.fill(wrong, tmp_path)


def test_tables_of_several_encoders_are_told_apart(docs_module: Callable[[str], Any], tmp_path: Path) -> None:
    figures = docs_module("figures")
    (tmp_path / "zero-shot.md").write_text(
        "# Without\n\n## one: ranking\n\n| collection | queries | p |\n| :--- | ---: | ---: |\n"
        "| a | 3 | 0.5 |\n| mean |  | 0.25 |\n\n## one: detection\n\n| collection | p |\n| :--- | ---: |\n"
        "| mean | 0.75 |\n",
        encoding="utf-8",
    )
    links = '[0](zero-shot.md "one: ranking, mean, p") [0](zero-shot.md "one: detection, mean, p")'
    assert re.findall(r"\[(.*?)\]", figures.fill(links, tmp_path)) == ["0.25", "0.75"]


def test_pictures_are_what_the_command_draws(docs_module: Callable[[str], Any]) -> None:
    pictures = docs_module("pictures")
    assert (DOCS / "pictures/data_flow.svg").read_text(encoding="utf-8") == pictures.data_flow(), (
        "python docs/pictures.py"
    )
    kept, drawn = (
        ElementTree.fromstring(svg)
        for svg in ((DOCS / "pictures/quality_cost.svg").read_text(encoding="utf-8"), pictures.quality_cost())
    )
    # Another release of matplotlib draws the same elsewhere.
    assert [part.text for part in kept.iter(TITLE)] == [part.text for part in drawn.iter(TITLE)] != []


# -------------------------------------------------------------------- the site


PACKAGE = griffe.load("rrra_hf", search_paths=[ROOT / "src"])


def public_names() -> set[str]:
    """Return the full name of everything that the package and its parts export, without importing them."""
    parts = [PACKAGE, *(part for part in PACKAGE.modules.values() if part.is_init_module)]
    return {f"{part.path}.{name}" for part in parts for name in part.exports or ()}


@pytest.mark.parametrize("name", sorted(map(str, PACKAGE.exports or ())))
def test_what_the_package_exports_has_an_example(name: str) -> None:
    member = PACKAGE[name].final_target
    # A module may have the name of its function.
    described = member[name] if member.is_module else member
    assert "Example:" in described.docstring.value


@pytest.mark.slow
def test_the_site_is_built_strictly_with_every_public_name_and_needs_no_network(tmp_path: Path) -> None:
    # Not with --quiet: strict counts the warnings that are logged.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    inventory = (tmp_path / "site/objects.inv").read_bytes().split(b"\n", 4)[-1]
    documented = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    assert public_names() - documented == {"rrra_hf.cli.main"}
    listed = (tmp_path / "site/reference/index.html").read_text(encoding="utf-8")
    of_rooms = {name for name in public_names() & documented if name.count(".") == 2}
    assert {name for name in of_rooms if f'#{name}"' not in listed} == set()
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>", text
        ), page


# -------------------------------------------------------------------- files beside


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2508.11670"


@pytest.mark.parametrize("path", TEMPLATES, ids=name_of)
def test_issue_templates_are_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea")
        assert field["id"].isidentifier() and field["attributes"]["label"]


@pytest.mark.parametrize(
    "path",
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")],
    ids=name_of,
)
def test_files_that_are_linked_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
