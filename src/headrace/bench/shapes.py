"""Load in the shapes that message protocols bring: qualities, single changes, waveforms.

Nothing is decoded here; the path begins with the frames that an adapter emits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.load import (
    SERIES_FOLDER,
    DeviceLoad,
    FlatRows,
    LoadSpec,
    RegisterLoad,
    SeriesTable,
)
from headrace.core.clock import NS
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Kind, Layout, numpy_dtype
from headrace.core.quality import Quality

Array = npt.NDArray[Any]
RATE_HZ = 12_000
FRAMES_A_SECOND, CHANGES_A_FRAME = 100, 3
_SHARES = ((Quality.BAD, 0.01), (Quality.UNCERTAIN, 0.01), (Quality.ABSENT, 0.005))


def make_load(spec: LoadSpec, folder: Path = SERIES_FOLDER) -> DeviceLoad:
    """The load of a spec's shape."""
    kinds: dict[str, Any] = {
        "dense": RegisterLoad, "mixed": MixedLoad, "sparse": SparseLoad, "wave": WaveLoad,
    }  # fmt: skip
    load: DeviceLoad = kinds[spec.shape](spec, folder)
    return load


@dataclass(frozen=True)
class Emitted:
    """Frames as an adapter emits them, but for their slots."""

    frames: FrameBatch

    def batch(self, slots: npt.NDArray[np.uint32], arrival_ns: int) -> FrameBatch:
        """The frames of the groups with these slots; `frames.slot` counts the active groups."""
        return self.frames.with_(slot=slots[self.frames.slot], arrival_ns=arrival_ns)


class MixedLoad:
    """Dense frames with a quality for each value: of 100 one is bad, one uncertain, and of 200 one absent."""

    def __init__(self, spec: LoadSpec, folder: Path) -> None:
        self.spec = spec
        self._n_groups = len(spec.active_groups())
        self._table = SeriesTable(spec, self._n_groups * spec.group, folder)
        self.source = self._table.source
        self.layout = _layout(spec)

    def _quality(self, number: int) -> Array:
        drawn = np.random.Generator(np.random.PCG64([self.spec.seed, number])).random(len(self._table.place))
        quality = np.zeros(len(drawn), np.uint8)
        least = 0.0
        for code, share in _SHARES:
            quality[(drawn >= least) & (drawn < least + share)] = code
            least += share
        return quality.reshape(-1, self.spec.group)

    def _order(self, number: int) -> npt.NDArray[np.intp]:
        if self.spec.order == "poll":
            return np.arange(self._n_groups)
        return np.random.Generator(np.random.PCG64([self.spec.seed, 1, number])).permutation(self._n_groups)

    def input(self, number: int, start_ns: int) -> Emitted:
        """A frame of each group."""
        order = self._order(number)
        ts_ns = np.full(self._n_groups, start_ns + number * NS)
        values = self._table.at(number).reshape(-1, self.spec.group)[order]
        slot = order.astype(np.uint32)
        return Emitted(FrameBatch.dense(slot, ts_ns, values, self._quality(number)[order], origin="bench"))

    def flat(self, number: int, start_ns: int) -> FlatRows:
        """The good and uncertain values."""
        sensor = np.flatnonzero(self._quality(number).reshape(-1) < Quality.BAD).astype(np.uint32)
        return sensor, np.full(len(sensor), start_ns + number * NS), self._table.at(number)[sensor]

    def n_samples(self, number: int) -> int:
        """All that are not absent."""
        return int(np.count_nonzero(self._quality(number) != Quality.ABSENT))

    def stored_of(self, place: int, n_rounds: int) -> tuple[Array, Array | None]:
        """A group's values and qualities, a row a second; what is absent has no value."""
        mine = self._table.place[place * self.spec.group :][: self.spec.group]
        values = np.stack([self._table.values[mine + i] for i in range(n_rounds)])
        quality = np.stack([self._quality(i)[place] for i in range(n_rounds)])
        return values, quality


class SparseLoad:
    """Report by exception: a frame has the few columns of a wide group that changed."""

    def __init__(self, spec: LoadSpec, folder: Path) -> None:
        self.spec = spec
        self._n_groups = len(spec.active_groups())
        self._table = SeriesTable(spec, self._n_groups, folder)
        self.source = self._table.source
        self.layout = _layout(spec)
        self._n_changes = min(CHANGES_A_FRAME, spec.group)

    def _frames(self, number: int, start_ns: int) -> FrameBatch:
        random = np.random.Generator(np.random.PCG64([self.spec.seed, number]))
        n, width = self._n_groups * FRAMES_A_SECOND, self.spec.group
        # Different columns of each frame: one somewhere in each part of the group.
        parts = np.arange(self._n_changes) * width // self._n_changes
        sizes = np.diff(np.append(parts, width))
        column = (parts + (random.random((n, self._n_changes)) * sizes).astype(np.int64)).astype(np.uint16)
        instant, group = np.divmod(np.arange(n), self._n_groups)
        if self.spec.order != "poll":
            group = group[np.argsort(instant + random.random(n))]
        place = self._table.place[group][:, None] + number + column % 64
        ts_ns = start_ns + number * NS + instant * (NS // FRAMES_A_SECOND)
        start = np.arange(n + 1) * self._n_changes
        values = self._table.values[place].reshape(-1)
        return FrameBatch.sparse(
            group.astype(np.uint32), ts_ns, values, start, column.reshape(-1), origin="bench"
        )

    def input(self, number: int, start_ns: int) -> Emitted:
        """A hundred messages of each group."""
        return Emitted(self._frames(number, start_ns))

    def flat(self, number: int, start_ns: int) -> FlatRows:
        """Every change."""
        frames = self._frames(number, start_ns)
        assert frames.column is not None
        sensor = np.repeat(frames.slot, self._n_changes) * np.uint32(self.spec.group) + frames.column
        return sensor.astype(np.uint32), frames.value_times(), frames.values

    def n_samples(self, number: int) -> int:
        """Every change."""
        return self._n_groups * FRAMES_A_SECOND * self._n_changes

    def stored_of(self, place: int, n_rounds: int) -> tuple[Array, Array | None]:
        """A group's values on the times at which any changed; the others are absent."""
        rows, quality = [], []
        for number in range(n_rounds):
            frames = self._frames(number, 0)
            mine = frames.take(np.flatnonzero(frames.slot == place))
            assert mine.column is not None
            at = np.repeat(np.arange(mine.n_frames), self._n_changes), mine.column
            wide = np.zeros((mine.n_frames, self.spec.group), numpy_dtype(self.spec.dtype))
            there = np.full(wide.shape, Quality.ABSENT, np.uint8)
            wide[at], there[at] = mine.values, Quality.GOOD
            rows.append(wide)
            quality.append(there)
        return np.concatenate(rows), np.concatenate(quality)


class WaveLoad:
    """Waveforms: a second of each sensor in one frame."""

    def __init__(self, spec: LoadSpec, folder: Path) -> None:
        self.spec = spec
        self._n_groups = len(spec.active_groups())
        self._table = SeriesTable(spec, self._n_groups, folder)
        self.source = self._table.source
        self.layout = Layout(spec.dtype, (Column("", Kind.WAVEFORM),))

    def _values(self, number: int) -> Array:
        length = len(self._table.values)
        place = (self._table.place[:, None] + number * RATE_HZ + np.arange(RATE_HZ)) % length
        out: Array = self._table.values[place]
        return out

    def input(self, number: int, start_ns: int) -> Emitted:
        """A frame of each sensor."""
        n = self._n_groups
        rate = np.full(n, RATE_HZ), np.ones(n, np.int64)
        start = np.arange(n + 1) * RATE_HZ
        slot, ts_ns = np.arange(n, dtype=np.uint32), np.full(n, start_ns + number * NS)
        return Emitted(
            FrameBatch.wave(slot, ts_ns, self._values(number).reshape(-1), start, rate, origin="bench")
        )

    def flat(self, number: int, start_ns: int) -> FlatRows:
        """Every value with its own time."""
        sensor = np.repeat(np.arange(self._n_groups, dtype=np.uint32), RATE_HZ)
        step_ns = np.arange(RATE_HZ) * NS // RATE_HZ
        return (
            sensor,
            np.tile(start_ns + number * NS + step_ns, self._n_groups),
            self._values(number).reshape(-1),
        )

    def n_samples(self, number: int) -> int:
        """All values."""
        return self._n_groups * RATE_HZ

    def stored_of(self, place: int, n_rounds: int) -> tuple[Array, Array | None]:
        """A sensor's values, one a row."""
        return np.concatenate([self._values(i)[place] for i in range(n_rounds)]).reshape(-1, 1), None


def _layout(spec: LoadSpec) -> Layout:
    names = [f"signal{i}" for i in range(spec.group)] if spec.group > 1 else [""]
    return Layout(spec.dtype, tuple(Column(name, unit="degC") for name in names))
