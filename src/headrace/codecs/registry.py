"""The codecs by name. Nothing heavy is imported before a codec is used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from headrace.core.errors import ConfigError, PluginError
from headrace.core.registry import Registry

if TYPE_CHECKING:
    from headrace.codecs.base import TimeCodec, ValueCodec

VALUE_CODECS = Registry(
    "codecs",
    {
        "byte_planes": "headrace.codecs.byte_planes:BytePlanesCodec",
        "const": "headrace.codecs.const:ConstCodec",
        "gorilla": "headrace.codecs.gorilla:GorillaCodec",
        "hold": "headrace.codecs.hold:HoldCodec",
        "origin": "headrace.codecs.origin:OriginCodec",
        "pco": "headrace.codecs.pco:PcoCodec",
        "piecewise_constant": "headrace.codecs.piecewise_constant:PiecewiseConstantCodec",
        "quantise": "headrace.codecs.quantise:QuantiseCodec",
        "raw": "headrace.codecs.raw:RawCodec",
        "relative": "headrace.codecs.relative:RelativeCodec",
        "rice_delta": "headrace.codecs.rice_delta:RiceDeltaCodec",
        "rle": "headrace.codecs.rle:RleCodec",
        "seasonal": "headrace.codecs.seasonal:SeasonalCodec",
        "swing": "headrace.codecs.swing:SwingCodec",
        "swinging_door": "headrace.codecs.swinging_door:SwingingDoorCodec",
    },
)
"""Codecs of values; third parties add theirs to the entry-point group ``headrace.codecs``. Those with a setting `eps`
or `share` are lossy (`is_lossy`)."""

TIME_CODECS = Registry(
    "time_codecs",
    {
        "delta_of_delta": "headrace.codecs.delta_of_delta:DeltaOfDeltaTime",
        "gcd_pco": "headrace.codecs.gcd_pco:GcdPcoTime",
        "jitter": "headrace.codecs.jitter:JitterTime",
        "rate": "headrace.codecs.rate:RateTime",
        "regular": "headrace.codecs.regular:RegularTime",
        "ticks": "headrace.codecs.ticks:TicksTime",
    },
)
"""Codecs of times; the entry-point group is ``headrace.time_codecs``. One with a setting `tolerance_ns` may give back
others within it."""


def is_lossy(part: type[ValueCodec]) -> bool:
    """Whether a class of codecs may give back other values, within a bound."""
    return keeps_eps(part) or _has(part, "share")


def keeps_eps(part: type[ValueCodec]) -> bool:
    """Whether a class of codecs is one of `headrace.codecs.base.LossyCodec`: whether it has a setting `eps`."""
    return _has(part, "eps")


def is_tolerant(part: type[TimeCodec]) -> bool:
    """Whether a class of codecs may give back other times, within a tolerance."""
    return _has(part, "tolerance_ns")


def refers(part: type[TimeCodec]) -> bool:
    """Whether what a class of codecs writes refers to time axes that lie elsewhere."""
    return _has(part, "axes")


def _has(part: type, setting: str) -> bool:
    return setting in getattr(part, "__dataclass_fields__", {})


def names_with_eps() -> list[str]:
    """Names of the codecs of values that keep a bound `eps`; one that can't be loaded is passed over."""
    found = []
    for name in VALUE_CODECS.names():
        try:
            if keeps_eps(VALUE_CODECS.load(name)):
                found.append(name)
        except PluginError:
            continue
    return found


@cache
def foreign_value_codecs() -> tuple[ValueCodec, ...]:
    """Lossless codecs of installed packages, with the settings they have by themselves: what chunks are tried with.

    One that can't be loaded, or has settings without a default, is passed over: `headrace plugins list` says why.
    """
    found: list[ValueCodec] = []
    for name in VALUE_CODECS.foreign():
        try:
            part = VALUE_CODECS.load(name)
            if not is_lossy(part):
                found.append(part())
        except (PluginError, TypeError, ValueError):
            continue
    return tuple(found)


def value_codec(spec: dict[str, Any]) -> ValueCodec:
    """The codec that `ValueCodec.to_dict` described.

    Raises
    ------
    ConfigError : no such codec, or settings it does not have.
    """
    return cast("ValueCodec", VALUE_CODECS.load(_name(spec)).from_dict(spec))


def time_codec(spec: dict[str, Any]) -> TimeCodec:
    """The codec that `TimeCodec.to_dict` described. Raises as `value_codec`."""
    return cast("TimeCodec", TIME_CODECS.load(_name(spec)).from_dict(spec))


def _name(spec: dict[str, Any]) -> str:
    name = spec.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"a codec is named by its 'name'; got {spec}")
    return name
