"""What the golden bytes were made from: formulas, so that the bytes stand for something a reader can follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.codecs import registry
from headrace.codecs.block import encode_blocks
from headrace.codecs.wave import WaveRuns, encode_wave
from headrace.core.layouts import DTYPES, numpy_dtype

N = 12
START_NS = 1_750_000_000_000_000_000


def block_arguments(name: str) -> tuple[Any, ...]:
    """Columns for every mode: constant, linear, changes, Rice of each order, raw, patches; all in one block."""
    dtype = numpy_dtype(name)
    i = np.arange(N)
    columns = [
        np.full(N, 7),
        i * 3,
        np.where(i < 9, 5, 100),
        50 + i * i % 7,
        np.cumsum(i * 7 % 5 - 2) + 60,
        i * i // 2,
        i * i * i * 37 % 128,
    ]
    values = np.stack(columns, axis=1).astype(dtype)
    if dtype.kind == "f":
        values[:, 3:5] /= dtype.type(10)
        values[:, 5] = np.sqrt(i).astype(dtype)
        values[4, 4] = np.nan
        values[5, 4] = -0.0
    quality = np.zeros(values.shape, np.uint8)
    quality[4, :3] = 0x83
    ts_ns = START_NS + i * 10**9 + (i * 7 % 4) * 10**6
    return values, ts_ns, quality, i[::-1].copy(), np.array([0, 10, N])


def wave_arguments() -> tuple[Any, ...]:
    """Two runs at 12 kHz with a gap."""
    n = np.array([7, 5])
    runs = WaveRuns(START_NS + np.array([0, 10**9]), np.array([12_000, 12_000]), np.array([1, 1]), n)
    values = (np.arange(N) * 31 % 17 - 8).astype(np.int16)
    return runs, values, np.where(np.arange(N) == 3, 0x41, 0).astype(np.uint8)


def series_values(codec: str) -> np.ndarray[Any, Any]:
    """One series that the codec takes."""
    return np.full(N, 2.5) if codec == "const" else np.cumsum(np.arange(N) % 5 - 2) / 4


def series_times(codec: str) -> np.ndarray[Any, Any]:
    """Times that the codec takes."""
    return START_NS + np.arange(N) * 10**9 + (0 if codec in ("regular", "rate") else np.arange(N) % 3 * 10**6)


def encoded() -> Iterator[tuple[str, bytes]]:
    """Every golden name, and what this release makes of its input."""
    for name in DTYPES:
        yield f"block {name}", encode_blocks(*block_arguments(name)).payload.tobytes()
    yield "wave i16", encode_wave(*wave_arguments())
    for name in ("const", "pco", "raw", "rice_delta"):
        yield f"values {name}", registry.value_codec({"name": name}).encode(series_values(name))
    for name in ("delta_of_delta", "gcd_pco", "rate", "regular"):
        yield f"times {name}", registry.time_codec({"name": name}).encode(series_times(name))
