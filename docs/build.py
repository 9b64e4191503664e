"""Write the pages that follow from the code: ``python docs/build.py``.

`formats.md` is made of the docstrings of the modules that read and write each format, `metrics.md` of the
catalogue of metrics. A test fails where a page and the code differ.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PARTS = (
    (
        "The journal",
        (
            "headrace.ingest.journal",
            "headrace.ingest.journal_format",
            "headrace.core.frame_packing",
            "headrace.ingest.rejects",
        ),
    ),
    ("Kept rejects", ("headrace.ingest.rejects_log",)),
    ("Configurations", ("headrace.runtime.versions", "headrace.runtime.pipelines")),
    ("Commits", ("headrace.store.flush", "headrace.store.commits")),
    ("Segments", ("headrace.store.segment", "headrace.store.schema", "headrace.store.chunks")),
    ("Encoded runs", ("headrace.codecs.block", "headrace.codecs.columns")),
    ("The warm tier", ("headrace.store.manifests",)),
    ("Rollups", ("headrace.store.rollups",)),
    ("The sensor directory", ("headrace.store.directories", "headrace.core.directory_file")),
    ("The running engine", ("headrace.runtime.announcement",)),
)
HEAD = """\
# What is on disk

A store is one folder. Everything in it is either written once, whole and only if it is absent, or it is the journal,
which only grows. So a copy made with `cp -r` or `rsync` while no engine runs is a backup, and any Parquet tool can
read the segments.

| path | what |
|---|---|
| `journal/<incarnation>/<n>.hrj` | what was received, before it is acknowledged; trimmed once it is in segments |
| `commits/<incarnation>/<m>.json` | what the store holds, and how far the journal is in it |
| `segments/` | Parquet files of encoded runs: `hot` as they were flushed, `warm` sorted by sensor, a day each |
| `manifests/warm/<day>/` | which warm files make up a day |
| `rollups/1m/<day>/` | each minute of each sensor as plain Parquet, for any other tool |
| `state/` | snapshots of the shards' state, so that a restart need not replay much |
| `directory/` | the sensors: paths, groups, layouts |
| `store.json` | the version of the format |
| `running.json` | the engine that runs: process and address; gone when it stops |

Each format carries a version and checksums. What follows is the text of the modules that read and write them.
"""


def formats_page() -> str:
    """The page of formats."""
    lines = [HEAD]
    for title, modules in PARTS:
        lines += [f"## {title}", ""]
        for name in modules:
            lines += [f"### `{name}`", "", markdown(inspect.getdoc(importlib.import_module(name)) or ""), ""]
    return "\n".join(lines)


def markdown(text: str) -> str:
    """A docstring as Markdown: tables, literal blocks and headings differ."""
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


def _table(rule: str, lines: object) -> list[str]:
    starts = [match.start() for match in re.finditer(r"=+", rule)]
    edges = list(zip(starts, [*starts[1:], None], strict=True))
    head = _cells(next(lines), edges)  # type: ignore[call-overload]
    rows: list[list[str]] = []
    for line in lines:  # type: ignore[attr-defined]
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


def pages() -> dict[str, str]:
    """File name → text of every page that follows from the code."""
    from headrace.metrics.catalog import catalog_page

    return {"formats.md": formats_page(), "metrics.md": catalog_page()}


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
