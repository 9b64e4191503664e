"""Codecs of one series: what a warm chunk of one sensor is written with.

A chunk holds the times and the values of one sensor. Each is encoded by one codec, whose settings lie beside
the payload (`to_dict`), so any reader can rebuild it (`headrace.codecs.registry`). A codec

* is a frozen dataclass: its fields are its settings, two of the same settings are equal;
* is lossless: what it decodes is bit for bit what it encoded (NaN payloads, -0.0, infinities), or else it
  declares a bound;
* raises `Unfit` where it can't hold the values at all, and never stores something else instead;
* answers damaged bytes with CorruptionError, takes memory only for `n` values, and never reads past the end;
* does no I/O and keeps nothing between calls, so one object may serve many threads.

The order of calls is free. Registering one is a line in `headrace.codecs.registry`; the kit it has to pass is
`headrace.testing.codecs`. Blocks of many sensors (the hot path) are `headrace.codecs.block`.
"""

from __future__ import annotations

import dataclasses
import struct
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.core.errors import ConfigError, CorruptionError

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

_ENVELOPE = struct.Struct("<BI")


class Unfit(ValueError):
    """The codec can't hold these values; take another."""


class SeriesCodec(ABC):
    """Settings as data, and the envelope of every payload: version byte, 32 bits of XXH64, body.

    The checksum is the low half of the body's XXH64, seeded with the version. A codec defines `pack` and `unpack`,
    which know nothing of the envelope: where many bodies share a checksum, they go without.
    """

    __slots__ = ()

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def to_dict(self) -> dict[str, Any]:
        """The name and the settings, JSON-ready."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {"name": self.name} | {f.name: getattr(self, f.name) for f in fields}

    @classmethod
    def from_dict(cls, spec: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; settings left out take their defaults.

        Raises
        ------
        ConfigError : a setting that this codec does not have, or a wrong one.
        """
        settings = {key: value for key, value in spec.items() if key != "name"}
        try:
            return cls(**settings)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"codec {cls.name!r} can't have settings {settings}: {e}") from e

    @abstractmethod
    def pack(self, values: Any) -> bytes:
        """Encode values or times as a body without an envelope. Raises `Unfit` where it can't."""

    @abstractmethod
    def unpack(self, body: bytes, n: int, *dtype: Any) -> Any:
        """Decode a body. Raises `CorruptionError` where it is not one of n values; takes memory for those only."""

    def encode(self, values: Any) -> bytes:
        """`pack`, in the envelope."""
        return self.seal(self.pack(values))

    def decode(self, payload: bytes, n: int, *dtype: Any) -> Any:
        """`unpack`, once the checksum of the envelope holds."""
        return self.unpack(self.unseal(payload), n, *dtype)

    def seal(self, body: bytes) -> bytes:
        """The body in its envelope."""
        return _ENVELOPE.pack(self.version, _low_half(body, self.version)) + body

    def unseal(self, payload: bytes) -> bytes:
        """The body, once its checksum holds.

        Raises
        ------
        CorruptionError : it does not, or a newer release wrote it.
        """
        if len(payload) < _ENVELOPE.size:
            raise self.damaged(f"{len(payload)} bytes, at least {_ENVELOPE.size} expected")
        version, checksum = _ENVELOPE.unpack_from(payload)
        body = bytes(memoryview(payload)[_ENVELOPE.size :])
        if version != self.version:
            raise self.damaged(f"version {version}, this release reads {self.version}")
        if checksum != _low_half(body, version):
            raise self.damaged(f"checksum {_low_half(body, version):08x}, {checksum:08x} expected")
        return body

    def damaged(self, what: str) -> CorruptionError:
        """The error for bytes that are not a payload of this codec."""
        return CorruptionError(
            f"{self.name} payload can't be read: {what}; quarantine the chunk and restore it"
        )


def _low_half(body: bytes, version: int) -> int:
    return int(xxhash.xxh64_intdigest(body, version) & 0xFFFFFFFF)


class ValueCodec(Protocol):
    """Codes the values of one sensor: ``T[n]`` of one of the ten value types."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The name and the settings, JSON-ready."""

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``, without a checksum. Raises `Unfit` where it can't."""

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values of the type that was encoded. Raises CorruptionError where the bytes are not that."""

    def encode(self, values: Array) -> bytes:
        """`pack`, in an envelope with a checksum."""

    def decode(self, payload: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """`unpack`, once the envelope's checksum holds."""


class TimeCodec(Protocol):
    """Codes the times of one sensor: ``ts_ns: int64[n]``, in any order."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The name and the settings, JSON-ready."""

    def pack(self, ts_ns: I64) -> bytes:
        """Encode ``ts_ns: int64[n]``, without a checksum. Raises `Unfit` where it can't."""

    def unpack(self, body: bytes, n: int) -> I64:
        """Decode n times. Raises CorruptionError where the bytes are not that."""

    def encode(self, ts_ns: I64) -> bytes:
        """`pack`, in an envelope with a checksum."""

    def decode(self, payload: bytes, n: int) -> I64:
        """`unpack`, once the envelope's checksum holds."""


class LossyCodec(ValueCodec, Protocol):
    """A codec of values that may give back others, within a declared bound. One of its settings is `eps`.

    Each finite value comes back with ``|decoded - value| <= eps``, in float64 arithmetic, where both are seen as
    float64; values that are not finite are refused as `Unfit`. Only float types are taken: states, counters and
    raw registers are never lossy. ``eps`` is absolute, above 0.
    """

    eps: float


def keeps_bound(decoded: Array, values: Array, eps: float) -> bool:
    """Whether no value is further than `eps` from what was encoded; false where one is not finite."""
    error = np.abs(decoded.astype(np.float64) - values.astype(np.float64))
    return bool((error <= eps).all())


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays have one type, one shape and the same bytes."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
