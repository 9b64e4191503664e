"""What sections of a plant file are made of: durations, sizes, secrets, signals of a profile.

Pydantic models, frozen and closed: an unknown key is refused, and `headrace.core.problems` names the nearest
known one. Types are taken as written: the text ``"1"`` is no number.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from headrace.core.clock import NO_TIME, NS
from headrace.core.dead_bands import SignalBand
from headrace.core.errors import ConfigError
from headrace.core.grids import composed
from headrace.core.layouts import Column, Kind
from headrace.core.paths import format_duration, parse_duration_ns, parse_size_bytes, pattern_regex
from headrace.core.registry import nearest

_YEAR_MAX = 2261
"""Until then nanoseconds have 63 bits."""


class Section(BaseModel):
    """Base of every section: frozen, closed, types as written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)


def _said(parse: Any, value: Any, what: str) -> Any:
    """Run one of our parsers inside a pydantic validator, whose errors are `ValueError`."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not {what}")
    try:
        return parse(value)
    except ConfigError as e:
        raise ValueError(e.message) from e


def _duration(value: Any) -> Any:
    return _said(parse_duration_ns, value, "a duration; write a number and a unit: '250ms', '5s', '1m', '2h'")


def _size(value: Any) -> Any:
    return _said(parse_size_bytes, value, "a size; write a number and a unit: '64MB', '8GB'")


def _kind(value: Any) -> Any:
    known = {k.name.lower(): k for k in Kind}
    if isinstance(value, Kind):
        return value
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}{nearest(str(value), list(known))}")
    return known[value]


def _pattern(value: str) -> str:
    _said(pattern_regex, value, "a pattern")
    return value


def _template(value: str) -> str:
    left = re.sub(r"\{(parent|signal|agg)\}", "x", value)
    if left == value or re.search(r"[{}]", left):
        raise ValueError(
            f"{value!r} is not a template; write a path with {{parent}}, {{signal}} and {{agg}}: "
            "'{parent}/{signal}_{agg}_1m'"
        )
    return value


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{value!r} is not host:port; write '127.0.0.1:8844'")
    if not host or host == "*":
        raise ValueError("names no address; write '0.0.0.0:8844' for every one of this machine")
    return value


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as e:
            raise ValueError(f"{value!r} is not a date; write '2026-01-31' or '2026-01-31T06:00:00Z'") from e
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 plant time, see `Calibration.from_ns`
    if isinstance(value, datetime) and not 1970 <= value.year <= _YEAR_MAX:
        raise ValueError(f"{value.date()} is not a date from 1970 to {_YEAR_MAX}")
    return value


def _not_zero(value: float) -> float:
    if value == 0 or not math.isfinite(value):
        raise ValueError(f"{value:g} is not a scale: a finite number that is not 0")
    return value


def with_texts(value: Any) -> Any:
    """TOML's dates as text, so that what is written is JSON-ready wherever it goes."""
    if isinstance(value, dict):
        return {key: with_texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_texts(one) for one in value]
    return value.isoformat() if isinstance(value, date | time) else value


def check_url(value: str) -> str:
    """Return `value` where it holds no password.

    Raises
    ------
    ValueError : a password stands in it; the text does not repeat it.
    """
    if urlsplit(value).password is not None:
        raise ValueError('a password does not belong into a URL; write password = { env = "NAME" } beside it')
    return value


DurationNs = Annotated[
    int,
    BeforeValidator(_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
    Field(gt=0),
]
"""Nanoseconds, written with a unit: ``"250ms"``."""

SizeBytes = Annotated[int, BeforeValidator(_size, json_schema_input_type=str), Field(gt=0)]
"""Bytes, written with a unit: ``"64MB"``."""

KindName = Annotated[
    Kind,
    BeforeValidator(
        _kind, json_schema_input_type=Literal["analog", "discrete", "counter", "event", "waveform"]
    ),
    PlainSerializer(lambda kind: kind.name.lower(), return_type=str),
]
"""A signal's kind by its name."""

PathPattern = Annotated[str, AfterValidator(_pattern)]
"""A pattern of sensor paths."""

WriteTemplate = Annotated[str, AfterValidator(_template)]
"""The path of what a pipeline writes, with places."""

ListenAddress = Annotated[str, AfterValidator(_listen)]
"""host:port of our own."""

PlainUrl = Annotated[str, AfterValidator(check_url)]
"""A URL without a password."""


class SecretRef(Section):
    """Where a secret is kept: an environment variable or a file; never in the plant file itself."""

    env: str | None = Field(default=None, description="name of the environment variable that holds it")
    file: str | None = Field(default=None, description="file that holds it, looked up beside the plant file")

    @model_validator(mode="before")
    @classmethod
    def _one_of_both(cls, data: Any) -> Any:
        # Not one word of what was written: it may be the secret.
        if not isinstance(data, Mapping) or len(data) != 1 or not data.keys() <= {"env", "file"}:
            raise ValueError('a secret is { env = "NAME" } or { file = "PATH" }, never the secret itself')
        return data

    def read(self, folder: Path) -> str:
        """The secret; files are looked up from `folder`, their last line break is dropped.

        Raises
        ------
        ConfigError : the variable isn't set or the file can't be read.
        """
        if self.env is not None:
            if self.env not in os.environ:
                raise ConfigError(
                    f"environment variable {self.env} is not set; set it or use {{ file = ... }}"
                )
            return os.environ[self.env]
        path = folder / str(self.file)
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"secret file {path} can't be read: {getattr(e, 'strerror', None) or e}") from e


Scale = Annotated[float, Field(strict=False), AfterValidator(_not_zero)]
"""A factor that can be undone."""

Finite = Annotated[float, Field(strict=False, allow_inf_nan=False)]
"""A number, neither infinite nor NaN."""


class Calibration(Section):
    """What was found out about a sensor, from a date on: corrected value = value * scale + add."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    from_: Annotated[
        datetime, BeforeValidator(_moment, json_schema_input_type=str), PlainSerializer(str, return_type=str)
    ] = Field(alias="from", description="from when on it holds; without an offset it is plant time")
    scale: Scale = Field(default=1.0, description="factor of the correction")
    add: Finite = Field(default=0.0, description="what is added, in the unit of the signal")

    def from_ns(self, zone: tzinfo) -> int:
        """From when on it holds, ns; a date without an offset is one of `zone`."""
        when = self.from_ if self.from_.tzinfo is not None else self.from_.replace(tzinfo=zone)
        since = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * NS + since.microseconds * 1_000


class SignalTreatment(Section):
    """What is made of the values of a signal, whichever adapter they come from.

    What the source sends becomes a value step by step: scale and add of its address, those of the signal, the
    calibration of the day, the conversion to another unit. All of it is the column's grid: stored is what was sent.
    """

    unit: str = Field(default="", description="engineering unit of the values")
    kind: KindName = Field(
        default="analog",
        validate_default=True,
        description="how it behaves: counters only rise, discrete ones have few values",
    )
    limits: Annotated[tuple[float | None, float | None], Field(strict=False)] = Field(
        default=(None, None), description="lowest and highest value that can be right; others get bad-range"
    )
    labels: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="names of the values 0, 1, 2 ... of a discrete signal"
    )
    scale: Scale = Field(default=1.0, description="factor from what the address gives to `unit`")
    add: Finite = Field(default=0.0, description="what is added to that")
    convert_to: str | None = Field(
        default=None, description="unit in which values are stored and limits written, instead of `unit`"
    )
    calibration: Annotated[tuple[Calibration, ...], Field(strict=False)] = Field(
        default=(), description='corrections, each from a date on: [{ from = "2026-01-01", scale = 1.01 }]'
    )
    dead_band: Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)] | None = Field(
        default=None,
        description="values that differ by no more from the last one stored are left out (thinned)",
    )
    heartbeat: DurationNs = Field(
        default="5m", validate_default=True, description="longest time without a stored value in a dead band"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "heartbeat" in self.model_fields_set and self.dead_band is None:
            raise ValueError("a heartbeat belongs to a dead_band; write dead_band = 0 for values that change")
        return self

    def grid(self, at_ns: int = NO_TIME, zone: tzinfo = UTC, unit: str = "") -> tuple[float, float]:
        """(scale, offset) from what the address gives to stored values, as it holds at a time.

        Parameters
        ----------
        at_ns : `NO_TIME`: before every calibration. zone : of calibrations' dates without an offset.
        unit : that the source says, where none is written.

        Raises
        ------
        ConfigError : a unit that can't be converted, or is not known.
        """
        grid = self.scale, self.add
        begun = [one for one in self.calibration if one.from_ns(zone) <= at_ns]
        if begun:
            latest = max(begun, key=lambda one: one.from_ns(zone))
            grid = composed(grid, (latest.scale, latest.add))
        if self.convert_to is not None:
            from headrace.core.units import conversion

            source_unit = self.unit or unit
            if not source_unit:
                raise ConfigError(
                    f"convert_to = {self.convert_to!r} needs the unit of what is converted, and its source tells none; "
                    "write unit = ..."
                )
            grid = composed(grid, conversion(source_unit, self.convert_to))
        return grid

    def changes_ns(self, zone: tzinfo = UTC) -> list[int]:
        """When its grid changes, in order."""
        return sorted(one.from_ns(zone) for one in self.calibration)

    def column(self, name: str, at_ns: int = NO_TIME, zone: tzinfo = UTC) -> Column:
        """The signal as a column, but for the grid of its address. An infinite limit is none. Raises as `grid`."""
        low, high = (None if v is None or math.isinf(v) else v for v in self.limits)
        scale, offset = self.grid(at_ns, zone)
        unit = self.unit if self.convert_to is None else self.convert_to
        return Column(name, self.kind, unit, scale, offset, low, high, self.labels)

    @property
    def is_treated(self) -> bool:
        """Whether more is said of its values than what they are."""
        return bool(self.model_fields_set & {"scale", "add", "convert_to", "calibration", "dead_band"})

    @property
    def band(self) -> SignalBand | None:
        """Its dead band, where it has one."""
        return None if self.dead_band is None else SignalBand(self.dead_band, self.heartbeat)


class _Addressed(Section):
    address: str = Field(description="where the device keeps it, as its protocol writes addresses")


class SignalSettings(SignalTreatment, _Addressed):
    """One signal of a profile: where the device keeps it, and what is made of its values."""

    @model_validator(mode="after")
    def _has_unit(self) -> Self:
        if self.convert_to is not None and not self.unit:
            raise ValueError("convert_to needs the unit of what is converted; write unit = ...")
        return self


class CodecSettings(Section):
    """``[codecs.<name>]``: what is said about the codecs of some sensors."""

    match: PathPattern = Field(
        description="pattern of the sensors; the most specific one that matches counts"
    )
    use: str | None = Field(
        default=None,
        description="codec of the values, wherever it can hold them; one with a bound only where a bound is given",
    )
    forbid: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="codecs of values that are never taken"
    )
    weight: Annotated[float, Field(ge=0.0, le=1.0, strict=False)] = Field(
        default=0.0, description="0: the smallest chunks; 1: those that are decoded fastest"
    )
