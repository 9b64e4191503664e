"""Writes a golden set: what this release stores, for every later one to read.

    uv run python tests/golden/make.py NAME        # tests/golden/NAME, made anew where it is there
    uv run python tests/golden/make.py             # the newest again: while its format is not released yet

A set is ``store.zip`` (a store with a cold day whose rows are lossy, a warm day, rollups of both, a hot day, a tail in the journal,
rejects and shards' state), ``samples.csv.gz`` (all that a query gives of it), ``windows.csv.gz`` (the warm day's minutes),
``cold.csv.gz`` (the cold day in one window, from headers that are those of the original) and ``bodies.json`` (each codec on several
series: spec, values, body), which is left out where it would be that of the set before. Never make a set of a released format again:
add one.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headrace.codecs import registry
from headrace.codecs.base import Unfit
from headrace.codecs.choice import ANY, CodecChoice
from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.tier_settings import TierSection
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.host import Host, HostSettings
from headrace.runtime.reader import StoreReader
from headrace.store.compactor import Compactor
from headrace.store.query import Store
from headrace.store.tiers import TierRules
from headrace.testing.hosts import flush_all, work_off

HERE = Path(__file__).parent
DAY = 86_400 * NS
START = 20_000 * DAY + DAY // 2
OLD = START - 60 * DAY
"""A day whose 30 days are over for 30 days and more when the next one comes."""
N = 130
SPAN = OLD - DAY, START + 10 * DAY
RULE = {
    "match": "**",
    "after": {"cold": "30d", "rollups": "9y"},
    "rollups": ["1s", "1m"],
    "bound": {"range": 0.01},
}
CHOICES = {
    "plant/floats/steps": CodecChoice("seasonal"),
    "plant/singles/a": CodecChoice("swing"),
}
PIPELINE = FlowSpec(
    "tens",
    "plant/oven/*",
    ({"op": "window", "every": "10s", "agg": ["mean"]},),
    "{parent}/{signal}_{agg}_10s",
)
GROUPS: dict[str, Layout] = {
    "oven": Layout("u16", (Column("temp", unit="degC", scale=0.1, offset=-40.0), Column("level", scale=2.0))),
    "meter": Layout("i64", (Column("count", Kind.COUNTER),)),
    "press": Layout("u8", (Column("state", Kind.DISCRETE, labels=("stopped", "running")),)),
    "plc": Layout("u16", (Column("program", Kind.DISCRETE),)),
    "motor": Layout("i16", (Column("v", Kind.WAVEFORM),)),
    "floats": Layout(
        "f64", tuple(Column(name) for name in ("decimal", "sine", "noise", "steps", "gaps", "fixed"))
    ),
    "singles": Layout("f32", (Column("a"), Column("b"))),
    "jitter": Layout("f64", (Column("x"),)),
    "fast": Layout("f64", (Column("x"),)),
}


def floats(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """Series that are decimals, a sine, noise, a converter's steps, with gaps, fixed: float64[n, 6]."""
    i = np.arange(n)
    walk = np.cumsum(rng.integers(-3, 4, n))
    steps = np.floor(rng.integers(0, 60, n) * 24.414 + 0.5) / 100
    gaps = np.where(i % 17 == 3, np.nan, walk / 4)
    gaps[5:8] = [np.inf, -0.0, 5e-324]
    return np.stack([20 + walk / 10, np.sin(i / 9), rng.normal(size=n), steps, gaps, np.full(n, 2.5)], axis=1)


def batches(slots: dict[str, int], start_ns: int, seed: int) -> Iterator[FrameBatch]:
    """Frames of every shape and type, and some qualities."""
    rng = np.random.default_rng(seed)
    i = np.arange(N)

    def dense(name: str, ts_ns: Any, values: Any, quality: Any = None) -> FrameBatch:
        dtype = numpy_dtype(GROUPS[name].dtype)
        return FrameBatch.dense(
            np.full(N, slots[name], np.uint32),
            ts_ns,
            np.asarray(values).reshape(N, -1).astype(dtype),
            quality,
        )

    regular = start_ns + i * NS
    quality = np.zeros((N, 2), np.uint8)
    quality[7] = [Quality.UNCERTAIN, Quality.ABSENT]
    quality[50:60, 1] = Quality.BAD_DEVICE
    yield dense(
        "oven", regular, np.stack([600 + np.cumsum(rng.integers(-2, 3, N)), i // 40], axis=1), quality
    )
    yield dense("meter", regular, 2**53 + np.cumsum(rng.integers(0, 50, N)))
    yield dense("press", regular, i // 30 % 2)
    yield dense("floats", regular, floats(rng, N))
    yield dense("singles", regular, np.stack([i * 0.1, rng.normal(size=N)], axis=1))
    yield dense(
        "jitter", start_ns + np.cumsum(rng.integers(900, 1_100, N)) * 10**6, rng.normal(size=N).round(3)
    )
    yield dense("fast", start_ns + i * NS // 12_000, np.sin(i / 5))
    words, start = ("drill", "mill", "idle"), np.array([0, 2, 3])
    yield FrameBatch.sparse(
        np.full(2, slots["plc"], np.uint32), start_ns + np.array([0, 5]) * NS, np.array([1, 0, 2], np.uint16), start,
        np.zeros(3, np.uint16), value_ts_ns=start_ns + np.array([0, 1, 5]) * NS, dictionary=words,
    )  # fmt: skip
    rate = np.array([12_000]), np.array([1])
    yield FrameBatch.wave(
        np.array([slots["motor"]], np.uint32), np.array([start_ns]), rng.integers(-50, 50, 64).astype(np.int16),
        np.array([0, 64]), rate,
    )  # fmt: skip


class Life:
    """A host stepped by hand."""

    def __init__(self, disk: Any, now_ns: int = START) -> None:
        self.clock = VirtualClock(now_ns)
        settings = HostSettings(nonce=1, threads=1)
        self.host = Host(disk, self.clock, [PIPELINE], settings=settings, on_failed=_fail)
        self.host.catch_up()

    def feed(self, some: Iterator[FrameBatch], now_ns: int) -> None:
        """Take batches in, journal them, step the shards."""
        for batch in some:
            self.host.core.offer(batch.with_(arrival_ns=now_ns))
        self.clock.set_ns(now_ns)
        self.host.core.tick()
        self.host.core.commit()
        work_off(self.host)

    def flush(self) -> None:
        """Flush every shard, with its state."""
        flush_all(self.host)


def _fail(error: Exception) -> None:
    raise error


def write_store(folder: Path) -> None:
    """The store of a set."""
    life = Life(LocalDisk(folder), OLD)
    slots = {name: life.host.directory.define(f"plant/{name}", layout) for name, layout in GROUPS.items()}
    life.feed(batches(slots, OLD, 4), OLD + 200 * NS)
    life.flush()
    rules = TierRules({"all": TierSection.model_validate(RULE)})
    life.clock.set_ns(OLD + DAY)
    compact(life, rules)
    life.feed(batches(slots, START, 1), START + 200 * NS)
    life.host.core.offer_reject(Reject(RejectCode.MALFORMED, "hand", "hand", "not a number", b"?"))
    life.flush()
    life.clock.set_ns(START + DAY // 2 + 3_600 * NS)  # the day is over
    compact(life, rules)
    life.feed(batches(slots, START + DAY, 2), START + DAY + 200 * NS)
    late = FrameBatch.dense(
        np.array([slots["jitter"]], np.uint32), np.array([START + 7 * NS // 2]), np.array([[9.5]])
    )
    life.feed(iter([late]), START + DAY + 201 * NS)
    life.flush()
    life.feed(batches(slots, START + DAY + 3_600 * NS, 3), START + DAY + 3_800 * NS)
    life.host.journal.close()


def compact(life: Life, rules: TierRules) -> None:
    """Make warm and cold what is due, and delete what they replace."""
    for _ in range(2):
        compactor = Compactor(
            life.host.store, life.clock, rules=rules, choice_of=lambda path: CHOICES.get(path, ANY)
        )
        assert compactor.run_once(force=True).problems == []
        life.clock.advance(600)


def samples(disk: Any) -> bytes:
    """All that a query gives, with what the journal's end has."""
    reader = StoreReader(disk)
    tail = reader.journal_tail()
    answer = reader.store.query("**", *SPAN, tail=tail.frames)
    assert answer.missing == ()
    return answer.to_csv(labels=True)


def windows(store: Store, start_ns: int = START, every_ns: int = 60 * NS) -> bytes:
    """Minutes of the warm day, or other windows of another."""
    agg = ("count", "sum", "min", "max", "first", "last", "mean")
    answer = store.query("plant/*/*", start_ns - DAY // 2, start_ns + DAY // 2, every_ns, agg)
    assert answer.missing == ()
    return answer.to_csv()


def cold_day(store: Store) -> bytes:
    """The cold day in one window, from the headers of its chunks."""
    before, store.uses_rollups = store.uses_rollups, False
    try:
        return windows(store, OLD, DAY)
    finally:
        store.uses_rollups = before


def series(n: int = 96) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Values that each codec finds something in."""
    rng = np.random.default_rng(0)
    for name, column in zip(
        ("decimals", "sine", "noise", "levels", "gaps", "fixed"), floats(rng, n).T, strict=True
    ):
        yield name, np.ascontiguousarray(column)
    yield "float32", np.sin(np.arange(n) / 7).astype(np.float32)
    yield "cycle", np.tile(rng.normal(size=n // 4), 4)
    yield "plateaus", np.repeat(rng.integers(0, 9, n // 8), 8) + rng.normal(size=n) / 50
    yield "ramps", np.abs(np.arange(n) % 40 - 20.0)
    yield "counts", np.cumsum(rng.integers(0, 5, n)).astype(np.uint32)
    yield "states", np.repeat(rng.integers(0, 3, n // 12), 12).astype(np.uint8)
    yield "random", np.frombuffer(rng.bytes(8 * n), np.int64)


def times(n: int = 96) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Times that each codec finds something in."""
    rng, i = np.random.default_rng(1), np.arange(n)
    yield "regular", START + i * NS
    yield "jitter", START + i * NS + rng.integers(-20, 20, n) * 10**6
    yield "gaps", START + i * NS + i // 30 * 3_600 * NS
    yield "12 kHz", START + i * NS // 12_000
    yield "any", START + np.cumsum(rng.integers(1, 10**12, n))


_SETTINGS = {"rate": (12_000, 1), "jitter": (10**8,)}


def bodies() -> Iterator[dict[str, Any]]:
    """Each built-in codec on each series that it takes."""
    for name in registry.VALUE_CODECS.built_in:
        part = registry.VALUE_CODECS.load(name)
        for kind, values in series():
            codec = part(0.05) if registry.is_lossy(part) else part()
            yield from _body("values", codec, kind, values, str(values.dtype))
    for name in registry.TIME_CODECS.built_in:
        for kind, ts_ns in times():
            codec = registry.TIME_CODECS.load(name)(*_SETTINGS.get(name, ()))
            yield from _body("times", codec, kind, ts_ns, "")


def _body(
    family: str, codec: Any, kind: str, values: np.ndarray[Any, Any], dtype: str
) -> Iterator[dict[str, Any]]:
    try:
        body = codec.pack(values)
    except Unfit:
        return
    decoded = codec.unpack(body, values.size, *([values.dtype] if dtype else []))
    content = base64.b64encode(zlib.compress(decoded.tobytes(), 9)).decode()
    yield {
        "family": family, "spec": codec.to_dict(), "series": kind, "n": values.size, "dtype": dtype,
        "decoded": content, "body": base64.b64encode(body).decode(),
    }  # fmt: skip


def _written(some: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What is written of each; what it is read as may differ in a last bit from machine to machine."""
    return [(one["family"], one["spec"], one["series"], one["body"]) for one in some]


def zipped(folder: Path) -> bytes:
    """A folder as a zip file that has the same bytes whenever it is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            entry = zipfile.ZipInfo(str(path.relative_to(folder)), (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return out.getvalue()


def main(name: str) -> None:
    """Make a set."""
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder))
        (target / "store.zip").write_bytes(zipped(Path(folder)))
        (target / "samples.csv.gz").write_bytes(gzip.compress(samples(LocalDisk(folder)), 9, mtime=0))
        store = StoreReader(LocalDisk(folder)).store
        for what, found in (("windows", windows(store)), ("cold", cold_day(store))):
            (target / f"{what}.csv.gz").write_bytes(gzip.compress(found, 9, mtime=0))
    made, before = list(bodies()), sorted(p for p in HERE.glob("*/bodies.json") if p.parent < target)
    if not before or _written(json.loads(before[-1].read_text(encoding="utf-8"))) != _written(made):
        lines = ",\n".join(json.dumps(one, sort_keys=True) for one in made)
        (target / "bodies.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    for path in sorted(target.iterdir()):
        print(f"{path.relative_to(HERE)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(
        sys.argv[1]
        if len(sys.argv) > 1
        else max(p.name for p in HERE.iterdir() if p.is_dir() and p.name[0].isdigit())
    )
