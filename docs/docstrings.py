"""An extension of griffe: this project's names and docstrings as the reference needs them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Names the sections of docstrings as griffe knows them, and finds what `__init__` exports.

    Markdown would take the prompt `>>>` for a quotation, and has no `::`. What a class without a signature,
    such as a named tuple, describes as arguments are its attributes. And where a function is called as its
    module is, griffe takes the module for what is exported.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object as soon as it is read."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        text = re.sub(r"^( +)::$", r"\1In a script:", text, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Describe attributes where there is no signature."""
        has_signature = "__init__" in cls.members or any("dataclass" in str(d.value) for d in cls.decorators)
        if cls.docstring is not None and not has_signature:
            cls.docstring.value = re.sub(r"^Args:$", "Attributes:", cls.docstring.value, flags=re.MULTILINE)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Put what is exported in place of the module of the same name, and let no constant be left out."""
        parts = [part for part in pkg.modules.values() if part.is_init_module]
        functions: dict[str, griffe.Object | griffe.Alias] = {}
        for package in (*parts, pkg):
            for name in map(str, package.exports or ()):
                member = package.members[name]
                if isinstance(member, griffe.Module) and name in member.members:
                    functions[member.path] = member.members[name]
                path = member.target_path if isinstance(member, griffe.Alias) else member.path
                if path in functions:
                    package.members[name] = griffe.Alias(name, functions[path], parent=package)
                if name.isupper() and not package.members[name].docstring:
                    package.members[name].docstring = griffe.Docstring(
                        "A constant.", parent=package.members[name]
                    )
