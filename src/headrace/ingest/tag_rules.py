r"""Rules that make rows of the normalised table: what a column means, and how names become paths.

A template fills in what a row has: ``leon/{area}/{line}/{device}/{signal}``. Names are columns of the normalised table,
headings as they stand in the file, and named groups of a capture: ``device=(?P<line>L\d+)_(?P<machine>\w+)`` takes a
device's name apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.adapters.abilities import FoundTag
from headrace.core.errors import ConfigError
from headrace.core.profile_tables import MORE_COLUMNS, label_text, number_text
from headrace.core.quality import Quality, word
from headrace.core.registry import nearest
from headrace.ingest.tag_files import ForeignTable
from headrace.ingest.tag_rows import COLUMNS, TagRow
from headrace.ingest.tag_words import (
    column_of,
    dtype_of,
    is_boolean,
    kind_of,
    labels_of,
    number_of,
    plain_word,
    unit_of,
)

GOOD = word(Quality.GOOD)
_FIELD = re.compile(r"\{([^{}]+)\}")
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\ud800-\udfff*{},#+\s]+")


def tidy_name(text: str) -> str:
    """A name that can stand in a path, as like the one that was given as may be: ``Oven #1`` → ``Oven_1``."""
    levels = (_NOT_IN_NAMES.sub("_", level.strip()) for level in text.split("/"))
    return "/".join(level for level in (re.sub(r"__+", "_", one).strip("_") for one in levels) if level)


@dataclass(frozen=True)
class TagRules:
    """How what was found becomes rows.

    Parameters
    ----------
    levels : names of a path's levels. path, url, address : templates; empty: what the columns say.
    captures : (name of a field, regular expression with named groups), in their order.
    renames : heading → column, where it is not understood by itself. is_tidy : names are made fit for paths.
    adapter : of all rows that name none.
    """

    levels: Sequence[str]
    path: str = ""
    url: str = ""
    address: str = ""
    captures: Sequence[tuple[str, re.Pattern[str]]] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    is_tidy: bool = False
    adapter: str = ""

    @classmethod
    def of(
        cls,
        levels: Sequence[str],
        captures: Iterable[str] = (),
        renames: Iterable[str] = (),
        **more: Any,
    ) -> TagRules:
        """From texts as a command line has them: captures ``FIELD=REGEX``, renames ``HEADING=COLUMN``.

        Raises
        ------
        ConfigError : one is not written so, its expression is none, or there is no such column.
        """
        columns: dict[str, str] = {}
        known = [*(c for c in COLUMNS if c not in ("problem", "remark")), *MORE_COLUMNS, *levels]
        for text in renames:
            heading, equals, column = text.rpartition("=")
            if not equals or not heading.strip():
                raise ConfigError(
                    f"{text!r} is not written HEADING=COLUMN, as in 'Register=address'", "--map"
                )
            if column.strip() not in known:
                raise ConfigError(f"no column {column.strip()!r}{nearest(column.strip(), known)}", "--map")
            if column.strip() in columns.values():
                raise ConfigError(f"two headings can't both be {column.strip()!r}", "--map")
            columns[plain_word(heading)] = column.strip()
        return cls(tuple(levels), captures=tuple(map(_capture, captures)), renames=columns, **more)

    # --- rows ----------------------------------------------------------------------------------------

    def of_table(self, table: ForeignTable) -> list[TagRow]:
        """Rows of a foreign table.

        Raises
        ------
        ConfigError : a heading that was to be renamed is not there.
        """
        columns = self._columns(table)
        words = [plain_word(heading) for heading in table.head]
        rows = []
        for line in table.lines:
            texts = [" ".join(cell.split()) for cell in line[: len(words)]]
            cells = {column: texts[at] for at, column in columns.items() if at < len(texts) and texts[at]}
            fields = {name: text for name, text in zip(words, texts, strict=False) if name and text}
            rows.append(self._row(cells, fields))
        return rows

    def _columns(self, table: ForeignTable) -> dict[int, str]:
        """Index of each column that is understood → what it is. What a heading says plainly counts before a guess."""
        words = [plain_word(heading) for heading in table.head]
        missing = next((heading for heading in self.renames if heading not in words), None)
        if missing is not None:
            raise ConfigError(
                f"{table.name} has no column {missing!r}{nearest(missing, table.head)}", "--map"
            )
        levels = {plain_word(level): level for level in self.levels}
        found: dict[int, str] = {
            at: self.renames[name] for at, name in enumerate(words) if name in self.renames
        }
        exact = {name: name for name in (*COLUMNS, *MORE_COLUMNS)}
        for meaning in (exact.get, levels.get, column_of):
            for at, name in enumerate(words):
                column = meaning(table.head[at] if meaning is column_of else name)
                if column is not None and at not in found and column not in found.values():
                    found[at] = column
        return {at: column for at, column in found.items() if column not in ("problem", "remark")}

    def of_scan(self, tags: Iterable[FoundTag]) -> list[TagRow]:
        """Rows of what a source offers."""
        rows = []
        for tag in tags:
            cells = {
                "device": tag.device, "signal": tag.name, "address": tag.address, "dtype": tag.dtype, "unit": tag.unit,
                "kind": tag.kind if tag.kind != "analog" else "", "value": value_text(tag.value),
                "quality": tag.quality if tag.value is not None or tag.quality != GOOD else "", "path": tag.path,
            }  # fmt: skip
            row = self._row({name: " ".join(text.split()) for name, text in cells.items() if text}, {})
            rows.append(row.with_problem(tag.problem) if tag.problem else row)
        return rows

    def _row(self, cells: dict[str, str], fields: Mapping[str, str]) -> TagRow:
        fields = {**fields, **{plain_word(name): text for name, text in cells.items()}}
        problems = []
        for name, pattern in self.captures:
            text = fields.get(plain_word(name), "")
            match = pattern.search(text)
            if match is None:
                problems.append(f"{name} {text!r} does not match {pattern.pattern!r}")
            else:
                fields |= {plain_word(group): value for group, value in match.groupdict("").items()}
        cells = _understood(cells)
        fields |= {plain_word(name): cells[name] for name in ("dtype", "unit") if name in cells}
        for column, template in (("url", self.url), ("address", self.address)):
            if template:
                cells[column] = _filled(template, fields, problems, f"the {column}")
        path = self._path(cells, fields, problems)
        levels = {plain_word(level) for level in self.levels}
        more = {
            name: text
            for name, text in cells.items()
            if name not in COLUMNS and plain_word(name) not in levels
        }
        known = {name: text for name, text in cells.items() if name in COLUMNS}
        row = TagRow(**{**known, "path": path, "adapter": cells.get("adapter", self.adapter)}, more=more)
        for problem in problems:
            row = row.with_problem(problem)
        return row

    def _path(self, cells: Mapping[str, str], fields: Mapping[str, str], problems: list[str]) -> str:
        """The path: by the template, as it stands, from a column for each level, or device and signal."""
        names = [plain_word(level) for level in self.levels]
        if self.is_tidy:
            fields = {name: tidy_name(text) for name, text in fields.items()}
        if self.path:
            path = _filled(self.path, fields, problems, "the path")
        elif "path" in cells:
            path = cells["path"]
        elif all(name in fields for name in names):
            path = "/".join(fields[name] for name in names)
        elif "device" in fields and "signal" in fields:
            path = f"{fields['device']}/{fields['signal']}"
        else:
            problems.append("nothing says its path: name one with --path")
            return ""
        return tidy_name(path) if self.is_tidy else path


def _capture(text: str) -> tuple[str, re.Pattern[str]]:
    name, equals, expression = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{text!r} is not written FIELD=REGEX, as in 'device=(?P<line>L\\d+)'", "--capture")
    try:
        pattern = re.compile(expression)
    except (re.error, RecursionError) as e:
        raise ConfigError(f"{expression!r} is no regular expression: {e}", "--capture") from e
    if not pattern.groupindex:
        raise ConfigError(f"{expression!r} has no named group, as in (?P<line>L\\d+)", "--capture")
    return name.strip(), pattern


def _filled(template: str, fields: Mapping[str, str], problems: list[str], what: str) -> str:
    """A template with what a row has; what it lacks is a problem."""
    missing = []

    def value(match: re.Match[str]) -> str:
        text = fields.get(plain_word(match[1]), "")
        if not text:
            missing.append(match[1])
        return text

    filled = _FIELD.sub(value, template)
    if missing:
        lacks = " and ".join("{" + name + "}" for name in dict.fromkeys(missing))
        problems.append(f"{what} needs {lacks}, which this row does not have")
        return ""
    return filled


def value_text(value: float | bool | str | None) -> str:
    """A sample as a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else number_text(value)


def _understood(cells: Mapping[str, str]) -> dict[str, str]:
    """Cells in Headrace's words, where they are understood."""
    out = dict(cells)
    if "dtype" in out:
        if is_boolean(out["dtype"]):
            out.setdefault("kind", "discrete")
        out["dtype"] = dtype_of(out["dtype"]) or out["dtype"]
    if "kind" in out:
        out["kind"] = kind_of(out["kind"]) or out["kind"]
    if "unit" in out:
        out["unit"] = unit_of(out["unit"])
    for name in ("low", "high"):
        number = number_of(out[name]) if name in out else None
        if number is not None:
            out[name] = number_text(number)
    if "labels" in out and not out["labels"].startswith("["):
        labels = labels_of(out["labels"])
        out["labels"] = label_text(labels) if labels is not None else out["labels"]
    return {name: text for name, text in out.items() if text and (name, text) != ("kind", "analog")}
