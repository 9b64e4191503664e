"""``headrace bench codecs``: what a folder of series costs in the store, without loss and within bounds.

Each series file is one sensor. All go through the code that writes warm rows, in chunks of each block length, into
one segment: payloads, and what the file holds beside them (headers, statistics, footer), an equal part of it for each
chunk. Every chunk learns from itself alone, and is decoded and compared: bit for bit, or with its bound. Raw is 16
bytes a sample, an int64 of nanoseconds and a float64.

In the same run peers encode the same blocks (`headrace.bench.codec_peers`). They are not charged for headers, though
they would need some to be found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench import codec_peers
from headrace.bench.chart import pair_chart
from headrace.codecs import loss
from headrace.codecs.base import keeps_bound, same_bits
from headrace.codecs.origin import OriginCodec, type_mark
from headrace.codecs.origin_coding import packed
from headrace.codecs.origins import Origin
from headrace.core.clock import thread_cpu_ns
from headrace.core.errors import ConfigError, CorruptionError
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import Selection, SensorDirectory
from headrace.runtime.series_files import read_series
from headrace.store import warm
from headrace.store.runs import SensorSamples
from headrace.store.segment import write_segment
from headrace.store.series import SeriesMap
from headrace.store.wanted import Wanted, to_bits
from headrace.store.warm import Chunk, Packed, decode_chunk, encode_chunk
from headrace.store.warm_reads import Chunks, decode_chunks
from headrace.store.warm_rows import ChunkRules, encode_warm
from headrace.store.words import Words

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Progress = Callable[[str], None]

RAW_BYTES = 16
SYNTHETIC = "syn_"
SPEED_BLOCK, SPEED_REPEATS, SPEED_BLOCKS_MAX = 1_024, 40, 8


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One file: ``ts_ns: int64[n]``, ``values: float64[n]``; its kind is the first part of its name."""

    name: str
    ts_ns: I64
    values: Array

    @property
    def kind(self) -> str:
        """What it is of: ``skab`` of ``skab_temp``."""
        return self.name.split("_", 1)[0]

    @property
    def path(self) -> str:
        """Of its sensor: each is a device of its own, so that none has its times from another."""
        return f"{self.name}/value"

    @property
    def span(self) -> float:
        """Largest value less the smallest."""
        return float(np.ptp(self.values)) if len(self.values) else 0.0

    def blocks(self, size: int) -> Iterator[tuple[I64, Array]]:
        """Times and values of each block."""
        for at in range(0, len(self.values), size):
            yield self.ts_ns[at : at + size], self.values[at : at + size]


def run(
    folder: Path,
    blocks: Sequence[int] = (256, 1_024, 8_192),
    bounds: Sequence[float] = (0.001, 0.005, 0.01),
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    folder : of series files. blocks : samples of a chunk at most. bounds : as shares of each series' range.

    Raises
    ------
    ConfigError : no series there.
    """
    series = load(folder)
    bench = _Bench(series, progress)
    for block in blocks:
        bench.measure(block, 0.0)
        for bound in bounds:
            bench.measure(block, bound)
            bench.add_models(block, bound)
        progress(f"peers, blocks of {block:,}")
        bench.add_peers(block, codec_peers.ratios(series, block))
    progress("speed")
    return bench.result(blocks, bounds) | speeds(series)


def load(folder: Path) -> list[Series]:
    """Every series file of a folder, by name. Raises `ConfigError` where there is none."""
    found = []
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("*.csv")]):
        ts_ns, values = read_series(file)
        found.append(Series(file.stem, ts_ns, np.ascontiguousarray(values, np.float64)))
    if not found:
        raise ConfigError(f"{folder} has no series: Parquet or CSV files with times and a column 'value'")
    return found


def _is_synthetic(one: Series) -> bool:
    return one.name.startswith(SYNTHETIC)


class _Bench:
    """Series, and what has been measured of them."""

    def __init__(self, series: list[Series], progress: Progress) -> None:
        self.series, self.progress = series, progress
        self.rows: dict[tuple[str, int], dict[str, Any]] = {}
        self.peers: dict[str, dict[str, float]] = {}
        self.lossy: dict[tuple[float, int], list[tuple[float, float]]] = {}
        self.models: dict[tuple[float, int], list[dict[str, float]]] = {}
        self.header_bytes: dict[str, float] = {}
        self.bare: dict[str, list[float]] = {}
        self.mismatches = self.violations = 0
        self.worst = 0.0

    def measure(self, block: int, bound: float) -> None:
        """All series in chunks of one length, lossless or with a bound, as one segment."""
        self.progress(f"blocks of {block:,}, " + (f"bound {bound:g} of the range" if bound else "lossless"))
        table = _table(self.series, block, bound)
        data = write_segment("bench.parquet", [table]).data
        header = (len(data) - int(np.sum(table["n_bytes"].to_numpy()))) / len(table)
        if not bound:
            self.header_bytes[str(block)] = round(header, 1)
        spans = zip(*(table[name].cast("int64").to_pylist() for name in ("t_min", "t_max")), strict=True)
        rows = [row | {"span": span} for row, span in zip(table.to_pylist(), spans, strict=True)]
        for one in self.series:
            mine = [row for row in rows if row["path"] == one.path]
            decoded, value_bytes = self._decoded(one, mine, bound)
            n_bytes = sum(row["n_bytes"] + header for row in mine)
            self._note(one, block, bound, (n_bytes, value_bytes, decoded, mine))

    def _decoded(self, one: Series, rows: list[dict[str, Any]], bound: float) -> tuple[Array, int]:
        """What its chunks give back, compared chunk by chunk; and the bytes of their values."""
        parts, at, value_bytes = [], 0, 0
        for row in rows:
            n = row["n_frames"]
            want_ts, want = one.ts_ns[at : at + n], one.values[at : at + n]
            at += n
            eps = bound * one.span
            try:
                codecs = row["time_codec"], row["value_codec"]
                dtype = np.dtype(row["dtype"].replace("f64", "f8"))
                ts_ns, got, _ = decode_chunk(row["payload"], codecs, n, dtype, row["span"])
            except CorruptionError:
                self.mismatches += 1
                parts.append(want)
                continue
            parts.append(got)
            value_bytes += warm.value_bytes(row["payload"])
            if not same_bits(ts_ns, want_ts) or (not bound and not same_bits(got, want)):
                self.mismatches += 1
            if bound and len(want) and eps > 0.0:
                self.violations += not keeps_bound(got, want, eps)
                self.worst = max(self.worst, float(np.abs(got - want).max()) / eps)
        return np.concatenate(parts) if parts else one.values, value_bytes

    def _note(
        self, one: Series, block: int, bound: float, found: tuple[float, int, Array, list[dict[str, Any]]]
    ) -> None:
        n_bytes, value_bytes, decoded, rows = found
        n = len(one.values)
        ratio = RAW_BYTES * n / n_bytes
        if not bound:
            if not _is_synthetic(one):
                payload = sum(row["n_bytes"] for row in rows)
                self.bare.setdefault(str(block), []).append(RAW_BYTES * n / max(1, payload))
            self.rows[one.name, block] = {
                "name": one.name, "kind": one.kind, "n": n, "block": block, "ratio": round(ratio, 3),
                "value_codec": _usual(rows, "value_codec"), "time_codec": _usual(rows, "time_codec"), "grid": _most([_grid(row) for row in rows]), "bounds": {},
            }  # fmt: skip
            return
        cost = loss.measure(one.values, decoded)
        self.rows[one.name, block]["bounds"][f"{bound:g}"] = {
            "ratio": round(ratio, 3), "value_codec": _usual(rows, "value_codec"), "rmse": cost.rmse,
            "nrmse": cost.nrmse, "max_error": cost.max_abs, "bias": cost.mean_error,
        }  # fmt: skip
        if not _is_synthetic(one):
            self.lossy.setdefault((bound, block), []).append((ratio, 8 * n / max(1, value_bytes)))

    def add_peers(self, block: int, found: dict[str, dict[str, float]]) -> None:
        """Beside each series, and their geometric means."""
        for one in self.series:
            self.rows[one.name, block]["peers"] = found[one.name]
        real = [found[one.name] for one in self.series if not _is_synthetic(one)]
        self.peers[str(block)] = {
            peer: geometric([ratios[peer] for ratios in real]) for peer in codec_peers.PEERS if real
        }

    def add_models(self, block: int, bound: float) -> None:
        """What the peers' models make of the values within a bound."""
        real = [one for one in self.series if not _is_synthetic(one) and one.span > 0.0]
        self.models[bound, block] = [codec_peers.model_ratios(one, block, bound * one.span) for one in real]

    def result(self, blocks: Sequence[int], bounds: Sequence[float]) -> dict[str, Any]:
        """Everything as one object."""
        rows = list(self.rows.values())
        real = [row for row in rows if not row["name"].startswith(SYNTHETIC)] or rows
        geomean = {str(b): geometric([r["ratio"] for r in real if r["block"] == b]) for b in blocks}
        kinds = sorted({row["kind"] for row in rows})
        bare = {block: geometric(ratios) for block, ratios in self.bare.items()}
        return {
            "series": rows,
            "header_bytes_per_chunk": self.header_bytes,
            "geomean": geomean,
            "geomean_without_headers": bare,
            "geomean_by_kind": {
                kind: {
                    str(b): geometric([r["ratio"] for r in rows if r["kind"] == kind and r["block"] == b])
                    for b in blocks
                }
                for kind in kinds
            },
            "lossy": {
                f"{bound:g}": {
                    str(b): {
                        "geomean_total": geometric([total for total, _ in self.lossy.get((bound, b), [])]),
                        "geomean_value": geometric([value for _, value in self.lossy.get((bound, b), [])]),
                        "peers_value": self._models(bound, b),
                    }
                    for b in blocks
                }
                for bound in bounds
            },
            "peers": self.peers,
            "ratio_to_pcodec": {b: round(geomean[b] / p["pcodec"], 3) for b, p in self.peers.items() if p},
            "ratio_to_pcodec_without_headers": {
                b: round(bare[b] / p["pcodec"], 3) for b, p in self.peers.items() if p
            },
            "bound_violations": self.violations,
            "worst_error_over_bound": self.worst,
            "mismatches": self.mismatches,
        }

    def _models(self, bound: float, block: int) -> dict[str, float]:
        """Geometric means of the models' ratios, and of the better one for each series."""
        found = self.models.get((bound, block), [])
        means = {name: geometric([one[name] for one in found]) for name in codec_peers.MODELS}
        return means | {"best": geometric([max(one.values()) for one in found])}


def _table(series: list[Series], block: int, bound: float) -> Any:
    """Warm rows of all series."""
    directory = SensorDirectory()
    slots = [directory.define(one.path, Layout("f64", (Column(""),))) for one in series]
    n = len(slots)
    selection = Selection(np.array(slots, np.uint32), np.zeros(n, np.uint16), np.zeros(n, np.uint64))
    wanted = Wanted(directory, SeriesMap(directory), selection, is_raw=True)
    by_path = {one.path: one for one in series}
    ordered = [by_path[path] for path in wanted.paths.tolist()]
    start = np.cumsum([0, *(len(one.values) for one in ordered)])
    ts_ns = np.concatenate([one.ts_ns for one in ordered])
    values = to_bits(np.concatenate([one.values for one in ordered]))
    samples = SensorSamples(np.arange(n), start, ts_ns, values, np.zeros(len(ts_ns), np.uint8))
    eps = np.array([bound * one.span for one in ordered]) if bound else None
    return encode_warm(wanted, samples, Words(), np.zeros(n, np.int64), ChunkRules(block, eps))


def _usual(rows: list[dict[str, Any]], column: str) -> str:
    return _most([warm.codec_name(row[column]) for row in rows])


def _most(names: list[str]) -> str:
    return max(sorted(set(names)), key=names.count) if names else ""


def _grid(row: dict[str, Any]) -> str:
    """Where a chunk's floats come from, in words; "" where its codec asks for nothing of the kind."""
    codec, body = warm.values_of(row["payload"], row["value_codec"])
    return Origin.from_bytes(body[1:])[0].text() if isinstance(codec, OriginCodec) else ""


def geometric(ratios: Sequence[float]) -> float:
    """Geometric mean; 0 of none."""
    return round(float(np.exp(np.mean(np.log(ratios)))), 3) if len(ratios) else 0.0


def chart(result: dict[str, Any], block: int) -> str:
    """Lossless ratios of every series beside pcodec's, as an SVG picture."""
    rows = sorted(
        (row for row in result["series"] if row["block"] == block), key=lambda row: -float(row["ratio"])
    )
    return pair_chart(
        f"Raw bytes for each stored one, {block:,} samples a chunk",
        "ratio, lossless, times included; headers are charged to headrace only",
        ("headrace", f"pcodec, level {codec_peers.LEVEL}"),
        {row["name"]: (row["ratio"], row["peers"]["pcodec"]) for row in rows},
    )


def speeds(series: list[Series]) -> dict[str, Any]:
    """Million samples a second of one core, time and value together; of each series the best of repeats by turns with the peers.

    Each series' chunks are encoded as the compactor does it, plain numbers by one kernel, and decoded as a query does it,
    those of the same codecs together. Not the best of all series at once: where others share a core it is slow for seconds.
    """
    real = [one for one in series if not _is_synthetic(one)] or series
    blocks = [list(one.blocks(SPEED_BLOCK))[:SPEED_BLOCKS_MAX] for one in real]
    n = sum(len(values) for each in blocks for _, values in each)
    spent: dict[str, list[tuple[I64, I64]]] = {"": [], **{name: [] for name in codec_peers.SPEEDS}}
    for _ in range(SPEED_REPEATS):
        encode_ns, encoded = _timed(_encoded, blocks)
        chunks = [one for pair in zip(encoded, blocks, strict=True) for one in _as_stored(*pair)]
        spent[""].append((encode_ns, _timed_alone(lambda one: decode_chunks(one, _no_times), chunks)))
        for name, of_peer in codec_peers.SPEEDS.items():
            spent[name].append(_timed_peer(of_peer, blocks))
    encode, decode = (
        {name: _msps(n, [found[way] for found in each]) for name, each in spent.items()} for way in (0, 1)
    )
    return {
        "encode_msps": encode.pop(""), "decode_msps": decode.pop(""),
        "peer_encode_msps": encode, "peer_decode_msps": decode,
    }  # fmt: skip


def _timed_peer(
    of_peer: tuple[Callable[..., Any], Callable[..., Any]], blocks: list[list[Any]]
) -> tuple[I64, I64]:
    """CPU time in ns of encoding each series' blocks, and of decoding them."""
    encode, decode = of_peer
    ns, bodies = _timed(lambda each: [encode(block) for block in each], blocks)
    pairs = [list(zip(*pair, strict=True)) for pair in zip(bodies, blocks, strict=True)]

    def decode_each(some: list[Any]) -> None:
        for pair in some:
            decode(*pair)

    return ns, _timed_alone(decode_each, pairs)


def _msps(n: int, repeats: list[I64]) -> float:
    """Million samples a second, of the least that each of some works took in any repeat (ns)."""
    return round(float(n / np.minimum.reduce(repeats).sum() * 1e3), 2)


def _encoded(blocks: list[tuple[I64, Array]]) -> list[Chunk]:
    values = [values for _, values in blocks]
    start = np.cumsum([0, *map(len, values)])
    mark = np.full(len(blocks), type_mark(values[0].dtype), np.uint8)
    coded = packed(np.concatenate(values).view(np.uint64), start, mark)
    return [
        encode_chunk(ts_ns, each, None, packed=Packed(body, n_runs, n_known) if body else None)
        for (ts_ns, each), body, n_runs, n_known in zip(blocks, *coded, strict=True)
    ]


def _as_stored(encoded: list[Chunk], blocks: list[tuple[I64, Array]]) -> list[Chunks]:
    """The chunks of a series, those of the same codecs together, as a segment gives them to a query."""
    out = []
    for codecs in sorted({chunk[1:3] for chunk in encoded}):
        mine = [
            (chunk, ts_ns) for chunk, (ts_ns, _) in zip(encoded, blocks, strict=True) if chunk[1:3] == codecs
        ]
        starts = np.cumsum([0, *(len(chunk.payload) for chunk, _ in mine)])
        n, first, last = (np.array(x) for x in zip(*((len(t), t[0], t[-1]) for _, t in mine), strict=True))
        payload = np.frombuffer(b"".join(chunk.payload for chunk, _ in mine), np.uint8)
        none = np.empty(0, np.int64)
        out.append(Chunks(payload, starts, codecs, np.dtype(np.float64), n, first, last, none))
    return out


def _no_times(number: int) -> None:
    """Every chunk has its own."""


def _timed(work: Callable[[Any], Any], items: list[Any]) -> tuple[I64, list[Any]]:
    """CPU time in ns of working on each, and what was made."""
    spent, made = np.empty(len(items), np.int64), []
    for number, item in enumerate(items):
        begun = thread_cpu_ns()
        made.append(work(item))
        spent[number] = thread_cpu_ns() - begun
    return spent, made


def _timed_alone(work: Callable[[Any], Any], items: list[Any]) -> I64:
    """As `_timed`, and nothing that was made is kept: memory that is new each time would be what is measured."""
    spent = np.empty(len(items), np.int64)
    for number, item in enumerate(items):
        begun = thread_cpu_ns()
        work(item)
        spent[number] = thread_cpu_ns() - begun
    return spent
