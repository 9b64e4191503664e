"""What is on disk: the docstrings of the modules that read and write each format."""

from __future__ import annotations

import importlib
import inspect

from generator.prose import markdown

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
    ("Encoded runs", ("headrace.codecs.block", "headrace.codecs.columns")),
    (
        "Chunks of one sensor",
        (
            "headrace.store.warm",
            "headrace.codecs.origins",
            "headrace.codecs.integers",
            "headrace.codecs.adaptive",
            "headrace.codecs.lpc",
            "headrace.codecs.levels",
            "headrace.codecs.runs",
            "headrace.codecs.lines",
        ),
    ),
    ("The warm and the cold tier", ("headrace.store.manifests", "headrace.store.ranges")),
    ("Rollups", ("headrace.store.rollups",)),
    ("The sensor directory", ("headrace.store.directories", "headrace.core.directory_file")),
    ("The running engine", ("headrace.runtime.announcement",)),
)
HEAD = """\
# What is on disk

A store is one folder. Everything in it is either written once, whole and only if it is absent, or it is the journal,
which only grows. So a copy made with `cp -r` or `rsync` while no engine runs is a backup: see
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
| `state/` | snapshots of the shards' state, so that a restart need not replay much |
| `directory/` | the sensors: paths, groups, layouts |
| `rejects/` | refused input, kept for replay, as Parquet |
| `config/` | the configurations that were in force, numbered |
| `audit.jsonl` | who changed what, and when: one JSON object a line |
| `store.json` | the version of the format |
| `running.json` | the engine that runs: process and address; gone when it stops |

Each format carries a version and checksums. What follows is the text of the modules that read and write them.
"""


def page() -> str:
    """The page of formats."""
    lines = [HEAD]
    for title, modules in PARTS:
        lines += [f"## {title}", ""]
        for name in modules:
            lines += [f"### `{name}`", "", markdown(inspect.getdoc(importlib.import_module(name)) or ""), ""]
    return "\n".join(lines)
