"""Records of any kind make a card, or an error that names the folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cards import copy
from rrra_hf.hub import card as card_module
from rrra_hf.hub import model_card
from rrra_hf.hub.layout import EVALUATION_NAME

ODD = [None, 7, -0.5, float("nan"), "a", [], ["a"], {}, {"a": "b"}, True]


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each dictionary or list of a JSON file with each of its keys."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys):
        yield content, key
        yield from places(content[key])


@pytest.mark.parametrize("name", ["config.json", EVALUATION_NAME])
def test_records_of_any_kind_make_a_card_or_an_error_that_names_the_folder(
    fitted: Callable[[str], Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_module, "reliability_plot", lambda saved: None)
    folder = copy(fitted("residual"), tmp_path)
    whole = (folder / name).read_text()
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        content = json.loads(whole)
        holder, key = draw.choice(list(places(content)))
        holder[key] = draw.choice(ODD)
        (folder / name).write_text(json.dumps(content))
        try:
            model_card(folder)
        except ValueError as error:
            refused += 1
            assert str(folder) in str(error)
    assert 0 < refused < 100
    (folder / name).write_text(whole)
    model_card(folder)
