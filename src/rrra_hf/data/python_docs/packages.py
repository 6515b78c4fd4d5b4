"""The packages whose documentation is read, and where they are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

STDLIB = "stdlib"


class Package(NamedTuple):
    """A package to read.

    Args:
        name: Import name.
        distribution: Name of the distribution, if it differs.
        excluded: Submodules to leave out, relative to the package, separated by spaces.
        weight: Relative share of the documents, among packages other than the standard library.
    """

    name: str
    distribution: str = ""
    excluded: str = ""
    weight: int = 1


_STDLIB_EXCLUDED = (
    "antigravity distutils encodings ensurepip idlelib lib2to3 msilib ntpath nturl2path pydoc_data "
    "sre_compile sre_constants sre_parse this tkinter turtledemo venv"
)
_TORCH_EXCLUDED = (
    "_decomp _dynamo _export _functorch _higher_order_ops _inductor _numpy _prims _refs _subclasses ao bin "
    "contrib distributed export fx jit mtia onnx package utils.benchmark utils.hipify xpu"
)
_TRANSFORMERS_EXCLUDED = "cli distributed exporters integrations kernels models quantizers"

PACKAGES = (
    Package(STDLIB, excluded=_STDLIB_EXCLUDED),
    Package("accelerate"),
    Package("click"),
    Package("datasets", weight=2),
    Package("dateutil", "python-dateutil"),
    Package("httpx"),
    Package("huggingface_hub", weight=2),
    Package("jinja2"),
    Package("joblib"),
    Package("matplotlib", weight=5),
    Package("networkx", weight=2),
    Package("numpy", excluded="distutils f2py", weight=5),
    Package("pandas", weight=5),
    Package("peft"),
    Package("psutil"),
    Package("pydantic"),
    Package("regex"),
    Package("requests", weight=2),
    Package("rich"),
    Package("scipy", excluded="_lib", weight=5),
    Package("sentence_transformers", weight=2),
    Package("sklearn", "scikit-learn", weight=5),
    Package("torch", excluded=_TORCH_EXCLUDED, weight=5),
    Package("tqdm"),
    Package("transformers", excluded=_TRANSFORMERS_EXCLUDED, weight=2),
    Package("typer"),
    Package("yaml", "PyYAML"),
)
"""The packages that `python_docs` reads if they are installed."""


def find_packages(names: Iterable[str] | None) -> list[Package]:
    """Return the packages with these names, by default all of `PACKAGES` that are installed.

    Raises:
        ValueError: If a package isn't installed as Python source.
    """
    if names is None:
        return [package for package in PACKAGES if location_of(package) is not None]
    known = {package.name: package for package in PACKAGES}
    packages = [known.get(name, Package(name)) for name in sorted(set(names))]
    missing = [package.name for package in packages if location_of(package) is None]
    if missing:
        raise ValueError(f"packages must be installed as Python source, {missing} are not.")
    return packages


def location_of(package: Package) -> Path | None:
    """Return the folder or file of a package, None if it isn't installed as Python source."""
    if package.name == STDLIB:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package.name)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None
    origin = Path(str(spec.origin))
    return origin.parent if origin.name == "__init__.py" else origin


def version_of(package: Package) -> str:
    """Return the version of a package, or the time of its last change if it has no version."""
    if package.name == STDLIB:
        return platform.python_version()
    try:
        return importlib.metadata.version(package.distribution or package.name)
    except importlib.metadata.PackageNotFoundError:
        location = location_of(package) or Path()
        paths = [location] if location.is_file() else location.rglob("*.py")
        return str(max(path.stat().st_mtime_ns for path in paths))
