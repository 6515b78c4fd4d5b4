"""Definitions and their docstrings in source files, which are parsed, not imported."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_Definable = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

MAX_SIGNATURE = 300

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "benchmarks", "examples", "externals", "vendor", "_vendor", "site-packages"}
)


class Definition(NamedTuple):
    """A documented function, class or method.

    Args:
        module: Name of the module that defines it.
        name: Name in the module: `function`, `Class` or `Class.method`.
        signature: Signature `name(arguments)`, shortened if it is long.
        docstring: Dedented docstring.
    """

    module: str
    name: str
    signature: str
    docstring: str


@dataclass
class Module:
    """Definitions, imports and exports of a source file.

    Args:
        name: Dotted name.
        is_package: Whether the file is an `__init__.py`.
        definitions: Definition per name in the module.
        imports: Source module and name per imported name.
        star_imports: Modules imported with `*`.
        exported: `__all__`, if it is a plain list.
    """

    name: str
    is_package: bool
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)
    exported: list[str] | None = None


# -------------------------------------------------------------------- reading source files


def read_package(root: Path, name: str, excluded: frozenset[str] = frozenset()) -> dict[str, Module]:
    """Read the modules of a package, sorted by name. Files that don't parse are left out.

    Args:
        root: Folder of the package, or file of a single module. With an empty `name`, a folder of packages
            and modules.
        name: Name of the package.
        excluded: Dotted names of modules and packages to leave out, relative to the package.
    """
    paths = [root] if root.is_file() else sorted(_source_files(root, root, excluded))
    modules = {}
    for path in paths:
        relative = "" if root.is_file() else _dotted(path.relative_to(root).with_suffix(""))
        module_name = ".".join(part for part in (name, relative) if part)
        module = _read_module(path, module_name)
        if module is not None:
            modules[module_name] = module
    return modules


def _source_files(folder: Path, root: Path, excluded: frozenset[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.stem in SKIPPED_FOLDERS or _dotted(path.relative_to(root).with_suffix("")) in excluded:
            continue
        if (
            path.suffix == ".py"
            and not path.stem.startswith("test_")
            and path.stem not in ("conftest", "setup")
        ):
            yield path
        elif (path / "__init__.py").is_file():
            yield from _source_files(path, root, excluded)


def _dotted(relative: Path) -> str:
    return ".".join(part for part in relative.parts if part != "__init__")


def _read_module(path: Path, name: str) -> Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        logger.debug("%s is left out: %s", path, error)
        return None
    reader = _ModuleReader(Module(name, is_package=path.stem == "__init__"))
    reader.read(tree.body)
    return reader.module


class _ModuleReader:
    """Fills a `Module` from the statements of its source."""

    def __init__(self, module: Module):
        self.module = module

    def read(self, statements: list[ast.stmt]) -> None:
        for node in statements:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._define(node.name, node, ast.get_docstring(node))
            elif isinstance(node, ast.ClassDef):
                self._read_class(node)
            elif isinstance(node, ast.ImportFrom):
                self._read_import(node)
            elif isinstance(node, (ast.Assign, ast.AugAssign)):
                self._read_assignment(node)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self._read_call(node.value)
            elif isinstance(node, (ast.If, ast.Try)):
                self._read_branches(node)

    def _read_branches(self, node: ast.If | ast.Try) -> None:
        self.read(node.body)
        for handler in getattr(node, "handlers", []):
            self.read(handler.body)
        self.read(node.orelse)

    def _define(self, name: str, node: _Definable | None, docstring: str | None) -> None:
        if docstring and not any(part.startswith("_") for part in name.split(".")):
            signature = _signature(node) if node else ""
            definition = Definition(self.module.name, name, signature, docstring)
            self.module.definitions.setdefault(name, definition)

    def _read_class(self, node: ast.ClassDef) -> None:
        if node.name.startswith("_"):
            return
        self._define(node.name, node, ast.get_docstring(node))
        for method in node.body:
            if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and method.name[0] != "_":
                self._define(f"{node.name}.{method.name}", method, ast.get_docstring(method))

    def _read_import(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            parts = self.module.name.split(".")
            base = parts[: len(parts) - node.level + self.module.is_package]
            source = ".".join([*base, source] if source else base)
        for alias in node.names:
            if alias.name == "*":
                self.module.star_imports.append(source)
            else:
                self.module.imports[alias.asname or alias.name] = (source, alias.name)

    def _read_assignment(self, node: ast.Assign | ast.AugAssign) -> None:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name):
            return
        if target.id == "__all__":
            self._read_exports(node)
        elif isinstance(node.value, ast.Call) and _called(node.value).endswith("add_docstr"):
            self._define(target.id, None, inspect.cleandoc(_literal_text(node.value.args[-1]) or ""))

    def _read_exports(self, node: ast.Assign | ast.AugAssign) -> None:
        try:
            names = [str(name) for name in ast.literal_eval(node.value)]
        except (ValueError, TypeError):
            self.module.exported = None
            return
        earlier = self.module.exported if isinstance(node, ast.AugAssign) else []
        self.module.exported = None if earlier is None else earlier + names

    def _read_call(self, call: ast.Call) -> None:
        """Read the docstrings that NumPy, SciPy and PyTorch attach to compiled functions."""
        called = _called(call)
        if called.endswith("add_docstr") and len(call.args) == 2:
            module, _, name = ast.unparse(call.args[0]).rpartition(".")
            if module == self.module.name.split(".")[0]:
                self._attach(module, name, call.args[1])
        elif called == "add_newdoc" and len(call.args) in (2, 3):
            *module_part, name_node, text = call.args
            package = self.module.name.rpartition(".")[0]
            module = _literal_text(module_part[0]) or "" if module_part else package
            self._attach(module, _literal_text(name_node) or "_", text)

    def _attach(self, module: str, name: str, text: ast.expr) -> None:
        if isinstance(text, ast.Tuple) and len(text.elts) == 2:
            name, text = f"{name}.{_literal_text(text.elts[0]) or '_'}", text.elts[1]
        docstring = _literal_text(text)
        if docstring and not any(part.startswith("_") for part in name.split(".")):
            definition = Definition(module, name, "", inspect.cleandoc(docstring))
            self.module.definitions.setdefault(f"{module}:{name}", definition)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _literal_text(node: ast.expr) -> str | None:
    """Return the text of a string, a sum of strings, or a format string with its placeholders."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _literal_text(node.left), _literal_text(node.right)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _literal_text(node.func.value)
    return None


def _signature(node: _Definable) -> str:
    if isinstance(node, ast.ClassDef):
        methods = (method for method in node.body if isinstance(method, ast.FunctionDef))
        arguments = next((_arguments(method.args) for method in methods if method.name == "__init__"), "")
        return f"class {node.name}({arguments})" if arguments else f"class {node.name}"
    return f"{node.name}({_arguments(node.args)})"


def _arguments(node: ast.arguments) -> str:
    arguments = re.sub(r"\A(self|cls)(, (/, )?|\Z)", "", ast.unparse(node))
    if len(arguments) > MAX_SIGNATURE:
        arguments = arguments[:MAX_SIGNATURE].rpartition(",")[0] + ", ..."
    return arguments
