"""What sections of a plant file are made of: durations, sizes, secrets, signals of a profile.

Pydantic models, frozen and closed: an unknown key is refused, and `headrace.core.problems` names the nearest
known one. Types are taken as written: the text ``"1"`` is no number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
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

from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Kind
from headrace.core.paths import format_duration, parse_duration_ns, parse_size_bytes, pattern_regex
from headrace.core.registry import nearest


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
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}{nearest(str(value), list(known))}")
    return known[value]


def _pattern(value: str) -> str:
    _said(pattern_regex, value, "a pattern")
    return value


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


class SignalSettings(Section):
    """One signal of a profile: where the device keeps it and what it means."""

    address: str = Field(description="where the device keeps it, as its protocol writes addresses")
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

    def column(self, name: str) -> Column:
        """The signal as a column; its grid comes from the address. An infinite limit is none."""
        low, high = (None if v is None or math.isinf(v) else v for v in self.limits)
        return Column(name, self.kind, self.unit, low=low, high=high, labels=self.labels)


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
