"""Warm chunks: one sensor's samples of a day, up to 8,192 at a time, each part in its smallest codec.

The payload of a row is the low half of XXH64 over what follows, as uint32, little endian; the bytes of the times and
of the values, varints; the times, the values, the quality. Quality is empty where all are good, else the name of a
value codec, a zero byte and its body. What the header columns ``time_codec`` and ``value_codec`` name is a codec's
name, and its settings as JSON behind a space where it has any; the time codec's name stands behind a `=`.

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
from headrace.codecs.bounds import Reach
from headrace.codecs.choice import ANY, CodecChoice, bound_of, lossy_candidates, smallest_share, steered
from headrace.codecs.const import ConstCodec
from headrace.codecs.origin import OriginCodec, explains
from headrace.codecs.packing import get_varint, put_varint
from headrace.codecs.pco import PcoCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.rle import RleCodec
from headrace.codecs.select import ChosenValues, smallest, smallest_times, smallest_within
from headrace.codecs.ticks import TicksTime
from headrace.core.errors import ConfigError, CorruptionError

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CHUNK_SAMPLES = 8_192
BARE = "="
"""Before a time codec: no part of the payload has an envelope."""

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
    """One row's payload, what the header says of its codecs, and its bound, 0 where it is lossless."""

    payload: bytes
    time_codec: str
    value_codec: str
    bound: float


def encode_chunk(
    ts_ns: I64, values: Array, quality: U8 | None, eps: float = 0.0, choice: CodecChoice = ANY
) -> Chunk:
    """One sensor's samples, each part in its smallest codec, decoded and compared.

    Parameters
    ----------
    eps : how far values may be from what they were, absolute; 0 for lossless. Only floats are ever changed.
    choice : what is said about the codec of the values; where it has a share of each value, that counts instead of `eps`.
    """
    times = smallest_times(ts_ns, [RegularTime()])
    if not isinstance(times.codec, RegularTime):
        times = smallest_times(ts_ns, [TicksTime()])
    chosen = _chosen(values, Reach(eps, choice.share), choice)
    tail = b""
    if quality is not None and quality.any():
        marks = smallest(quality, [ConstCodec(), RiceDeltaCodec(), RleCodec()])
        tail = codec_text(marks.codec).encode() + b"\x00" + marks.body
    sizes = put_varint(len(times.body)) + put_varint(len(chosen.body))
    rest = b"".join([sizes, times.body, chosen.body, tail])
    bound = bound_of(chosen.codec, values)
    payload = _SUM.pack(_low_half(rest)) + rest
    return Chunk(payload, BARE + codec_text(times.codec), codec_text(chosen.codec), bound)


def _chosen(values: Array, reach: Reach, choice: CodecChoice) -> ChosenValues:
    if not choice.is_free:
        return steered(values, choice, reach)
    chosen = choose_values(values)
    if reach.is_lossless or values.dtype.kind != "f":
        return chosen
    if reach.share > 0.0:
        return smallest_share(values, reach.share, chosen)
    return smallest_within(values, lossy_candidates(values, reach), reach.eps, chosen)


def choose_values(values: Array) -> ChosenValues:
    """The smallest lossless codec, as far as it is worth a trial."""
    chosen = smallest(values, [ConstCodec()])
    if isinstance(chosen.codec, ConstCodec):
        return chosen
    candidates: list[ValueCodec] = [RiceDeltaCodec(), RleCodec()]
    if values.dtype.kind == "f":
        candidates.append(OriginCodec())
    chosen = smallest(values, candidates)
    if len(values) < _PCO_FROM or (isinstance(chosen.codec, OriginCodec) and explains(chosen.body)):
        return chosen
    return smallest(values, [PcoCodec()], chosen)


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
        values = value_codec(_spec(codecs[1])).unpack(payload[first:second], n, dtype)
        quality = None
        if len(payload) > second:
            name, _, marks = payload[second:].partition(b"\x00")
            quality = value_codec(_spec(name.decode())).unpack(marks, n, np.dtype(np.uint8))
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e
    return ts_ns, values, quality


def time_bytes(payload: bytes) -> int:
    """How many bytes of a chunk's payload are its times."""
    return get_varint(payload, _SUM.size)[0]


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
