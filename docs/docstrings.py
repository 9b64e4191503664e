"""Docstrings of the house style as numpydoc has them: what `mkdocstrings` needs to make tables of.

We write ``name : what it is.`` on one line, and several short ones on the same. numpydoc takes what stands behind the
colon for a type. Types are in the signature already.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SECTION = re.compile(
    r"^(Parameters|Attributes|Raises)\n-{4,}\n(.*?)(?=\n\n\S|\n\S[^\n]*\n-{4,}|\Z)", re.MULTILINE | re.DOTALL
)
_NEXT = re.compile(r"(?<=[.;]) (?=[A-Za-z_][\w, ]* : )")
_ENTRY = re.compile(r"^([A-Za-z_][\w, ]*) : (.*)$")


class OneLineEntries(Extension):
    """Write entries of sections the way that griffe reads them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of `obj`."""
        if obj.docstring is not None:
            obj.docstring.value = _SECTION.sub(_standard, obj.docstring.value)


def _standard(match: re.Match[str]) -> str:
    title, body = match[1], match[2]
    lines = [part for line in body.split("\n") for part in ([line] if line[:1] == " " else _NEXT.split(line))]
    out = [title, "-" * len(title)]
    for line in lines:
        entry = _ENTRY.match(line)
        if entry:
            out += [entry[1], "    " + entry[2]]
        elif line.strip():
            out.append("    " + line.strip())
    return "\n".join(out)
