"""Reports: everything that a fleet sends in a span of time, as batches of columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.clock import NS
from headrace.sim.device_types import DeviceType, FleetPart
from headrace.sim.machines import Machines
from headrace.sim.noise import U64, below, salted, uniform
from headrace.sim.profiles import Behaviour, Rest
from headrace.sim.schedules import SLOT_NS, Span, Ticks, Timing, events, left_dead_band, ticks
from headrace.sim.signals import waveform
from headrace.sim.truth import Fault

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

_BATCH_SAMPLES = 262_144
BATCH_FRAMES = 16_384
_SLICE_MAX_S = 3_600
# Numbers of a device's independent random streams; `machines` has those below 20.
_PHASE, _HEARTBEAT, _LOSS, _SURGE, _SOURCE = range(21, 26)


@dataclass(frozen=True, slots=True)
class Surge:
    """For a span of time a share of the periodic devices reports `factor` times as often."""

    span: Span
    factor: int
    share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DenseFrames:
    """Frames that have all columns of one part of one device type.

    ``device: int64[F]``, ``ts_ns: int64[F]``, ``values: T[F, D]`` raw; in order of (device, time).
    """

    type: DeviceType
    part: FleetPart
    device: I64
    ts_ns: I64
    values: Array


@dataclass(frozen=True, slots=True, eq=False)
class SparseFrames:
    """Single values: ``device, column, ts_ns: int64[N]``, ``values: T[N]``; in order of (device, time, column)."""

    type: DeviceType
    part: FleetPart
    device: I64
    column: I64
    ts_ns: I64
    values: Array

    def within(self, span: Span) -> SparseFrames:
        """The values whose time lies in `span`."""
        at = span.holds(self.ts_ns)
        return SparseFrames(
            self.type, self.part, self.device[at], self.column[at], self.ts_ns[at], self.values[at]
        )


@dataclass(frozen=True, slots=True, eq=False)
class WaveFrames:
    """Waveforms: ``device: int64[W]``, ``ts_ns: int64[W]`` of the first value, ``values: int16[W, n]``.

    `rate_num` / `rate_den` values a second.
    """

    type: DeviceType
    part: FleetPart
    device: I64
    ts_ns: I64
    values: Array
    rate_num: int
    rate_den: int


Frames = DenseFrames | SparseFrames | WaveFrames


@dataclass(frozen=True, slots=True, eq=False)
class Reporter:
    """The sending side of a fleet.

    Parameters
    ----------
    period_ns : reporting period of periodic devices where it is not their profiles' own.
    """

    machines: Machines
    types: tuple[DeviceType, ...]
    period_ns: int | None
    surges: tuple[Surge, ...]

    def period(self, kind: DeviceType) -> int:
        """Reporting, scanning or burst period of a type's devices in ns."""
        if self.period_ns is None or kind.profile.behaviour is not Behaviour.PERIODIC:
            return kind.profile.period_ns
        return self.period_ns

    def phase_ns(self, key: U64, period_ns: I64 | int) -> I64:
        """When in its period each device reports: int64[n]."""
        out: I64 = (uniform(salted(key, _PHASE)) * period_ns).astype(np.int64)
        return out

    def frames(self, t0_ns: int, t1_ns: int, slice_ns: int | None = None) -> Iterator[Frames]:
        """Everything that the factory reports in ``t0 <= t < t1``, as batches of columns.

        Time goes on slice by slice; within a slice come the device types in turn, and in each the devices in
        order. A device's reports are in order of time.

        Parameters
        ----------
        slice_ns : length of a slice, at absolute multiples of it; by default as long as a batch of a quarter
            of a million samples needs, 1 s to 1 h.
        """
        step = slice_ns or self._slice_ns()
        held: dict[int, list[SparseFrames]] = {}
        held_to: dict[int, int] = {}
        first = t0_ns
        while first < t1_ns:
            span = Span(first, min(t1_ns, (first // step + 1) * step))
            for number, kind in enumerate(self.types):
                behaviour = kind.profile.behaviour
                if behaviour is Behaviour.EXCEPTION:
                    # A device's scans are gone through from heartbeat to heartbeat: several slices at once.
                    if held_to.get(number, t0_ns) <= first:
                        whole = step * max(1, kind.profile.heartbeat * kind.profile.period_ns // step)
                        held_to[number] = min(t1_ns, (first // whole + 1) * whole)
                        held[number] = list(self._exceptions(kind, Span(first, held_to[number])))
                    parts = (sparse.within(span) for sparse in held[number])
                    yield from (sparse for sparse in parts if len(sparse.device))
                elif behaviour is Behaviour.EVENT:
                    yield from self._events(kind, span)
                else:
                    yield from self._periodic(kind, span)
            first = span.t1_ns

    def _slice_ns(self) -> int:
        per_s = sum(t.size * t.n_devices * NS / self.period(t) for t in self.types)
        return NS * int(min(max(_BATCH_SAMPLES // max(per_s, 1.0), 1), _SLICE_MAX_S))

    def _chunks(self, kind: DeviceType, n_frames_each: float, width: int) -> Iterator[tuple[I64, U64]]:
        """A type's devices and keys in pieces whose frames make one batch."""
        frames = min(BATCH_FRAMES, max(1, _BATCH_SAMPLES // width))
        step = max(1, int(frames / max(n_frames_each, 1.0)))
        for first in range(0, kind.n_devices, step):
            device = kind.devices(first, min(first + step, kind.n_devices))
            yield device, self.machines.keys(device)

    def _periodic(self, kind: DeviceType, span: Span) -> Iterator[Frames]:
        n_each = (span.t1_ns - span.t0_ns) / self.period(kind)
        wave = kind.profile.behaviour is Behaviour.BURST
        for device, key in self._chunks(kind, n_each, kind.profile.n_values if wave else kind.size):
            t = self._ticks(kind, device, key, span)
            if not len(t.row):
                continue
            at, at_key = device[t.row], key[t.row]
            if wave:
                yield from self._waves(kind, at, at_key, t.ts_ns)
                continue
            for a, b in pieces(len(at)):
                one, ts_ns = at[a:b], t.ts_ns[a:b]
                drivers = self.machines.drivers(kind, one, at_key[a:b], ts_ns)
                for part in kind.parts:
                    values = self.machines.evaluate(kind, part, one, ts_ns, drivers)
                    yield DenseFrames(kind, part, one, ts_ns, values)

    def _ticks(self, kind: DeviceType, device: I64, key: U64, span: Span) -> Ticks:
        """When periodic devices report: ticks, faster in surges, without the lost, sleeping and silent."""
        whole = (
            self._surging(kind, device, key, span)
            if self.surges
            else ticks(span, self._timing(kind, device, key))
        )
        keep = self._reported(kind, device[whole.row], key[whole.row], whole)
        return whole if keep is None else whole.keep(keep)

    def _timing(self, kind: DeviceType, device: I64, key: U64, factor: int = 1) -> Timing:
        period = self.period(kind) // factor
        jitter = min(kind.profile.jitter_ns, period * 2 // 5)
        phase = self.phase_ns(key, self.period(kind))
        faults = self.machines.faults
        ill = np.flatnonzero(faults.kind == Fault.JITTER)
        row = np.minimum(np.searchsorted(device, faults.device[ill]), len(device) - 1)
        mine = device[row] == faults.device[ill]
        if not mine.any():
            return Timing(phase, period, key, jitter)
        ill, row = ill[mine], row[mine]
        wild = (np.minimum(faults.size[ill], 0.45) * period).astype(np.int64)
        return Timing(phase, period, key, jitter, (row, faults.start_ns[ill], faults.end_ns[ill], wild))

    def _surging(self, kind: DeviceType, device: I64, key: U64, span: Span) -> Ticks:
        edges = [t for s in self.surges for t in (s.span.t0_ns, s.span.t1_ns)]
        found: list[Ticks] = []
        for piece in span.cut(edges):
            factor = np.ones(len(device), np.int64)
            for number, surge in enumerate(self.surges):
                if surge.span.t0_ns <= piece.t0_ns < surge.span.t1_ns:
                    factor[uniform(salted(key, _SURGE, number)) < surge.share] = surge.factor
            for one in np.unique(factor).tolist():
                rows = np.flatnonzero(factor == one)
                t = ticks(piece, self._timing(kind, device[rows], key[rows], one))
                found.append(Ticks(rows[t.row], t.tick, t.ts_ns))
        row, tick, ts_ns = (np.concatenate([getattr(t, n) for t in found]) for n in ("row", "tick", "ts_ns"))
        order = np.lexsort((ts_ns, row))
        return Ticks(row[order], tick[order], ts_ns[order])

    def _reported(self, kind: DeviceType, device: I64, key: U64, t: Ticks) -> Bools | None:
        """Which reports arrive: not lost on the way, the device neither asleep nor silent; None for all."""
        keep: Bools | None = None
        if kind.profile.loss:
            keep = uniform(salted(key, _LOSS, t.tick)) >= kind.profile.loss
        if kind.profile.rest is Rest.SLEEPS:
            awake = self.machines.awake(kind, device, key, t.ts_ns)
            keep = awake if keep is None else keep & awake
        if len(self.machines.faults):
            keep = np.ones(len(device), np.bool_) if keep is None else keep
            keep[self.machines.faults.rows(Fault.SILENT, device, t.ts_ns)[0]] = False
        return keep

    def _waves(self, kind: DeviceType, device: I64, key: U64, ts_ns: I64) -> Iterator[WaveFrames]:
        profile = kind.profile
        load = self.machines.drivers(kind, device, key, ts_ns).load
        for number, part in enumerate(kind.parts):
            values = waveform(salted(key, number), ts_ns, load, profile.n_values, profile.rate_hz)
            yield WaveFrames(kind, part, device, ts_ns, values, profile.rate_hz, 1)

    def _events(self, kind: DeviceType, span: Span) -> Iterator[SparseFrames]:
        part = kind.parts[0]
        width = part.layout.width
        n_codes = len(part.layout.columns[0].labels)
        for device, key in self._chunks(kind, width * (span.t1_ns - span.t0_ns) / SLOT_NS, 1):
            sources = salted(key[:, None], _SOURCE, np.arange(width)[None, :]).reshape(-1)
            row, ts_ns, number = events(span, sources, kind.profile.events_per_h)
            at = row // width
            line = device[at] // self.machines.devices_per_line
            keep = self.machines.line_state(line, ts_ns, kind.profile.tau_s).running
            keep[self.machines.faults.rows(Fault.SILENT, device[at], ts_ns)[0]] = False
            row, ts_ns, number, at = row[keep], ts_ns[keep], number[keep], at[keep]
            order = np.lexsort((row, ts_ns, at))
            values = (1 + below(number, n_codes - 1)).astype(np.uint16)
            if len(row):
                yield SparseFrames(
                    kind, part, device[at[order]], (row % width)[order], ts_ns[order], values[order]
                )

    def _exceptions(self, kind: DeviceType, span: Span) -> Iterator[SparseFrames]:
        """Scanned devices: what left its dead band, and everything at heartbeats."""
        profile = kind.profile
        n_scans = (span.t1_ns - span.t0_ns) / profile.period_ns + profile.heartbeat
        for device, key in self._chunks(kind, n_scans, kind.size):
            row, scan, ts_ns = self._scans(kind, self._timing(kind, device, key), span)
            flat = Ticks(np.repeat(row, profile.heartbeat), scan.reshape(-1), ts_ns.reshape(-1))
            at, at_key = device[flat.row], key[flat.row]
            drivers = self.machines.drivers(kind, at, at_key, flat.ts_ns)
            here = span.holds(flat.ts_ns)
            arrived = self._reported(kind, at, at_key, flat)
            if arrived is not None:
                here &= arrived
            for part in kind.parts:
                values = self.machines.evaluate(kind, part, at, flat.ts_ns, drivers)
                report = left_dead_band(values.reshape(*scan.shape, -1), kind.band(part))
                frame, column = np.nonzero(report.reshape(values.shape) & here[:, None])
                if len(frame):
                    yield SparseFrames(
                        kind, part, at[frame], column, flat.ts_ns[frame], values[frame, column]
                    )

    def _scans(self, kind: DeviceType, timing: Timing, span: Span) -> tuple[I64, I64, I64]:
        """Runs of scans from heartbeat to heartbeat that touch a span: row[R], tick[R, H], ts_ns[R, H]."""
        heartbeat = kind.profile.heartbeat
        length = timing.period_ns * heartbeat
        # One scan of margin on both sides, for the jitter.
        wide = Span(span.t0_ns - timing.period_ns, span.t1_ns + timing.period_ns)
        shift = below(salted(timing.key, _HEARTBEAT), heartbeat) * timing.period_ns + timing.phase_ns
        first = (wide.t0_ns - shift) // length
        n_runs = (wide.t1_ns - 1 - shift) // length - first + 1
        row = np.repeat(np.arange(len(first)), n_runs)
        run = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(n_runs) - n_runs, n_runs)
        begin = (shift - timing.phase_ns)[row] // timing.period_ns + run * heartbeat
        tick = begin[:, None] + np.arange(heartbeat)
        return row, tick, timing.at(row, tick)


def pieces(n: int) -> list[tuple[int, int]]:
    """Ranges that cut n frames into batches; at least one."""
    return [(a, min(a + BATCH_FRAMES, n)) for a in range(0, n, BATCH_FRAMES)] or [(0, 0)]
