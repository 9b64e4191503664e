"""How lines of a file or of a program are written, and where their values go: a section of a plant file.

Lines of one rule are CSV, JSON or line protocol. CSV and JSON with a `path` are of the device that it names; without one
each line names its sensors itself (CSV in a column ``path``, JSON as ``path`` or ``device``), as line protocol does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.adapters.payloads.base import RuleSettings, TimeUnit, ValueType
from headrace.adapters.payloads.csv_cells import CsvDialect
from headrace.adapters.payloads.tag_paths import TagPath, compile_tag_path, default_template
from headrace.adapters.payloads.topics import KEY, PathTemplate, parse_template
from headrace.core.errors import ConfigError
from headrace.core.paths import check_path
from headrace.core.settings import Section

Encoding = Literal["utf-8", "latin-1", "cp1252"]


class LineRule(Section):
    """How lines are written, and where their values go."""

    path: str | None = Field(
        default=None,
        description="path of the sensors; ends in {key}, the column's or member's name ({field} in line protocol). "
        "Without it lines name their sensors themselves",
    )
    time: str | None = Field(
        default=None, description="column or key of the time; without it the time at which a line was read"
    )
    time_unit: TimeUnit = Field(
        default="auto",
        description="of times given as numbers; auto goes by their size, and is ns in line protocol",
    )
    value: str = Field(
        default="value", description="column of the values where a column path names the sensors"
    )
    root: str = Field(default="", description="key (nested: a.b) of the JSON object that holds the values")
    types: dict[str, ValueType] = Field(
        default_factory=dict, description="value types by key, where not as first found"
    )
    units: dict[str, str] = Field(default_factory=dict, description="units by key")
    columns: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="names of the columns of CSV; without them the first line names them"
    )
    only: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="columns of CSV or Parquet to take; default: all"
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="between the cells of CSV")
    decimal: Literal[".", ","] = Field(default=".", description="before the fraction of numbers in CSV")
    comment: str = Field(
        default="", max_length=1, description="first character of lines of CSV that are none"
    )
    skip: int = Field(
        default=0, ge=0, le=1_000, description="lines of CSV before the one that names the columns"
    )
    encoding: Encoding = Field(default="utf-8", description="of CSV")
    defaults: dict[str, str] = Field(
        default_factory=dict,
        description="values of tags that a line of line protocol does not have, else unknown",
    )
    other_tags: Literal["keep", "drop"] = Field(
        default="keep",
        description="tags of line protocol that the path does not name: keep adds them to the level before {field}",
    )
    max_keys: int = Field(default=1_024, ge=1, le=65_535, description="keys of one device; more are refused")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decimal == self.delimiter:
            raise ValueError('numbers with a "," need another delimiter; write delimiter = ";"')
        if len({*map(ord, (self.delimiter + self.comment))} - set(range(128))):
            raise ValueError("delimiter and comment are ASCII characters")
        if self.columns and (len(set(self.columns)) != len(self.columns) or "" in self.columns):
            raise ValueError("columns has a name twice or one that is empty")
        if self.columns and self.time is not None and self.time not in self.columns:
            raise ValueError(f"columns has no {self.time!r} for the time")
        return self

    @property
    def settings(self) -> RuleSettings:
        """The part that all decoders share."""
        return RuleSettings(
            path=self.path or f"{{device}}/{{{KEY}}}",
            time=self.time,
            time_unit=self.time_unit,
            root=self.root,
            types=self.types,
            units=self.units,
            max_keys=self.max_keys,
        )

    @property
    def dialect(self) -> CsvDialect:
        """How its CSV is written."""
        return CsvDialect(self.delimiter, self.decimal, self.comment, self.skip, self.encoding)


@dataclass(frozen=True, slots=True)
class LinePaths:
    """Where the values of a rule go.

    Parameters
    ----------
    template : of the device's path, where the rule names one. naming : of the series of line protocol.
    """

    template: PathTemplate | None
    naming: TagPath | None


def compile_paths(
    rule: LineRule, names: tuple[str, ...], levels: tuple[str, ...], is_line_protocol: bool
) -> LinePaths:
    """Read a rule's path.

    Parameters
    ----------
    names : that the path may have in it, from a file's name. levels : of the plant's paths (empty: any number).

    Raises
    ------
    ConfigError : it can't be one.
    """
    if is_line_protocol:
        template = rule.path or default_template(levels or ("site", "area", "line", "device", "signal"))
        return LinePaths(None, compile_tag_path(template, levels, rule.defaults, rule.other_tags == "keep"))
    if rule.path is None:
        return LinePaths(None, None)
    parsed = parse_template(rule.path, names, has_key=True)
    check_path(parsed.fill(dict.fromkeys(names, "x")))
    n_levels = rule.path.count("/") + 1
    if levels and n_levels != len(levels):
        raise ConfigError(
            f"path {rule.path!r} has {n_levels} levels, expected {len(levels)}: {'/'.join(levels)}"
        )
    return LinePaths(parsed, None)
