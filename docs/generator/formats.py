"""What is on disk: the docstrings of the modules that read and write each format."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

from generator.prose import markdown
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS
from headrace.core.registry import Registry

_SECTION = re.compile(r"^(?:Parameters|Examples)\n-{4,}$", re.MULTILINE)

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
    (
        "Segments",
        ("headrace.store.segment", "headrace.store.schema", "headrace.core.grids", "headrace.store.chunks"),
    ),
    (
        "Encoded runs",
        (
            "headrace.codecs.bits",
            "headrace.codecs.block",
            "headrace.codecs.columns",
            "headrace.codecs.grid",
            "headrace.codecs.wave",
        ),
    ),
    (
        "Chunks of one sensor",
        (
            "headrace.store.warm",
            "headrace.codecs.series_kernels",
            "headrace.codecs.origins",
            "headrace.codecs.integers",
            "headrace.codecs.adaptive",
            "headrace.codecs.lpc",
            "headrace.codecs.levels",
            "headrace.codecs.spacing",
            "headrace.codecs.runs",
            "headrace.codecs.lines",
            "headrace.codecs.sibling",
            "headrace.codecs.shared_pages",
            "headrace.codecs.gorilla",
        ),
    ),
    ("The warm and the cold tier", ("headrace.store.manifests", "headrace.store.ranges")),
    ("Rollups", ("headrace.store.rollups", "headrace.store.resolutions")),
    ("The sensor directory", ("headrace.store.directories", "headrace.core.directory_file")),
    ("Backups", ("headrace.store.backups",)),
    ("The running engine", ("headrace.runtime.announcement",)),
)
HEAD = """\
# What is on disk

A store is one folder, or a folder and a [bucket](../how-to/bucket.md): then `commits`, `segments`, `manifests`, `rollups`,
`state` and `directory` are objects of the bucket, and the rest is in the folder. Everything in it is either written once,
whole and only if it is absent, or it is the journal, which only grows. How to copy it, also while an engine runs:
[back up and verify](../how-to/backup.md).

| path | what |
|---|---|
| `journal/<incarnation>/<n>.hrj` | what was received, before it is acknowledged; trimmed once it is in segments |
| `commits/<incarnation>/<m>.json` | what the store holds, and how far the journal is in it |
| `segments/` | Parquet files of encoded runs: `hot` as they were flushed, `warm` sorted by sensor, a day each, `cold` 30 days |
| `manifests/warm/<day>/` | which warm files make up a day |
| `manifests/cold/<bucket>/` | which files make up 30 days of the cold tier |
| `tiers/ranges.parquet` | ranges of sensors that bounds are shares of, once fixed |
| `rollups/1m/<day>/` | each minute of each sensor as plain Parquet, for any other tool |
| `state/` | snapshots of the shards' state, those of a flush in one object, so that a restart need not replay much |
| `directory/` | the sensors: paths, groups, layouts |
| `rejects/` | refused input, kept for replay, as Parquet |
| `config/` | the configurations that were in force, numbered |
| `audit.jsonl` | who changed what, and when: one JSON object a line |
| `store.json` | the bucket, and how it is reached, where the store is in one |
| `running.json` | the engine that runs: process and address; gone when it stops |

Each format carries a version and checksums. [The format of a store](../format.md) says how the parts go together and how a
reader goes about it. What follows is the text of the modules that read and write them.
"""


def page() -> str:
    """The page of formats."""
    lines = [HEAD]
    for title, modules in PARTS:
        lines += [f"## {title}", ""]
        for name in modules:
            lines += [f"### `{name}`", "", markdown(inspect.getdoc(importlib.import_module(name)) or ""), ""]
        if title == "Chunks of one sensor":
            lines += _codecs("times", TIME_CODECS) + _codecs("values", VALUE_CODECS)
    return "\n".join(lines)


def _codecs(of: str, table: Registry) -> list[str]:
    """What each built-in codec writes, in the words of its class."""
    lines: list[str] = []
    for name, target in sorted(table.built_in.items()):
        text = inspect.getdoc(table.load(name)) or ""
        module = inspect.getdoc(importlib.import_module(target.partition(":")[0])) or ""
        lines += [
            f"### {of} `{name}`",
            "",
            module.partition("\n\n")[0],
            "",
            markdown(_SECTION.split(text)[0].strip()),
            "",
        ]
        lines += [f"Settings: {_settings(table.load(name))}", ""]
    return lines


def _settings(part: Any) -> str:
    names = [f"`{field.name}`" for field in dataclasses.fields(part)]
    return ", ".join(names) + "." if names else "none."
