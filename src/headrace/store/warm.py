"""Warm chunks: one sensor's samples of a day, up to 8,192 at a time, each part in its smallest codec.

The payload of a row is ``<u32 bytes of times> <u32 bytes of values> times values quality``, little endian;
quality is empty where all are good, else the name of a value codec, a zero byte and its payload. What the
header columns ``time_codec`` and ``value_codec`` name is a codec's name, and its settings as JSON behind a
space where it has any.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import TimeCodec, ValueCodec
from headrace.codecs.const import ConstCodec
from headrace.codecs.delta_of_delta import DeltaOfDeltaTime
from headrace.codecs.gcd_pco import GcdPcoTime
from headrace.codecs.pco import PcoCodec
from headrace.codecs.registry import time_codec, value_codec
from headrace.codecs.regular import RegularTime
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.select import smallest, smallest_times
from headrace.core.errors import ConfigError, CorruptionError

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CHUNK_SAMPLES = 8_192
_HEAD = struct.Struct("<II")
_PCO_FROM = 64  # pco's own header is larger than what it saves on fewer values
_SHORT_TIMES = 64


def codec_text(codec: TimeCodec | ValueCodec) -> str:
    """A codec as the header columns name it."""
    spec = codec.to_dict()
    name = str(spec.pop("name"))
    return f"{name} {json.dumps(spec, sort_keys=True)}" if spec else name


def _spec(text: str) -> dict[str, Any]:
    name, _, settings = text.partition(" ")
    found: dict[str, Any] = {"name": name, **(json.loads(settings) if settings else {})}
    return found


def encode_chunk(ts_ns: I64, values: Array, quality: U8 | None) -> tuple[bytes, str, str]:
    """Payload, time codec and value codec of one sensor's samples; each part decoded and compared."""
    times = smallest_times(
        ts_ns, [RegularTime(), *([GcdPcoTime()] if len(ts_ns) >= _SHORT_TIMES else [DeltaOfDeltaTime()])]
    )
    candidates: list[ValueCodec] = [ConstCodec(), RiceDeltaCodec()]
    if len(values) >= _PCO_FROM:
        candidates.append(PcoCodec())
    chosen = smallest(values, candidates)
    tail = b""
    if quality is not None and quality.any():
        marks = smallest(quality, [ConstCodec(), RiceDeltaCodec()])
        tail = codec_text(marks.codec).encode() + b"\x00" + marks.payload
    head = _HEAD.pack(len(times.payload), len(chosen.payload))
    payload = b"".join([head, times.payload, chosen.payload, tail])
    return payload, codec_text(times.codec), codec_text(chosen.codec)


def decode_chunk(
    payload: bytes, codecs: tuple[str, str], n: int, dtype: np.dtype[Any]
) -> tuple[I64, Array, U8 | None]:
    """The inverse of `encode_chunk`. Raises `CorruptionError`."""
    try:
        n_times, n_values = _HEAD.unpack_from(payload)
        first, second = _HEAD.size + n_times, _HEAD.size + n_times + n_values
        ts_ns = time_codec(_spec(codecs[0])).decode(payload[_HEAD.size : first], n)
        values = value_codec(_spec(codecs[1])).decode(payload[first:second], n, dtype)
        quality = None
        if len(payload) > second:
            name, _, marks = payload[second:].partition(b"\x00")
            quality = value_codec(_spec(name.decode())).decode(marks, n, np.dtype(np.uint8))
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e
    return ts_ns, values, quality
