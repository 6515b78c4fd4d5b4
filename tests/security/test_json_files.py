"""JSON files of strangers: nested to any depth, of any type, with numbers of any length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrra_hf.hub import saved
from rrra_hf.models import files_rrra

READERS = [files_rrra.read_json, saved.read_json]
DEEP = {
    "lists": "[" * 100_000 + "]" * 100_000,
    "objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "lists that never end": "[" * 100_000,
}
BAD = {**DEEP, "a long integer": "9" * 5000, "no text": "\udcff", "nothing": ""}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_no_contents_end_in_another_error_than_one_that_names_the_file(
    tmp_path: Path, read: Callable[..., Any], kind: str
) -> None:
    path = tmp_path / "some.json"
    path.write_text(BAD[kind], encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"some\.json is damaged"):
        read(path, object)
    with pytest.raises(ValueError, match=r"some\.json is missing or damaged"):
        files_rrra.read_meta(path, {1}, ("name",))


@pytest.mark.parametrize("read", READERS)
def test_contents_of_another_type_are_named(tmp_path: Path, read: Callable[..., Any]) -> None:
    path = tmp_path / "some.json"
    path.write_text("[1]")
    assert read(path, list) == [1]
    with pytest.raises(ValueError, match=r"some\.json must hold a JSON dict, got list"):
        read(path, dict)


@pytest.mark.parametrize("content", ["[]", "7", '"a"', "null", '{"format_version": [1]}'])
def test_metadata_of_another_type_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"meta\.json is missing or damaged"):
        files_rrra.read_meta(path, {1}, ("name",))


def test_what_is_read_can_be_copied_and_written(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    for depth, legal in ((files_rrra.MAX_DEPTH, True), (files_rrra.MAX_DEPTH + 1, False)):
        path.write_text("[" * depth + "]" * depth)
        if legal:
            json.dumps(files_rrra.read_json(path))
            continue
        with pytest.raises(ValueError, match=r"some\.json is damaged: it is nested more than 100 levels"):
            files_rrra.read_json(path)
