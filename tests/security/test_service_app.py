"""The page of `rrra app` takes short queries only: no files, no large bodies, no endless queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forked import WAIT
from retriever_models import QUERY, make_retriever
from rrra_hf.app import THEME, blocks, create_demo
from rrra_hf.retrieval import Retriever
from running import CORPUS

API = "gradio_api"


@pytest.fixture(scope="module")
def page(tiny_bert: Path) -> Iterator[tuple[str, Any]]:
    demo = create_demo(make_retriever(tiny_bert).index(CORPUS))
    _, url, _ = demo.launch(server_name="127.0.0.1", theme=THEME, quiet=True, prevent_thread_lock=True)
    yield url, demo
    demo.close(verbose=False)


def files_of(demo: Any) -> list[Path]:
    folders = [Path(demo.GRADIO_CACHE), Path(demo.app.uploaded_file_dir)]
    return [path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["upload", "upload/", "component_server", "process_recording", "queue/join"])
def test_files_are_refused_and_none_is_left(page: tuple[str, Any], path: str) -> None:
    url, demo = page
    before = files_of(demo)
    sent = {"files": ("page.html", b"x" * 20_000_000)}
    refused = httpx.post(f"{url}{API}/{path}", files=sent, timeout=WAIT)
    assert (refused.status_code, refused.text) == (403, "This page takes no files.")
    assert files_of(demo) == before


def test_large_bodies_are_refused(page: tuple[str, Any]) -> None:
    url, _ = page
    event = {"data": ["x" * 100_000, 10], "fn_index": 0, "session_hash": "a"}
    assert httpx.post(f"{url}{API}/queue/join", json=event, timeout=WAIT).status_code == 413
    chunks = (b"x" * 1000 for _ in range(1000))
    assert httpx.post(f"{url}{API}/queue/join", content=chunks, timeout=WAIT).status_code == 411


def test_searches_that_wait_are_limited(page: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, demo = page
    release = threading.Event()

    def slow(self: Retriever, *arguments: Any, **options: Any) -> Any:
        release.wait(WAIT)
        raise ValueError("held back")

    monkeypatch.setattr(Retriever, "search_embeddings", slow)
    search = next(number for number, one in demo.fns.items() if one.api_name == "search")
    statuses = [
        httpx.post(
            f"{url}{API}/queue/join",
            json={"data": [QUERY, 10], "fn_index": search, "session_hash": f"s{number}"},
            timeout=WAIT,
        ).status_code
        for number in range(blocks.MAX_WAITING + 10)
    ]
    release.set()
    assert statuses.count(200) <= blocks.MAX_WAITING + 1
    assert set(statuses) == {200, 503}
