"""The documentation of the service is shown without a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from selenium.webdriver import Chrome

from browsing import wait_for
from retriever_models import make_retriever
from rrra_hf.serving import create_app, listen
from running import CORPUS
from running import wait_for as wait_until


@pytest.fixture(scope="module")
def service(tiny_bert: Path) -> Iterator[str]:
    app = create_app(make_retriever(tiny_bert).index(CORPUS))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_the_page_shows_the_endpoints_without_a_network(browser: Chrome, service: str) -> None:
    browser.get(f"{service}/docs")
    wait_for(browser, "#operations-default-search_search_post")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded
    assert all(name.startswith((service, "data:")) for name in loaded)
