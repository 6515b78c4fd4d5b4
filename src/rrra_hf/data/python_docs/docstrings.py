"""The signature, the first sentence and the rest of a docstring."""

from __future__ import annotations

import re

_SIGNATURE_LINE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?\Z", re.DOTALL)
_UNDERLINE = re.compile(r"^[ \t]*([-=~^*])\1{2,}[ \t]*$\n?", re.MULTILINE)
_VERSION_NOTE = re.compile(r"^[ \t]*\.\. version\w+::.*$\n?", re.MULTILINE)
_DIRECTIVE = re.compile(r"^([ \t]*)\.\. ([\w-]+)::", re.MULTILINE)
_PLACEHOLDER = re.compile(r"^[ \t]*\{\w+\}[ \t]*$\n?", re.MULTILINE)
_ROLE = re.compile(r":[\w:+-]+:`([^`]*)`")
_LITERAL = re.compile(r"``([^`]*)``|`([^`\n]*)`_{0,2}")
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)(?<!\bcf)[.!?](?=\s|\Z)")


def split_docstring(docstring: str) -> tuple[str, str, str]:
    """Split a docstring into its signature, which may be empty, its first sentence, and the rest.

    Markup of reStructuredText is removed: roles, back-quotes, underlines and version notes.

    Example:
        >>> split_docstring("abs(x) -> Tensor\\n\\nComputes the :attr:`absolute` value. Fast.\\n\\nMore.")
        ('abs(x) -> Tensor', 'Computes the absolute value', 'Fast. More.')
    """
    text = docstring
    for pattern in (_UNDERLINE, _VERSION_NOTE, _PLACEHOLDER):
        text = pattern.sub("", text)
    text = _DIRECTIVE.sub(r"\1\2:", text)
    text = _ROLE.sub(lambda match: match[1].split("<")[0].strip().rpartition("~")[2], text)
    text = _LITERAL.sub(lambda match: match[1] or match[2] or "", text)
    text = text.replace(">>> ", "").strip()
    signature = ""
    first, _, rest = text.partition("\n\n")
    if _SIGNATURE_LINE.match(first.strip()):
        signature, text = " ".join(first.split()), rest.strip()
        first, _, rest = text.partition("\n\n")
    first = " ".join(first.split())
    end = _SENTENCE_END.search(first)
    summary = first[: end.start()] if end else first
    remainder = first[end.end() :] if end else ""
    return signature, summary.rstrip(" .:"), " ".join(f"{remainder} {rest}".split())
