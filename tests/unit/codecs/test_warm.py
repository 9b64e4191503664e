"""Warming: afterwards nothing is compiled any more."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from headrace.codecs import block_kernels, chunk_kernels, series_kernels, wave_kernels
from headrace.codecs.block import decode_block, encode_blocks
from headrace.codecs.warm import warm_kernels
from headrace.codecs.wave import WaveRuns, decode_waves, encode_waves
from headrace.store.warm import encode_chunk
from headrace.store.warm_reads import Chunks, decode_chunks

ENTRIES = (
    block_kernels.encode_blocks,
    block_kernels.measure_blocks,
    block_kernels.decode_blocks,
    series_kernels.encode_series,
    series_kernels.decode_series,
    chunk_kernels.decode_chunks,
    wave_kernels.encode_waves,
    wave_kernels.open_waves,
    wave_kernels.decode_waves,
)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled with NUMBA_DISABLE_JIT=1")
def test_one_version_of_each_kernel_serves_all():
    warm_kernels()
    assert [len(entry.signatures) for entry in ENTRIES] == [1] * len(ENTRIES)
    values = np.linspace(0, 1, 30).reshape(10, 3)
    quality = np.ones(values.shape, np.uint8)
    blocks = encode_blocks(values, np.arange(10), quality, np.arange(10, dtype=np.int32), np.array([0, 10]))
    decode_block(blocks.payload.tobytes(), values.dtype)
    runs = WaveRuns(*(np.array([k, k]) for k in (0, 3, 2, 15)))
    waves = encode_waves(runs, values.reshape(-1), quality.reshape(-1), np.arange(2), np.arange(3))
    decode_waves(waves.payload.tobytes(), waves.offsets, values.dtype)
    chunk = encode_chunk(np.arange(20) ** 2, np.arange(20.0), None)
    chunks = Chunks(
        np.frombuffer(chunk.payload, np.uint8), np.array([0, len(chunk.payload)]), chunk[1:3], np.dtype("f8"),
        np.array([20]), np.array([0]), np.array([361]), np.empty(0, np.int64),
    )  # fmt: skip
    decode_chunks(chunks, lambda g: None)
    assert [len(entry.signatures) for entry in ENTRIES] == [1] * len(ENTRIES)


def test_warming_needs_no_compiler():
    warm_kernels()
