"""Compile every codec kernel, or load it from the cache: so that the first live batch waits for nothing."""

from __future__ import annotations

import numpy as np

from headrace.codecs.block import decode_block, encode_blocks
from headrace.codecs.bounds import Reach
from headrace.codecs.choice import lossy_candidates
from headrace.codecs.integers import decode_integers, encode_integers
from headrace.codecs.origin import OriginCodec, type_mark
from headrace.codecs.origin_coding import packed
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.codecs.rle import RleCodec
from headrace.codecs.ticks import TicksTime
from headrace.codecs.wave import WaveRuns, decode_wave, encode_wave


def warm_kernels() -> None:
    """Encode and decode a few values by every kernel. All value types share them.

    Cost: about 0.2 s of CPU from the cache (beside Numba's own start), 25 s without one.
    """
    values = np.arange(8, dtype=np.uint16)
    blocks = encode_blocks(values.reshape(4, 2), np.arange(4), None, np.arange(4), np.array([0, 4]))
    decode_block(blocks.payload, values.dtype)
    decode_wave(encode_wave(WaveRuns(*np.array([[0], [1], [1], [8]])), values, None), values.dtype)
    codec = RiceDeltaCodec()
    codec.decode(codec.encode(values), values.size, values.dtype)
    _warm_series()


def _warm_series() -> None:
    """The kernels of warm chunks: a compiler that starts with the first compaction would take turns with the intake."""
    hum = np.round(100.0 * np.sin(np.arange(300) / 3.3)) / 10.0
    origin = OriginCodec()
    origin.unpack(origin.pack(hum), hum.size, hum.dtype)
    numbers = np.round(10.0 * hum).astype(np.int64)
    decode_integers(encode_integers(numbers), numbers.size)
    packed(
        numbers.view(np.uint64), np.array([0, numbers.size]), np.array([type_mark(numbers.dtype)], np.uint8)
    )
    runs = RleCodec()
    runs.unpack(runs.pack(numbers // 600), numbers.size, numbers.dtype)
    ticks = TicksTime()
    ticks.unpack(ticks.pack(numbers), numbers.size)
    steps = np.arange(64) % 61
    for values in (
        steps / 3.0,
        np.floor(steps * 24.414 + 0.5) / 100,
    ):  # of a converter, as floats and as decimals
        origin.unpack(origin.pack(values), values.size, values.dtype)
    _warm_lossy()
    _warm_reading()


def _warm_lossy() -> None:
    """The kernels of what is within a bound, on levels that stay and come again: none is unfit for them."""
    levels = np.tile(np.repeat([0.0, 5.0, 2.0, 9.0], 40), 4)
    for codec in lossy_candidates(levels, Reach(eps=0.1)):
        codec.unpack(codec.pack(levels), levels.size, levels.dtype)


def _warm_reading() -> None:
    """The kernel of many chunks, on none."""
    from headrace.codecs import chunk_kernels as kernels
    from headrace.codecs.model import scratch_for

    none, starts, none_float = np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0)
    headers = starts, none, none, starts, np.empty(0, np.uint8)
    scratch = scratch_for(0), kernels.rooms_for(0)
    payload, kind = np.frombuffer(b"", np.uint8), type_mark(none_float.dtype)
    kernels.decode_chunks(payload, headers, kind, scratch, (none, none_float), 0, False)
