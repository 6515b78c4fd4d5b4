"""A browser for tests of pages, and a server for the pages."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from rrra_hf.app import THEME


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """Headless Chromium that can reach this machine only."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(executable_path=shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def contacted() -> Iterator[list[str]]:
    """Host names other than this machine that the process looked up."""
    names: list[str] = []
    look_up = socket.getaddrinfo

    def record(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            names.append(host)
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", record)
        yield names


@pytest.fixture(scope="module")
def serve(contacted: list[str]) -> Iterator[Callable[[gr.Blocks], str]]:
    """Serve pages on this machine and return their URLs."""
    served: list[gr.Blocks] = []

    def launch(demo: gr.Blocks) -> str:
        _, url, _ = demo.launch(server_name="127.0.0.1", theme=THEME, quiet=True, prevent_thread_lock=True)
        served.append(demo)
        return url

    yield launch
    for demo in served:
        demo.close(verbose=False)
