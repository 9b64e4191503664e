"""Docstrings as Markdown, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

NOTICE = "<!-- made by docs/build.py; change the code that it follows from, then run it -->\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells keep their text, whatever is in it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")


def plain(text: str) -> str:
    """Text in which brackets of every kind mean themselves."""
    return text.replace("<", "&lt;").replace("{", "&#123;").replace("[", "&#91;")


def code(text: str) -> str:
    """Text as it is written in a file or on a command line."""
    return f"`{text}`" if text else ""


def markdown(text: str) -> str:
    """A docstring as Markdown: tables, literal blocks, headings and names of code differ."""
    out: list[str] = []
    rule = re.compile(r"=+( =+)+")
    lines = iter(text.splitlines())
    for line in lines:
        if rule.fullmatch(line):
            out += _table(line, lines)
        elif re.fullmatch(r"-{4,}", line):
            out[-1] = f"**{out[-1]}**"
        else:
            out.append(line)
    return re.sub(r"::$", ":", "\n".join(out), flags=re.MULTILINE)


def _table(rule: str, lines: Iterator[str]) -> list[str]:
    starts = [match.start() for match in re.finditer(r"=+", rule)]
    edges = list(zip(starts, [*starts[1:], None], strict=True))
    head = _cells(next(lines), edges)
    rows: list[list[str]] = []
    for line in lines:
        if line == rule:
            if rows:
                break
            continue
        cells = _cells(line, edges)
        if cells[0] or not rows or cells[1]:
            rows.append(cells)
        else:
            rows[-1][-1] += " " + cells[-1]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _cells(line: str, edges: list[tuple[int, int | None]]) -> list[str]:
    return [line[a:b].strip().replace("|", "\\|") for a, b in edges]
