"""An extension of griffe: this project's names and docstrings as the reference needs them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Name the sections of docstrings as griffe knows them, and find what `__init__` exports.

    Markdown takes the prompt `>>>` for a quotation and has no `::`. A class without a signature, such as a
    named tuple, documents its attributes as arguments. And if a function has the name of its module, griffe
    finds the module where the function is exported.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the sections of a docstring."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        text = re.sub(r"^( +)::$", r"\1In a script:", text, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Document attributes if there is no signature."""
        has_signature = "__init__" in cls.members or any("dataclass" in str(d.value) for d in cls.decorators)
        if not has_signature:
            self._document_attributes(cls)

    def _document_attributes(self, cls: griffe.Class) -> None:
        if cls.docstring is not None:
            cls.docstring.value = re.sub(r"^Args:$", "Attributes:", cls.docstring.value, flags=re.MULTILINE)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Replace modules by the functions of the same name, and give constants a docstring."""
        parts = [part for part in pkg.modules.values() if part.is_init_module]
        functions: dict[str, griffe.Object | griffe.Alias] = {}
        for package in (*parts, pkg):
            for name in map(str, package.exports or ()):
                member = package.members[name]
                if isinstance(member, griffe.Module) and name in member.members:
                    functions[member.path] = member.members[name]
                    self._change_members(member)
                path = member.target_path if isinstance(member, griffe.Alias) else member.path
                if path in functions:
                    package.members[name] = griffe.Alias(name, functions[path], parent=package)
                if name.isupper() and not package.members[name].docstring:
                    package.members[name].docstring = griffe.Docstring(
                        "A constant.", parent=package.members[name]
                    )

    def _change_members(self, module: griffe.Module) -> None:
        """Do what griffe does with the members of a module, as it won't find a module that is replaced."""
        for member in module.members.values():
            if not member.is_alias:
                self.on_object(obj=member)
            if isinstance(member, griffe.Class) and not member.is_alias and "__init__" not in member.members:
                # Not even a data class has a signature here.
                self._document_attributes(member)
