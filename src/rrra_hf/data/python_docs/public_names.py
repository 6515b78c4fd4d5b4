"""The names by which users import definitions."""

from __future__ import annotations

from .source import Definition, Module

MAX_IMPORT_CHAIN = 10
INTERNAL_MODULES = frozenset(
    {"cli", "commands", "compat", "core", "internal", "internals", "packaged_modules", "testing_utils", "v1"}
)
"""Modules without an underscore that users don't import from."""


def public_definitions(modules: dict[str, Module]) -> dict[str, Definition]:
    """Return public definitions by their shortest exported name.

    For example, `pandas/__init__.py` imports `pandas.core.frame.DataFrame`, so its name is
    `pandas.DataFrame`. Definitions in private modules that aren't exported are left out.

    Args:
        modules: All modules of a package or of the standard library, including private ones.
    """
    definitions = _collect_definitions(modules)
    names: dict[tuple[str, str], list[str]] = {}
    for module_name, name in definitions:
        # Docstrings attached to compiled functions name the module of the function.
        home = modules.get(module_name)
        exported = home.exported if home and name in home.definitions else None
        if "." not in name and _is_public(module_name) and (exported is None or name in exported):
            names.setdefault((module_name, name), []).append(f"{module_name}.{name}")
    for module in modules.values():
        if not _is_public(module.name) or not (module.is_package or "." not in module.name):
            continue
        for name in sorted(_namespace(module, modules)):
            source = _resolve(module.name, name, modules, definitions)
            if source and _is_reexport(module.name, source[0]):
                names.setdefault(source, []).append(f"{module.name}.{name}")
    best = {source: min(found, key=lambda name: (name.count("."), name)) for source, found in names.items()}
    result: dict[str, Definition] = {}
    for (module_name, name), definition in sorted(definitions.items()):
        top, dot, method = name.partition(".")
        if (module_name, top) in best:
            result.setdefault(best[module_name, top] + dot + method, definition)
    return result


def _collect_definitions(modules: dict[str, Module]) -> dict[tuple[str, str], Definition]:
    definitions: dict[tuple[str, str], Definition] = {}
    for module in modules.values():
        for definition in module.definitions.values():
            definitions.setdefault((definition.module, definition.name), definition)
    return definitions


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") or part in INTERNAL_MODULES for part in name.split("."))


def _is_reexport(package: str, source: str) -> bool:
    """Return whether an imported name belongs to the package: from a submodule or a private module."""
    return source.startswith((package + ".", "_"))


def _namespace(module: Module, modules: dict[str, Module]) -> set[str]:
    """Return the public names that a module imports, including those of star imports."""
    names = set(module.imports)
    for source in module.star_imports:
        if source in modules and source != module.name:
            names |= _star_names(modules[source], modules, MAX_IMPORT_CHAIN)
    if module.exported:
        names |= set(module.exported)
    return {name for name in names if _is_public(name)}


def _star_names(module: Module, modules: dict[str, Module], depth: int) -> set[str]:
    if module.exported is not None:
        return set(module.exported)
    names = set(module.imports) | {name for name in module.definitions if "." not in name}
    for source in module.star_imports if depth else ():
        if source in modules:
            names |= _star_names(modules[source], modules, depth - 1)
    return {name for name in names if _is_public(name)}


def _resolve(
    module_name: str,
    name: str,
    modules: dict[str, Module],
    definitions: dict[tuple[str, str], Definition],
    depth: int = MAX_IMPORT_CHAIN,
) -> tuple[str, str] | None:
    """Follow imports from a name in a module to its definition."""
    if (module_name, name) in definitions:
        return module_name, name
    if module_name not in modules or not depth:
        return None
    module = modules[module_name]
    if name in module.imports:
        return _resolve(*module.imports[name], modules, definitions, depth - 1)
    for source in module.star_imports:
        if source in modules and name in _star_names(modules[source], modules, depth):
            found = _resolve(source, name, modules, definitions, depth - 1)
            if found:
                return found
    return None
