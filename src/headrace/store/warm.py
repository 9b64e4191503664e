"""Warm chunks: one sensor's samples of a day, up to 8,192 at a time, each part in its smallest codec.

The payload of a row is the low half of XXH64 over what follows, as uint32, little endian; the bytes of the times and
of the values, varints; the times, the values, the quality. Quality is empty where all are good, and the bytes of the
values are told as 0; else it is the name of a value codec, a zero byte and its body. What the header columns
``time_codec`` and ``value_codec`` name is a codec's name, and its settings as JSON behind a space where it has any; the
time codec's name stands behind a `=`. Behind an `@` stand names of settings, parted by commas, whose numbers are float64,
little endian, in front of the values: so sensors of different bounds have one codec to the reader. A codec with a bound holds integers as float64, and the reader rounds them
to the nearest whole number of their type. Times count from
``t_min`` of the header; those of ``=regular`` have no bytes, since their interval is ``(t_max - t_min) / (n - 1)``. A row
whose times are those of another (``times_back`` of `headrace.store.schema`) has no bytes of times. Where ``sibling `` stands before
the value codec, what follows its numbers is a body of `headrace.codecs.sibling`: its integers are predicted from the values of
other rows (``sibling`` and ``sibling_2`` of the header), which are not predicted themselves.

Where there is no `=`, an earlier release wrote ``<u32 bytes of times> <u32 bytes of values> times values quality``, in
which each part has an envelope with a checksum of its own.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import xxhash

from headrace.codecs.base import TimeCodec, ValueCodec
from headrace.codecs.bounds import Reach
from headrace.codecs.choice import (
    ANY,
    CodecChoice,
    bound_of,
    lossy_candidates,
    smallest_share,
    steered,
    steered_whole,
)
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
from headrace.codecs.rle import RleCodec, may_be_runs, runs_may_be
from headrace.codecs.select import ChosenValues, likely, smallest, smallest_times, smallest_within
from headrace.codecs.sibling import IntegerCodec, SiblingCodec
from headrace.codecs.ticks import TicksTime, packed_ticks
from headrace.core.errors import ConfigError, CorruptionError
from headrace.store.schema import BLOCK, WAVE

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

CHUNK_SAMPLES = 8_192
BARE = "="
"""Before a time codec: no part of the payload has an envelope, and times count from ``t_min``."""
EVEN = BARE + RegularTime.name
"""Times at one interval: they have no bytes."""
SIBLING = SiblingCodec.name + " "
"""Before a value codec: its integers are predicted from the values of other rows."""
NUMBERS, SHORT_NUMBERS = "@", "~"
"""Between a value codec and its settings that stand in front of the values, as float64 or float32."""

_MARKED = re.compile(r"([^@~]*)(?:([@~])(.*))?", re.DOTALL)
_HEAD, _SUM = struct.Struct("<II"), struct.Struct("<I")
_RICE_TO = 512  # a model learns more than Rice codes know on more values
_EXACT = 2**52  # integers up to here are floats, and so are those that a bound is away
_ORIGIN = OriginCodec()
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


@lru_cache(maxsize=1024)
def _value_codec(text: str) -> ValueCodec:
    return value_codec(codec_spec(text))


@lru_cache(maxsize=1024)
def _time_codec(text: str) -> TimeCodec:
    return time_codec(codec_spec(text))


class Packed(NamedTuple):
    """Values that `headrace.codecs.origin_coding` has coded: the body; in how many runs of one value they come, and of how many different values these are at least."""

    body: bytes
    n_runs: int
    n_known: int


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


def encode_chunk(
    ts_ns: I64,
    values: Array,
    quality: U8 | None,
    eps: float = 0.0,
    choice: CodecChoice = ANY,
    times_of: str | None = None,
    packed: Packed | None = None,
) -> Chunk:
    """One sensor's samples, each part in its smallest codec, decoded and compared.

    Parameters
    ----------
    eps : how far values may be from what they were, absolute; 0 for lossless. Integers move by whole numbers.
    choice : what is said about the codec of the values; where it has a share of each value, that counts instead of `eps`.
    times_of : the `Chunk.time_codec` of a chunk with the same times, which this one shall refer to.
    packed : of the values, where `headrace.codecs.origin_coding` has coded them.
    """
    times, time_name = b"", times_of
    if time_name is None:
        times, time_name = _encode_times(ts_ns)
    return pack_chunk(
        (times, time_name), (_chosen(values, Reach(eps, choice.share), choice, packed), values), quality
    )


def pack_chunk(times: tuple[bytes, str], values: tuple[ChosenValues, Array], quality: U8 | None) -> Chunk:
    """A payload of parts that are encoded.

    Parameters
    ----------
    times : their body, and the time codec as the header names it. values : by which codec, and what it encoded.
    """
    (chosen, plain), (body, time_name) = values, times
    tail = b""
    if quality is not None and quality.any():
        marks = smallest(quality, [ConstCodec(), RiceDeltaCodec(), RleCodec()])
        tail = codec_text(marks.codec).encode() + b"\x00" + marks.body
    bound = bound_of(chosen.codec, plain)
    errors = _errors(chosen, plain) if bound else (0.0, 0.0)
    value_text, numbers = _with_numbers(chosen)
    sizes = put_varint(len(body)) + put_varint(len(numbers) if tail else 0)
    payload = sealed(b"".join([sizes, body, numbers, tail]))
    return Chunk(payload, time_name, value_text, bound, *errors)


def sealed(rest: bytes) -> bytes:
    """A payload with its checksum."""
    return _SUM.pack(_low_half(rest)) + rest


def _errors(chosen: ChosenValues, values: Array) -> tuple[float, float]:
    """Largest error, and its root mean square."""
    decoded = _unpacked(chosen.codec, chosen.body, values.size, values.dtype)
    error = np.abs(decoded.astype(np.float64) - values.astype(np.float64))
    return float(error.max(initial=0.0)), float(np.sqrt(np.mean(error * error)))


def _with_numbers(chosen: ChosenValues) -> tuple[str, bytes]:
    """The codec's text, and its body with its settings in front, where all that differ from their defaults are numbers."""
    if isinstance(chosen.codec, OriginCodec):  # most, and it has none
        return OriginCodec.name, chosen.body
    spec = chosen.codec.to_dict()
    name = str(spec.pop("name"))
    numbers = {k: v for k, v in spec.items() if isinstance(v, float) and v}
    if not numbers or any(v for k, v in spec.items() if k not in numbers):
        return codec_text(chosen.codec), chosen.body
    plain = np.array(list(numbers.values()), "<f8")
    with np.errstate(over="ignore", under="ignore"):
        short = plain.astype("<f4")
    mark, front = (SHORT_NUMBERS, short) if (short == plain).all() else (NUMBERS, plain)
    return f"{name}{mark}{','.join(numbers)}", front.tobytes() + chosen.body


def _value_codec_of(text: str, body: bytes) -> tuple[ValueCodec, bytes]:
    """The inverse of `_with_numbers`; of what is predicted the codec behind it. Raises ValueError, ConfigError."""
    name, mark, names = _MARKED.match(text.removeprefix(SIBLING)).groups("")  # type: ignore[union-attr]
    if not mark or " " in name:
        return _value_codec(text.removeprefix(SIBLING)), body
    keys, width = names.split(","), 4 if mark == SHORT_NUMBERS else 8
    front = width * len(keys)
    numbers = np.frombuffer(body[:front], f"<f{width}").tolist()
    settings = dict(zip(keys, numbers, strict=True))
    return value_codec({"name": name, **settings}), body[front:]


def _chosen(values: Array, reach: Reach, choice: CodecChoice, packed: Packed | None) -> ChosenValues:
    if not choice.is_free and (reach.is_lossless or values.dtype.kind == "f"):
        return steered(values, choice, reach)
    chosen = choose_values(values, packed) if choice.is_free else steered(values, choice, Reach())
    if reach.is_lossless:
        return chosen
    if values.dtype.kind != "f":
        return _chosen_whole(values, math.floor(reach.eps), choice, chosen)
    if reach.share > 0.0:
        return smallest_share(values, reach.share, chosen)
    return smallest_within(values, likely(values, lossy_candidates(values, reach)), reach.eps, chosen)


def _chosen_whole(values: Array, eps: int, choice: CodecChoice, chosen: ChosenValues) -> ChosenValues:
    """The same of integers: as floats, which the reader rounds. A whole number within a whole bound stays within it."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if eps < 1 or not values.size or max(-low, high) >= _EXACT:
        return chosen
    floats, reach = values.astype(np.float64), Reach(float(eps))
    if not choice.is_free:
        return steered_whole(floats, choice, reach, chosen)
    candidates = likely(floats, lossy_candidates(floats, reach))
    return smallest_within(floats, candidates, float(eps), chosen)


def _unpacked(codec: ValueCodec, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f" or not getattr(codec, "eps", 0.0):
        return codec.unpack(body, n, dtype)
    limits = np.iinfo(dtype)
    whole = np.rint(codec.unpack(body, n, np.dtype(np.float64)))
    return np.clip(whole, max(limits.min, -2 * _EXACT), min(limits.max, 2 * _EXACT)).astype(dtype)


def _encode_times(ts_ns: I64) -> tuple[bytes, str]:
    """The body of times, counted from the first, and its codec as the header names it."""
    if _are_even(ts_ns):
        return b"", EVEN
    distance = ts_ns - ts_ns[0]
    body = packed_ticks(distance)
    if 0 < len(body) < 16 + 2 * ts_ns.size:
        return body, BARE + TicksTime.name
    found = smallest_times(distance, [TicksTime()])
    return found.body, BARE + codec_text(found.codec)


def _are_even(ts_ns: I64) -> bool:
    n = ts_ns.size
    if n < 3:
        return n < 2 or abs(int(ts_ns[1]) - int(ts_ns[0])) < 2**63
    gap = int(ts_ns[1]) - int(ts_ns[0])
    if int(ts_ns[-1]) - int(ts_ns[0]) != (n - 1) * gap:
        return False
    return bool((ts_ns[1:] - ts_ns[:-1] == gap).all())


def _decode_times(body: bytes, time_name: str, n: int, span: tuple[int, int]) -> I64:
    """The inverse, with the first and the last time from the header. Raises `CorruptionError`, ValueError."""
    first, last = span
    if time_name == EVEN:
        step, rest = divmod(last - first, max(1, n - 1))
        if body or rest or (n == 1 and step):
            raise ValueError("times at one interval have no bytes, and an interval")
        return _even(first, last, step, n)
    times = _time_codec(time_name.removeprefix(BARE)).unpack(body, n)
    times += np.int64(first)
    if n and times[-1] != last:
        raise ValueError("its last time is not the header's")
    return times


def _even(first: int, last: int, step: int, n: int) -> I64:
    if 0 < step < 2**62 and last < 2**62:
        return np.arange(first, last + (step >> 1) + 1, step, dtype=np.int64)
    with np.errstate(over="ignore"):
        return np.int64(first) + np.arange(n, dtype=np.int64) * np.int64(step)


def choose_values(values: Array, packed: Packed | None = None) -> ChosenValues:
    """The smallest lossless codec, as far as it is worth a trial; those of installed packages among them."""
    if packed is not None:
        chosen = _choose_beside(values, packed)
    else:
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


def _choose_beside(values: Array, packed: Packed) -> ChosenValues:
    """What `_choose_ours` finds, of values whose integers are coded: they differ, and are explained."""
    chosen = ChosenValues(_ORIGIN, packed.body)
    few = packed.n_known * values.itemsize < len(packed.body)  # runs have these as they are
    if few and runs_may_be(packed.n_runs, values.size, len(packed.body)):
        chosen = smallest(values, [RleCodec()], chosen)
    return chosen if len(values) >= _RICE_TO else smallest(values, [RiceDeltaCodec()], chosen)


def _choose_ours(values: Array, chosen: ChosenValues) -> ChosenValues:
    chosen = smallest(values, [OriginCodec()], chosen)
    if may_be_runs(values, len(chosen.body)):
        chosen = smallest(values, [RleCodec()], chosen)
    explained = isinstance(chosen.codec, OriginCodec) and explains(chosen.body)
    if not explained or len(values) < _RICE_TO:
        chosen = smallest(values, [RiceDeltaCodec()], chosen)
    return chosen if explained or len(values) < _PCO_FROM else smallest(values, [PcoCodec()], chosen)


def decode_chunk(
    payload: bytes,
    codecs: tuple[str, str],
    n: int,
    dtype: np.dtype[Any],
    span: tuple[int, int],
    times: I64 | None = None,
    siblings: Sequence[Array] = (),
) -> tuple[I64, Array, U8 | None]:
    """The inverse of `encode_chunk`.

    Parameters
    ----------
    span : its first and last time, ns: ``t_min`` and ``t_max`` of its header. times : of the chunk that it refers to, by `decode_times`; None where it has its own.
    siblings : the values that its own are predicted from, by `decode_values`.

    Raises
    ------
    CorruptionError : it is no such chunk.
    """
    try:
        if not codecs[0].startswith(BARE):
            return _decode_sealed(payload, codecs, n, dtype)
        at, first, second = parts(payload)
        if times is None:
            times = _decode_times(payload[at:first], codecs[0], n, span)
        elif first > at or len(times) != n:
            raise ValueError("the times it refers to are not its own")
        values = _decode_values(payload[first:second], codecs[1], n, dtype, siblings)
        quality = None
        if len(payload) > second:
            name, _, marks = payload[second:].partition(b"\x00")
            quality = _value_codec(name.decode()).unpack(marks, n, np.dtype(np.uint8))
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"a chunk of {len(payload):,} bytes can't be read: {e}") from e
    return times, values, quality


def _decode_values(body: bytes, text: str, n: int, dtype: np.dtype[Any], siblings: Sequence[Array]) -> Array:
    codec, body = _value_codec_of(text, body)
    if not text.startswith(SIBLING):
        return _unpacked(codec, body, n, dtype)
    return _unpacked(SiblingCodec(cast("IntegerCodec", codec), tuple(siblings)), body, n, dtype)


def decode_values(payload: bytes, text: str, n: int, dtype: np.dtype[Any]) -> Array:
    """The values alone of a chunk that is not predicted: T[n]. Raises `CorruptionError`."""
    try:
        _, first, second = parts(payload)
        return _decode_values(payload[first:second], text, n, dtype, ())
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"the values of a chunk of {len(payload):,} bytes can't be read: {e}") from e


def decode_times(payload: bytes, time_name: str, n: int, span: tuple[int, int]) -> I64:
    """The times of a chunk alone: int64[n]. Raises `CorruptionError`."""
    try:
        at, first, _ = parts(payload)
        return _decode_times(payload[at:first], time_name, n, span)
    except (struct.error, ValueError, ConfigError) as e:
        raise CorruptionError(f"the times of a chunk of {len(payload):,} bytes can't be read: {e}") from e


def parts(payload: bytes) -> tuple[int, int, int]:
    """Where times, values and quality begin, the last at the end where all are good. Raises ValueError or struct.error."""
    if len(payload) < _SUM.size or _SUM.unpack_from(payload)[0] != _low_half(payload[_SUM.size :]):
        raise ValueError("its checksum is wrong")
    if payload[4:6] == b"\0\0":  # as most are, at one interval and all good
        return 6, 6, len(payload)
    n_times, at = get_varint(payload, _SUM.size)
    n_values, at = get_varint(payload, at)
    return at, at + n_times, at + n_times + n_values if n_values else len(payload)


def unknown_codec(codecs: tuple[str, str]) -> str:
    """The name among a row's codecs that no part here has; "" where all are known."""
    names = codec_name(codecs[0]), codec_name(codecs[1].removeprefix(SIBLING))
    if names[0] not in (*TIME_CODECS.built_in, BLOCK, WAVE) and names[0] not in TIME_CODECS:
        return names[0]
    if names[1] not in (*VALUE_CODECS.built_in, BLOCK, WAVE) and names[1] not in VALUE_CODECS:
        return names[1]
    return ""


def time_bytes(payload: bytes) -> int:
    """How many bytes of a chunk's payload are its times."""
    return get_varint(payload, _SUM.size)[0]


def values_of(payload: bytes, value_text: str) -> tuple[ValueCodec, bytes]:
    """The codec of a chunk's values, and its body; of a payload that `decode_chunk` has read."""
    _, first, second = parts(payload)
    return _value_codec_of(value_text, payload[first:second])


def codec_name(text: str) -> str:
    """The name alone of what a header column says of a codec."""
    return _MARKED.match(text.removeprefix(BARE).partition(" ")[0]).group(1)  # type: ignore[union-attr]


def value_bytes(payload: bytes) -> int:
    """How many bytes of a chunk's payload are its values. Raises ValueError where it is damaged."""
    _, first, second = parts(payload)
    return second - first


def _decode_sealed(
    payload: bytes, codecs: tuple[str, str], n: int, dtype: np.dtype[Any]
) -> tuple[I64, Array, U8 | None]:
    n_times, n_values = _HEAD.unpack_from(payload)
    first, second = _HEAD.size + n_times, _HEAD.size + n_times + n_values
    ts_ns = _time_codec(codecs[0]).decode(payload[_HEAD.size : first], n)
    values = _value_codec(codecs[1]).decode(payload[first:second], n, dtype)
    quality = None
    if len(payload) > second:
        name, _, marks = payload[second:].partition(b"\x00")
        quality = _value_codec(name.decode()).decode(marks, n, np.dtype(np.uint8))
    return ts_ns, values, quality


def _low_half(data: bytes) -> int:
    return int(xxhash.xxh64_intdigest(data) & 0xFFFFFFFF)
