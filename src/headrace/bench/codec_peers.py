"""Other ways to store the same blocks, as peers of `headrace.bench.codecs`: bytes of times and values together.

*pcodec* at level 8, times and values each; *Parquet* with zstd, times as DELTA_BINARY_PACKED and values by dictionary
or as BYTE_STREAM_SPLIT, bytes of the column chunks; *zstd* of the raw arrays; *Gorilla* as published (Pelkonen et
al., VLDB 2015): delta of deltas of the times in their largest common tick, their bits counted; the values' bytes.

Within a bound the peers are the models of ModelarDB (Jensen et al., VLDB 2018): runs of one value, and Elmeleegy's swing
filter. Both are cut by our kernels, at least as long as published, and lengths and levels are coded by pcodec, each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.codecs.base import Unfit
from headrace.codecs.gorilla import GorillaCodec, gorilla_block, gorilla_samples
from headrace.codecs.line_kernels import find_knots
from headrace.codecs.run_kernels import longest_runs
from headrace.core.kernels import kernel

if TYPE_CHECKING:
    from headrace.bench.codecs import Series

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Block = tuple[I64, Array]
LEVEL = 8
RAW_BYTES = 16


def encode_pcodec(block: Block) -> tuple[bytes, bytes]:
    """Times and values by pcodec."""
    from pcodec import ChunkConfig, standalone

    config = ChunkConfig(compression_level=LEVEL)
    return standalone.simple_compress(block[0], config), standalone.simple_compress(block[1], config)


def decode_pcodec(encoded: tuple[bytes, bytes], block: Block) -> Block:
    """Both back, into new arrays that are like those of the block."""
    from pcodec import standalone

    ts_ns, values = np.empty_like(block[0]), np.empty_like(block[1])
    standalone.simple_decompress_into(encoded[0], ts_ns)
    standalone.simple_decompress_into(encoded[1], values)
    return ts_ns, values


def _pcodec(block: Block) -> int:
    return sum(map(len, encode_pcodec(block)))


def _parquet_file(block: Block, dictionary: bool) -> pa.Buffer:
    table = pa.table({"ts_ns": block[0], "value": block[1]})
    sink = pa.BufferOutputStream()
    encoding = {"ts_ns": "DELTA_BINARY_PACKED"} | ({} if dictionary else {"value": "BYTE_STREAM_SPLIT"})
    pq.write_table(
        table, sink, compression="zstd", compression_level=3, column_encoding=encoding, write_statistics=False,
        use_dictionary=["value"] if dictionary else False, store_schema=False,
    )  # fmt: skip
    return sink.getvalue()


def _read_parquet(file: pa.Buffer, block: Block) -> Block:
    table = pq.read_table(pa.BufferReader(file), use_threads=False)
    return table["ts_ns"].to_numpy(), table["value"].to_numpy()


def _parquet(block: Block, dictionary: bool) -> int:
    group = pq.read_metadata(pa.BufferReader(_parquet_file(block, dictionary))).row_group(0)
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def _encode_zstd(block: Block) -> tuple[bytes, bytes]:
    codec = pa.Codec("zstd", 3)
    ts_ns, values = (codec.compress(np.ascontiguousarray(part).tobytes(), asbytes=True) for part in block)
    return ts_ns, values


def _decode_zstd(encoded: tuple[bytes, bytes], block: Block) -> Block:
    codec = pa.Codec("zstd", 3)
    ts_ns, values = (
        np.frombuffer(codec.decompress(part, like.nbytes, asbytes=True), like.dtype)
        for part, like in zip(encoded, block, strict=True)
    )
    return ts_ns, values


def _zstd(block: Block) -> int:
    return sum(map(len, _encode_zstd(block)))


def _gorilla(block: Block) -> int:
    ts_ns, values = block
    distance = ts_ns - ts_ns[0]
    tick = max(1, int(np.gcd.reduce(distance)))
    times = (int(gorilla_time_bits(distance // tick)) + 7) // 8
    return times + len(GorillaCodec().pack(np.ascontiguousarray(values, np.float64)))


def _encode_gorilla(block: Block) -> tuple[int, int, bytes]:
    """As published, but for times in their largest common tick; these in 8 bytes each where intervals change by too much."""
    ts_ns, values = block
    tick = max(1, int(np.gcd.reduce(ts_ns - ts_ns[0])))
    start = int(ts_ns[0]) % tick
    values = np.ascontiguousarray(values, np.float64)
    try:
        return tick, start, gorilla_block((ts_ns - start) // tick, values)
    except Unfit:
        return 0, 0, ts_ns.tobytes() + GorillaCodec().pack(values)


def _decode_gorilla(encoded: tuple[int, int, bytes], block: Block) -> Block:
    tick, start, body = encoded
    if tick:
        ticks, values = gorilla_samples(body, len(block[0]))
        return ticks * tick + start, values
    n_bytes = block[0].nbytes
    values = GorillaCodec().unpack(body[n_bytes:], len(block[1]), np.dtype(np.float64))
    return np.frombuffer(body[:n_bytes], np.int64), values


@kernel
def gorilla_time_bits(ticks: I64) -> int:
    """64 bits for the first time and 14 for the first delta; then 1, 9, 12, 16 or 68 a delta of deltas."""
    bits = 64
    before = 0
    for i in range(1, len(ticks)):
        delta = ticks[i] - ticks[i - 1]
        change = delta - before
        before = delta
        if i == 1:
            bits += 14 if 0 <= delta < 1 << 14 else 68
        elif change == 0:
            bits += 1
        elif -63 <= change <= 64:
            bits += 9
        elif -255 <= change <= 256:
            bits += 12
        elif -2047 <= change <= 2048:
            bits += 16
        else:
            bits += 68
    return bits


PEERS: dict[str, Callable[[Block], int]] = {
    "pcodec": _pcodec,
    "parquet_zstd_dict": lambda block: _parquet(block, True),
    "parquet_bss": lambda block: _parquet(block, False),
    "zstd": _zstd,
    "gorilla": _gorilla,
}
"""Bytes of one block, by name of the peer."""


SPEEDS: dict[str, tuple[Callable[[Block], Any], Callable[[Any, Block], Block]]] = {
    "pcodec": (encode_pcodec, decode_pcodec),
    "parquet_zstd_dict": (lambda block: _parquet_file(block, True), _read_parquet),
    "parquet_bss": (lambda block: _parquet_file(block, False), _read_parquet),
    "zstd": (_encode_zstd, _decode_zstd),
    "gorilla": (_encode_gorilla, _decode_gorilla),
}
"""What encodes a block and what decodes it again, which is told what the block was like, by name of the peer."""


def _pco_integers(*parts: I64) -> int:
    from pcodec import ChunkConfig, standalone

    config = ChunkConfig(compression_level=LEVEL)
    return sum(len(standalone.simple_compress(part, config)) for part in parts if part.size)


def _constant(values: Array, eps: float) -> int:
    lengths, levels = np.empty(values.size, np.int64), np.empty(values.size, np.int64)
    n = longest_runs(values, eps, eps / 4, True, lengths, levels)
    return _pco_integers(lengths[:n], levels[:n])


def _swing(values: Array, eps: float) -> int:
    ends, levels = np.empty(values.size, np.int64), np.empty(values.size, np.int64)
    n = find_knots(values, eps, eps, True, ends, levels)
    return _pco_integers(np.diff(ends[:n]), levels[:n])


MODELS: dict[str, Callable[[Array, float], int]] = {"piecewise_constant": _constant, "swing": _swing}
"""Bytes of a block's values within a bound, by name of the model."""


def model_ratios(one: Series, size: int, eps: float) -> dict[str, float]:
    """Raw bytes of a series' values by those that each model stores in blocks of one length."""
    values = [np.ascontiguousarray(block[1], np.float64) for block in one.blocks(size)]
    return {
        name: 8 * len(one.values) / max(1, sum(cost(part, eps) for part in values))
        for name, cost in MODELS.items()
    }


def ratios(series: list[Series], size: int) -> dict[str, dict[str, float]]:
    """Raw bytes by stored ones in blocks of one length, by series and peer."""
    return {
        one.name: {
            peer: round(RAW_BYTES * len(one.values) / sum(map(cost, one.blocks(size))), 3)
            for peer, cost in PEERS.items()
        }
        for one in series
    }
