"""The documentation of the service is shown without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from browsing import wait_for
from running import Server, save_retriever, serve_by_command


@pytest.fixture(scope="module")
def service(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = save_retriever(tiny_bert, tmp_path_factory.mktemp("documented") / "retriever")
    server = Server(serve_by_command, folder).wait_until_it_listens()
    yield f"http://127.0.0.1:{server.port}"
    server.process.kill()


def test_the_page_shows_the_endpoints_without_a_network(browser: Chrome, service: str) -> None:
    browser.get(f"{service}/docs")
    wait_for(browser, "#operations-default-search_search_post")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded
    assert all(name.startswith((service, "data:")) for name in loaded)
