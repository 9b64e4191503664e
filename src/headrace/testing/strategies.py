"""Hypothesis strategies for what flows: layouts, directories, frame batches of every shape and type.

Import them in property tests; `hypothesis` is needed, nothing else in the package imports this module.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.core.clock import NO_TIME
from headrace.core.frames import FrameBatch, Shape
from headrace.core.layouts import DTYPES, Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality
from headrace.core.sensors import SensorDirectory

YEAR_2000_NS = 946_684_800_000_000_000
YEAR_2100_NS = 4_102_444_800_000_000_000

names = st.text(string.ascii_lowercase + string.digits + "_é", min_size=1, max_size=8)
"""Names of levels and signals."""

dtypes = st.sampled_from(DTYPES)
"""Every value type."""

times_ns = st.integers(YEAR_2000_NS, YEAR_2100_NS)
"""Source times that any time policy takes."""


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    """One column called `name`, with any grid and any limits."""
    low, high = draw(st.none() | st.floats(-1e6, 0.0)), draw(st.none() | st.floats(0.0, 1e6))
    return Column(
        name,
        kind=draw(st.sampled_from(Kind)),
        unit=draw(st.sampled_from(["", "degC", "bar", "m/s"])),
        scale=draw(st.sampled_from([1.0, 0.1, 0.001, -0.5])),
        offset=draw(st.sampled_from([0.0, -273.15, 40.0])),
        low=low,
        high=high,
        labels=draw(st.sampled_from([(), ("stopped", "running")])),
    )


@st.composite
def layouts(draw: st.DrawFn, dtype: str | None = None, width: int | None = None) -> Layout:
    """A layout of any type and 1 to 6 columns, or of the given ones."""
    n = draw(st.integers(1, 6)) if width is None else width
    signals = draw(st.lists(names, min_size=n, max_size=n, unique=True))
    return Layout(draw(dtypes) if dtype is None else dtype, tuple(draw(columns(s)) for s in signals))


@st.composite
def directories(draw: st.DrawFn, n_groups_max: int = 6) -> SensorDirectory:
    """A directory of 1 to `n_groups_max` groups; some share a layout, some were given a second one."""
    directory = SensorDirectory()
    devices = draw(st.lists(names, min_size=1, max_size=n_groups_max, unique=True))
    kinds = draw(st.lists(layouts(), min_size=1, max_size=3))
    for device in devices:
        path = f"plant/line1/{device}"
        directory.define(path, draw(st.sampled_from(kinds)))
        if draw(st.booleans()):
            directory.define(path, draw(st.sampled_from(kinds)))
    return directory


def values_of(dtype: str, shape: int | tuple[int, ...]) -> st.SearchStrategy[npt.NDArray[Any]]:
    """Arrays of a value type with any bits: extremes, infinities and NaNs among them."""
    kind = numpy_dtype(dtype)
    bits = np.dtype(f"u{kind.itemsize}")
    return (
        hnp.arrays(bits, shape).map(lambda a: a.view(kind)) if kind.kind == "f" else hnp.arrays(kind, shape)
    )


def qualities(shape: int | tuple[int, ...]) -> st.SearchStrategy[npt.NDArray[np.uint8] | None]:
    """None (all good) or any quality for each value."""
    known = st.sampled_from([int(q) for q in Quality])
    return st.none() | hnp.arrays(np.uint8, shape, elements=known)


def _times(n: int) -> st.SearchStrategy[npt.NDArray[np.int64]]:
    return hnp.arrays(np.int64, n, elements=times_ns | st.just(NO_TIME))


@st.composite
def _starts(draw: st.DrawFn, n_frames: int) -> npt.NDArray[np.int64]:
    counts = draw(st.lists(st.integers(0, 5), min_size=n_frames, max_size=n_frames))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@st.composite
def frame_batches(
    draw: st.DrawFn,
    directory: SensorDirectory | None = None,
    shape: Shape | None = None,
    n_frames_max: int = 8,
) -> FrameBatch:
    """A batch of any shape, type and quality whose slots, columns and types fit `directory`.

    Parameters
    ----------
    directory : the groups to choose from; a drawn one by default.
    shape : the shape of the frames; any by default.
    n_frames_max : most frames; a batch may be empty.
    """
    plant = draw(directories()) if directory is None else directory
    first = draw(st.integers(0, plant.n_slots - 1))
    dtype, width = plant.layout(first).dtype, plant.layout(first).width
    kind = draw(st.sampled_from(Shape)) if shape is None else shape
    fits = [s for s in range(plant.n_slots) if plant.layout(s).dtype == dtype]
    if kind is Shape.DENSE:
        fits = [s for s in fits if plant.layout(s).width == width]
    elif kind is Shape.WAVE:
        fits = [s for s in fits if plant.layout(s).width == 1] or fits
    slots = draw(st.lists(st.sampled_from(fits), max_size=n_frames_max))
    build = {Shape.DENSE: _dense, Shape.SPARSE: _sparse, Shape.WAVE: _wave}[kind]
    batch = draw(build(plant, np.array(slots, np.uint32), dtype, width))
    return batch.with_(
        arrival_ns=draw(times_ns),
        origin=draw(st.sampled_from(["ovens", "broker"])),
        sequence=draw(st.integers(0, 9)),
    )


@st.composite
def _dense(
    draw: st.DrawFn, plant: SensorDirectory, slot: npt.NDArray[np.uint32], dtype: str, width: int
) -> FrameBatch:
    shape = (len(slot), width)
    return FrameBatch.dense(
        slot, draw(_times(len(slot))), draw(values_of(dtype, shape)), draw(qualities(shape))
    )


@st.composite
def _sparse(
    draw: st.DrawFn, plant: SensorDirectory, slot: npt.NDArray[np.uint32], dtype: str, width: int
) -> FrameBatch:
    start = draw(_starts(len(slot)))
    n = int(start[-1])
    most = np.repeat(plant.width[slot], np.diff(start))
    column = (draw(hnp.arrays(np.uint16, n)) % most).astype(np.uint16)
    words = draw(st.none() | st.lists(names, min_size=1, max_size=3).map(tuple)) if dtype[0] == "u" else None
    return FrameBatch.sparse(
        slot, draw(_times(len(slot))), draw(values_of(dtype, n)), start, column,
        quality=draw(qualities(n)), value_ts_ns=draw(st.none() | _times(n)), dictionary=words,
    )  # fmt: skip


@st.composite
def _wave(
    draw: st.DrawFn, plant: SensorDirectory, slot: npt.NDArray[np.uint32], dtype: str, width: int
) -> FrameBatch:
    start = draw(_starts(len(slot)))
    n = int(start[-1])
    rate = tuple(draw(hnp.arrays(np.int64, len(slot), elements=st.integers(1, 48_000))) for _ in range(2))
    return FrameBatch.wave(
        slot,
        draw(_times(len(slot))),
        draw(values_of(dtype, n)),
        start,
        (rate[0], rate[1]),
        quality=draw(qualities(n)),
    )


def bits_of(batch: FrameBatch) -> bytes:
    """All bits of a batch: two batches are the same where these are (NaNs, signed zeros and all)."""
    return batch.to_bytes()


@st.composite
def directory_and_batches(
    draw: st.DrawFn, n_batches_max: int = 4, shape: Shape | None = None
) -> tuple[SensorDirectory, list[FrameBatch]]:
    """A directory and some batches of its groups."""
    plant = draw(directories())
    return plant, draw(st.lists(frame_batches(plant, shape), max_size=n_batches_max))


JournalStep = tuple[str, Any]


def journal_steps(n_steps_max: int = 25) -> st.SearchStrategy[list[JournalStep]]:
    """What may happen to a journal, in order: pairs of a word and its argument.

    ``append`` (kind number 1 to 6, payload), ``sync``, ``crash`` (seed of what the disk keeps),
    ``reopen``, ``trim`` (fraction of the durable records), ``full`` (bytes left), ``space``.
    """
    payload = st.binary(max_size=200) | st.integers(0, 2_000).map(lambda n: b"headrace" * n)
    steps: Callable[..., st.SearchStrategy[JournalStep]] = st.tuples
    return st.lists(
        st.one_of(
            steps(st.just("append"), st.tuples(st.sampled_from([1, 2, 4, 5, 6]), payload)),
            steps(st.just("sync"), st.none()),
            steps(st.just("sync"), st.none()),
            steps(st.just("crash"), st.integers(0, 2**32)),
            steps(st.just("reopen"), st.none()),
            steps(st.just("trim"), st.floats(0, 1)),
            steps(st.just("full"), st.integers(0, 4_000)),
            steps(st.just("space"), st.none()),
        ),
        max_size=n_steps_max,
    )
