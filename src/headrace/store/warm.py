"""Warm chunks: one sensor's samples of a day, up to 8,192 at a time, each part in its smallest codec.

The payload of a row is the low half of XXH64 over what follows, as uint32, little endian; the bytes of the times and
of the values, varints; the times, the values, the quality. Quality is empty where all are good, else the name of a
value codec, a zero byte and its body. What the header columns ``time_codec`` and ``value_codec`` name is a codec's
name, and its settings as JSON behind a space where it has any; the time codec's name stands behind a `=`. Behind an `@`
stand names of settings, parted by commas, whose numbers are float64, little endian, in front of the values: so sensors
of different bounds have one codec to the reader.

Where there is no `=`, an earlier release wrote ``<u32 bytes of times> <u32 bytes of values> times values quality``, in
which each part has an envelope with a checksum of its own.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.codecs.base import TimeCodec, ValueCodec
from headrace.codecs.const import ConstCodec
from headrace.codecs.hold import HoldCodec
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.packing import get_varint, put_varint
from headrace.codecs.pco import PcoCodec
from headrace.codecs.piecewise_constant import PiecewiseConstantCodec
from headrace.codecs.quantise import QuantiseCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.seasonal import SeasonalCodec
from headrace.codecs.select import ChosenTimes, ChosenValues, smallest, smallest_times, smallest_within
from headrace.codecs.swing import SwingCodec
from headrace.codecs.swinging_door import SwingingDoorCodec
from headrace.codecs.ticks import TicksTime
from headrace.core.errors import ConfigError, CorruptionError

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CHUNK_SAMPLES = 8_192
BARE = "="
"""Before a time codec: no part of the payload has an envelope."""
NUMBERS = "@"
"""Between a value codec and its settings that stand in front of the values."""

_HEAD, _SUM = struct.Struct("<II"), struct.Struct("<I")
_PCO_FROM = 64  # pco's own header is larger than what it saves on fewer values


def codec_text(codec: TimeCodec | ValueCodec) -> str:
    """A codec as the header columns name it."""
    spec = codec.to_dict()
    name = str(spec.pop("name"))
    return f"{name} {json.dumps(spec, sort_keys=True)}" if spec else name


def _spec(text: str) -> dict[str, Any]:
    name, _, settings = text.partition(" ")
    found: dict[str, Any] = {"name": name, **(json.loads(settings) if settings else {})}
    return found


class Chunk(NamedTuple):
    """One row's payload, what the header says of its codecs, its bound, and its error; 0 where it is lossless.

    ``max_error`` and ``rmse`` compare what it decodes to with what was encoded, over all values.
    """

    payload: bytes
    time_codec: str
    value_codec: str
    bound: float
    max_error: float = 0.0
    rmse: float = 0.0


def encode_chunk(ts_ns: I64, values: Array, quality: U8 | None, eps: float = 0.0) -> Chunk:
    """One sensor's samples, each part in its smallest codec, decoded and compared.

    Parameters
    ----------
    eps : how far values may be from what they were, absolute; 0 for lossless. Only floats are ever changed.
    """
    times = choose_times(ts_ns)
    chosen = choose_values(values)
    if eps > 0.0 and values.dtype.kind == "f":
        chosen = smallest_within(values, lossy_candidates(eps), eps, chosen)
    return pack_chunk(times, (chosen, values), quality)


def choose_times(ts_ns: I64) -> ChosenTimes:
    """The smallest time codec."""
    times = smallest_times(ts_ns, [RegularTime()])
    return times if isinstance(times.codec, RegularTime) else smallest_times(ts_ns, [TicksTime()])


def pack_chunk(times: ChosenTimes, chosen_of: tuple[ChosenValues, Array], quality: U8 | None) -> Chunk:
    """A payload of parts that are encoded; ``chosen_of`` is a codec and what it encoded."""
    chosen, values = chosen_of
    tail = b""
    if quality is not None and quality.any():
        marks = smallest(quality, [ConstCodec(), RiceDeltaCodec()])
        tail = codec_text(marks.codec).encode() + b"\x00" + marks.body
    bound = float(getattr(chosen.codec, "eps", 0.0))
    errors = _errors(chosen, values) if bound else (0.0, 0.0)
    value_text, body = _with_numbers(chosen)
    sizes = put_varint(len(times.body)) + put_varint(len(body))
    rest = b"".join([sizes, times.body, body, tail])
    payload = _SUM.pack(_low_half(rest)) + rest
    return Chunk(payload, BARE + codec_text(times.codec), value_text, bound, *errors)


def _errors(chosen: ChosenValues, values: Array) -> tuple[float, float]:
    """Largest error, and its root mean square."""
    decoded = chosen.codec.unpack(chosen.body, values.size, values.dtype)
    error = np.abs(decoded.astype(np.float64) - values.astype(np.float64))
    return float(error.max(initial=0.0)), float(np.sqrt(np.mean(error * error)))


def _with_numbers(chosen: ChosenValues) -> tuple[str, bytes]:
    """The codec's text, and its body with its settings in front, where all that differ from their defaults are numbers."""
    spec = chosen.codec.to_dict()
    name = str(spec.pop("name"))
    numbers = {k: v for k, v in spec.items() if isinstance(v, float) and v}
    if not numbers or any(v for k, v in spec.items() if k not in numbers):
        return codec_text(chosen.codec), chosen.body
    return f"{name}{NUMBERS}{','.join(numbers)}", np.array(
        list(numbers.values()), "<f8"
    ).tobytes() + chosen.body


def _value_codec(text: str, body: bytes) -> tuple[ValueCodec, bytes]:
    """The inverse of `_with_numbers`."""
    name, at, names = text.partition(NUMBERS)
    if not at or " " in name:
        return value_codec(_spec(text)), body
    keys = names.split(",")
    numbers = np.frombuffer(body[: 8 * len(keys)], "<f8").tolist()
    settings = dict(zip(keys, numbers, strict=True))
    return value_codec({"name": name, **settings}), body[8 * len(keys) :]


def choose_values(values: Array) -> ChosenValues:
    """The smallest lossless codec, as far as it is worth a trial."""
    chosen = smallest(values, [ConstCodec()])
    if isinstance(chosen.codec, ConstCodec):
        return chosen
    candidates: list[ValueCodec] = [RiceDeltaCodec()]
    if values.dtype.kind == "f":
        candidates.append(OriginCodec())
    chosen = smallest(values, candidates)
    if len(values) < _PCO_FROM or (isinstance(chosen.codec, OriginCodec) and explains(chosen.body)):
        return chosen
    return smallest(values, [PcoCodec()], chosen)


def lossy_candidates(eps: float) -> list[ValueCodec]:
    """Codecs that keep a bound, the fast ones first."""
    return [
        QuantiseCodec(eps), HoldCodec(eps), PiecewiseConstantCodec(eps), SwingCodec(eps), SwingingDoorCodec(eps),
        SeasonalCodec(eps),
    ]  # fmt: skip


def decode_chunk(
    payload: bytes, codecs: tuple[str, str], n: int, dtype: np.dtype[Any]
) -> tuple[I64, Array, U8 | None]:
    """The inverse of `encode_chunk`. Raises `CorruptionError`."""
    try:
        if not codecs[0].startswith(BARE):
            return _decode_sealed(payload, codecs, n, dtype)
        if len(payload) < _SUM.size or _SUM.unpack_from(payload)[0] != _low_half(payload[_SUM.size :]):
            raise ValueError("its checksum is wrong")
        n_times, at = get_varint(payload, _SUM.size)
        n_values, at = get_varint(payload, at)
        first, second = at + n_times, at + n_times + n_values
        ts_ns = time_codec(_spec(codecs[0].removeprefix(BARE))).unpack(payload[at:first], n)
        codec, body = _value_codec(codecs[1], payload[first:second])
        values = codec.unpack(body, n, dtype)
        quality = None
        if len(payload) > second:
            name, _, marks = payload[second:].partition(b"\x00")
            quality = value_codec(_spec(name.decode())).unpack(marks, n, np.dtype(np.uint8))
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e
    return ts_ns, values, quality


def values_of(payload: bytes, value_text: str) -> tuple[ValueCodec, bytes]:
    """The codec of a chunk's values, and its body; of a payload that `decode_chunk` has read."""
    n_times, at = get_varint(payload, _SUM.size)
    n_values, at = get_varint(payload, at)
    return _value_codec(value_text, payload[at + n_times : at + n_times + n_values])


def value_bytes(payload: bytes) -> int:
    """How many bytes of a chunk's payload are its values."""
    _, at = get_varint(payload, _SUM.size)
    return get_varint(payload, at)[0]


def _decode_sealed(
    payload: bytes, codecs: tuple[str, str], n: int, dtype: np.dtype[Any]
) -> tuple[I64, Array, U8 | None]:
    n_times, n_values = _HEAD.unpack_from(payload)
    first, second = _HEAD.size + n_times, _HEAD.size + n_times + n_values
    ts_ns = time_codec(_spec(codecs[0])).decode(payload[_HEAD.size : first], n)
    values = value_codec(_spec(codecs[1])).decode(payload[first:second], n, dtype)
    quality = None
    if len(payload) > second:
        name, _, marks = payload[second:].partition(b"\x00")
        quality = value_codec(_spec(name.decode())).decode(marks, n, np.dtype(np.uint8))
    return ts_ns, values, quality


def _low_half(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)
