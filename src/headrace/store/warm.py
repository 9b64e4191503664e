"""Warm chunks: one sensor's samples of a day, up to 8,192 at a time, each part in its smallest codec.

The payload of a row is the low half of XXH64 over what follows, as uint32, little endian; the bytes of the times and
of the values, varints; the times, the values, the quality. Quality is empty where all are good, else the name of a
value codec, a zero byte and its body. What the header columns ``time_codec`` and ``value_codec`` name is a codec's
name, and its settings as JSON behind a space where it has any; the time codec's name stands behind a `=`. A row whose
times are those of another (``times_back`` of `headrace.store.schema`) has no bytes of times.

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
from headrace.codecs.registry import (
    TIME_CODECS,
    VALUE_CODECS,
    foreign_value_codecs,
    time_codec,
    value_codec,
)
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.rle import RleCodec
from headrace.codecs.select import ChosenValues, smallest, smallest_times, smallest_within
from headrace.codecs.ticks import TicksTime
from headrace.core.errors import ConfigError, CorruptionError
from headrace.store.schema import BLOCK, WAVE

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


def codec_spec(text: str) -> dict[str, Any]:
    """The inverse of `codec_text`, as the registry takes it. Raises ValueError."""
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
    ts_ns: I64,
    values: Array,
    quality: U8 | None,
    eps: float = 0.0,
    choice: CodecChoice = ANY,
    times_of: str | None = None,
) -> Chunk:
    """One sensor's samples, each part in its smallest codec, decoded and compared.

    Parameters
    ----------
    eps : how far values may be from what they were, absolute; 0 for lossless. Only floats are ever changed.
    choice : what is said about the codec of the values; where it has a share of each value, that counts instead of `eps`.
    times_of : the `Chunk.time_codec` of a chunk with the same times, which this one shall refer to.
    """
    times, time_name = b"", times_of
    if time_name is None:
        times, time_name = _encode_times(ts_ns)
    chosen = _chosen(values, Reach(eps, choice.share), choice)
    tail = b""
    if quality is not None and quality.any():
        marks = smallest(quality, [ConstCodec(), RiceDeltaCodec(), RleCodec()])
        tail = codec_text(marks.codec).encode() + b"\x00" + marks.body
    sizes = put_varint(len(times)) + put_varint(len(chosen.body))
    rest = b"".join([sizes, times, chosen.body, tail])
    bound = bound_of(chosen.codec, values)
    payload = _SUM.pack(_low_half(rest)) + rest
    return Chunk(payload, time_name, codec_text(chosen.codec), bound)


def _encode_times(ts_ns: I64) -> tuple[bytes, str]:
    times = smallest_times(ts_ns, [RegularTime()])
    if not isinstance(times.codec, RegularTime):
        times = smallest_times(ts_ns, [TicksTime()])
    return times.body, BARE + codec_text(times.codec)


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
    """The smallest lossless codec, as far as it is worth a trial; those of installed packages among them."""
    chosen = smallest(values, [ConstCodec()])
    if isinstance(chosen.codec, ConstCodec):
        return chosen
    chosen = _choose_ours(values, chosen)
    for codec in foreign_value_codecs():
        try:
            chosen = smallest(values, [codec], chosen)
        except Exception:  # somebody else's defect: what we have is as good without it
            continue
    return chosen


def _choose_ours(values: Array, chosen: ChosenValues) -> ChosenValues:
    candidates: list[ValueCodec] = [RiceDeltaCodec(), RleCodec()]
    if values.dtype.kind == "f":
        candidates.append(OriginCodec())
    chosen = smallest(values, candidates, chosen)
    if len(values) < _PCO_FROM or (isinstance(chosen.codec, OriginCodec) and explains(chosen.body)):
        return chosen
    return smallest(values, [PcoCodec()], chosen)


def decode_chunk(
    payload: bytes, codecs: tuple[str, str], n: int, dtype: np.dtype[Any], times: I64 | None = None
) -> tuple[I64, Array, U8 | None]:
    """The inverse of `encode_chunk`.

    Parameters
    ----------
    times : of the chunk that it refers to, by `decode_times`; None where it has its own.

    Raises
    ------
    CorruptionError : it is no such chunk.
    """
    try:
        if not codecs[0].startswith(BARE):
            return _decode_sealed(payload, codecs, n, dtype)
        at, first, second = _parts(payload)
        if times is None:
            times = time_codec(codec_spec(codecs[0].removeprefix(BARE))).unpack(payload[at:first], n)
        elif first > at or len(times) != n:
            raise ValueError("the times it refers to are not its own")
        values = value_codec(codec_spec(codecs[1])).unpack(payload[first:second], n, dtype)
        quality = None
        if len(payload) > second:
            name, _, marks = payload[second:].partition(b"\x00")
            quality = value_codec(codec_spec(name.decode())).unpack(marks, n, np.dtype(np.uint8))
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e
    return times, values, quality


def decode_times(payload: bytes, time_name: str, n: int) -> I64:
    """The times of a chunk alone: int64[n]. Raises `CorruptionError`."""
    try:
        at, first, _ = _parts(payload)
        return time_codec(codec_spec(time_name.removeprefix(BARE))).unpack(payload[at:first], n)
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"the times of a chunk of {len(payload):,} bytes can't be read: {e}") from e


def _parts(payload: bytes) -> tuple[int, int, int]:
    """Where times, values and quality begin. Raises ValueError or struct.error."""
    if len(payload) < _SUM.size or _SUM.unpack_from(payload)[0] != _low_half(payload[_SUM.size :]):
        raise ValueError("its checksum is wrong")
    n_times, at = get_varint(payload, _SUM.size)
    n_values, at = get_varint(payload, at)
    return at, at + n_times, at + n_times + n_values


def unknown_codec(codecs: tuple[str, str]) -> str:
    """The name among a row's codecs that no part here has; "" where all are known."""
    names = codecs[0].removeprefix(BARE).split(" ")[0], codecs[1].split(" ")[0]
    if names[0] not in (*TIME_CODECS.built_in, BLOCK, WAVE) and names[0] not in TIME_CODECS:
        return names[0]
    if names[1] not in (*VALUE_CODECS.built_in, BLOCK, WAVE) and names[1] not in VALUE_CODECS:
        return names[1]
    return ""


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
    ts_ns = time_codec(codec_spec(codecs[0])).decode(payload[_HEAD.size : first], n)
    values = value_codec(codec_spec(codecs[1])).decode(payload[first:second], n, dtype)
    quality = None
    if len(payload) > second:
        name, _, marks = payload[second:].partition(b"\x00")
        quality = value_codec(codec_spec(name.decode())).decode(marks, n, np.dtype(np.uint8))
    return ts_ns, values, quality


def _low_half(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)
