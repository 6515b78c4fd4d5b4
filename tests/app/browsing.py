"""Looking at pages in a browser."""

from __future__ import annotations

from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from forked import WAIT


def wait_for(browser: Chrome, selector: str) -> Any:
    return WebDriverWait(browser, WAIT).until(lambda _: browser.find_elements(By.CSS_SELECTOR, selector))[0]
