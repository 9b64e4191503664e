"""Closed sets: quality of samples, codes of rejects, codes of problems, exit codes."""

from __future__ import annotations

import ast
import inspect

from generator.prose import NOTICE, code, table
from headrace.cli.exits import Exit
from headrace.core.events import RejectCode
from headrace.core.quality import USABLE_BELOW, Quality, word
from headrace.runtime.control_routes import PROBLEM_CODES

HEAD = """\
# Codes

Sets that are closed: programs may rely on them, and a new member is noted in the [changelog](../../CHANGELOG.md).
"""


def page() -> str:
    """The page of codes."""
    return "\n".join([HEAD, NOTICE, _qualities(), _rejects(), _problems(), _exits()])


def _qualities() -> str:
    texts = _attribute_texts(Quality)
    rows = [
        (code(word(q)), code(f"0x{q:02X}"), "yes" if q < USABLE_BELOW else "no", texts[q.name])
        for q in Quality
    ]
    text = "## Quality\n\nEach sample has one; the numbers stand in segments and Parquet exports.\n\n"
    return text + table(("quality", "number", "in aggregates", "meaning"), rows)


def _rejects() -> str:
    texts = _attribute_texts(RejectCode)
    rows = [(code(str(one)), texts[one.name]) for one in RejectCode]
    text = "## Rejects\n\nWhy input was refused: label `code` of `headrace_samples_rejected_total`, and `headrace rejects`.\n\n"
    return text + table(("code", "meaning"), rows)


def _attribute_texts(cls: type) -> dict[str, str]:
    """Name of each member → the text below it."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(below, ast.Expr):
            name, value = statement.targets[0], below.value
            assert isinstance(name, ast.Name)
            assert isinstance(value, ast.Constant)
            found[name.id] = str(value.value)
    return found


def _problems() -> str:
    rows = [(code(word), str(status)) for status, word in PROBLEM_CODES.items()]
    text = "## Problems { #problems }\n\n`code` of an error over HTTP (RFC 9457); `detail` is a sentence for people.\n\n"
    return text + table(("code", "status"), rows)


def _exits() -> str:
    texts = _attribute_texts(Exit)
    rows = [(str(int(one)), texts[one.name]) for one in Exit]
    return "## Exit codes\n\nOf every command.\n\n" + table(("code", "meaning"), rows)
