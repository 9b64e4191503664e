"""``headrace bench restart``: how soon a killed engine accepts again, and when it has caught up.

A process fills a store through the path that a plant runs, some minutes of it, and is killed with SIGKILL while it
holds unflushed data. Another process opens the store and says when the directory was loaded, when it was
accepting (journal sealed, shards' heads loaded: a new frame is durable and acknowledged), and when the journal
was replayed. It then compares values with what was sent.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.bench.directory import define, layout_of, paths
from headrace.bench.machine import Machine
from headrace.bench.throughput import CHAIN, START_NS, Progress
from headrace.core.clock import NS, VirtualClock, cpu_ns, monotonic_ns
from headrace.core.disk import LocalDisk
from headrace.core.errors import HeadraceError
from headrace.core.frames import FrameBatch
from headrace.ingest.journal import JournalSettings
from headrace.metrics.process import resident_bytes
from headrace.runtime.host import HostSettings
from headrace.runtime.pipe import Pipe
from headrace.runtime.warm import warm_kernels
from headrace.store.directories import load_directory

Array = npt.NDArray[Any]
_WAIT_S = 900.0
_JOURNAL_BYTES = 64 << 30


def run(
    sensors: int = 10_000_000,
    group: int = 50,
    seconds: int = 150,
    pipeline: bool = True,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Measure; a JSON-ready object.

    Parameters
    ----------
    group : sensors of a device; 1 for lone sensors. seconds : how long the plant ran, at 1 Hz.
    pipeline : whether 1-minute windows are computed, which is state to restore.

    Raises
    ------
    HeadraceError : the settings make no sense, the filling process failed, or values do not read back.
    """
    if sensors < group or sensors % group:
        raise HeadraceError(f"--sensors must be a multiple of --group {group}, got {sensors:,}")
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    settings = {"sensors": sensors, "group": group, "seconds": seconds, "pipeline": pipeline}
    try:
        progress(f"filling: {sensors:,} sensors in groups of {group}, {seconds} s")
        filled = _child("fill", folder, settings, kill=True)
        progress("killed; opening it again")
        machine = Machine()
        found = _child("open", folder, settings, kill=False)
        others = machine.cores_used_by_others()
        found |= {"cores_used_by_others": round(others, 3), "wall_valid": others <= 0.15}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**settings, "filled": filled, **found, "cpus": len(os.sched_getaffinity(0))}


def _child(role: str, folder: Path, settings: dict[str, Any], *, kill: bool) -> dict[str, Any]:
    """Run a part in a process of its own; its last line is what it found."""
    command = [sys.executable, "-m", "headrace.bench.restart", role, str(folder), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if kill:
            process.send_signal(signal.SIGKILL)
    if not line:
        raise HeadraceError(f"the process that was to {role} the store ended with code {process.returncode}")
    found: dict[str, Any] = json.loads(line)
    return found


class Devices:
    """Groups of one layout, and what they send in each second."""

    def __init__(self, sensors: int, group: int) -> None:
        self.n_groups, self.group = sensors // group, group
        random = np.random.Generator(np.random.PCG64(5))
        self._base = random.integers(0, 5_000, (self.n_groups, group)).astype(np.uint16)

    def values(self, second: int) -> Array:
        """What all groups send: uint16[groups, group]."""
        found: Array = self._base + np.uint16(second * 7 % 1_000)
        return found


def _open(folder: Path, settings: dict[str, Any], clock: VirtualClock, nonce: int) -> Pipe:
    host = HostSettings(nonce, journal=JournalSettings(limit_bytes=_JOURNAL_BYTES))
    return Pipe(folder / "store", [CHAIN] if settings["pipeline"] else [], clock, host)


def _fill(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Let the plant run; what its turns did not flush is in the journal only."""
    warm_kernels(("u16",))
    devices = Devices(settings["sensors"], settings["group"])
    clock = VirtualClock(START_NS)
    pipe = _open(folder, settings, clock, 1)
    begun_ns = monotonic_ns()
    slots = define(pipe.directory, devices.n_groups, layout_of(devices.group))
    defined_s = (monotonic_ns() - begun_ns) / NS
    for second in range(settings["seconds"]):
        _send(pipe, devices, slots, second)
        clock.advance(1.0)
        pipe.tick()
    pipe.wait_acknowledged()
    journal = pipe.host.journal
    return {
        "define_s": round(defined_s, 2),
        "journal_bytes": journal.size_bytes,
        "commits": pipe.host.engine.committer.counters.n_commits,
        "rss_bytes": resident_bytes(),
    }


def _send(pipe: Pipe, devices: Devices, slots: npt.NDArray[np.uint32], second: int) -> list[int]:
    """One round; the list has an entry once it is acknowledged."""
    acked: list[int] = []
    ts_ns = np.full(len(slots), START_NS + second * NS)
    batch = FrameBatch.dense(
        slots, ts_ns, devices.values(second), arrival_ns=pipe.clock.now_ns(), origin="bench"
    )
    pipe.offer(batch, lambda: acked.append(second))
    return acked


def _reopen(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Open what the killed process left; see the module's text."""
    begun_ns, begun_cpu = monotonic_ns(), cpu_ns()
    known = load_directory(LocalDisk(folder / "store"))
    directory_s, directory_cpu_s = (monotonic_ns() - begun_ns) / NS, (cpu_ns() - begun_cpu) / NS
    n_sensors = known.n_sensors
    del known
    warm_kernels(("u16",))
    clock = VirtualClock(START_NS + settings["seconds"] * NS)
    devices = Devices(settings["sensors"], settings["group"])
    begun_ns, begun_cpu = monotonic_ns(), cpu_ns()
    pipe = _open(folder, settings, clock, 2)
    opened_s, opened_cpu_s = (monotonic_ns() - begun_ns) / NS, (cpu_ns() - begun_cpu) / NS
    slots = define(pipe.directory, min(1_000, devices.n_groups), layout_of(devices.group))
    acked = _send_few(pipe, devices, slots, settings["seconds"])
    accepting_s = (monotonic_ns() - begun_ns) / NS
    replay = pipe.host.recovered.replay
    was_done = replay.is_done
    pipe.host.engine.wait_processed(pipe.host.delivered_seq, _WAIT_S)
    _compare(pipe, devices, settings["seconds"])
    found = {
        "directory_s": round(directory_s, 2), "directory_cpu_s": round(directory_cpu_s, 2), "known_sensors": n_sensors,
        "opened_s": round(opened_s, 2), "opened_cpu_s": round(opened_cpu_s, 2), "accepting_s": round(accepting_s, 2),
        "acked_before_caught_up": bool(acked) and not was_done, "caught_up_s": round(replay.caught_up_s or 0.0, 2),
        "replayed_records": replay.n_done, "rss_bytes": resident_bytes(), "cpu_s": round(cpu_ns() / NS, 1),
    }  # fmt: skip
    pipe.close()
    return found


def _send_few(pipe: Pipe, devices: Devices, slots: npt.NDArray[np.uint32], second: int) -> list[int]:
    """Send frames of some groups and wait until they are acknowledged."""
    acked: list[int] = []
    ts_ns = np.full(len(slots), START_NS + second * NS)
    values = devices.values(second)[: len(slots)]
    batch = FrameBatch.dense(slots, ts_ns, values, arrival_ns=pipe.clock.now_ns(), origin="bench")
    pipe.offer(batch, lambda: acked.append(second))
    pipe.wait_acknowledged()
    return acked


def _compare(pipe: Pipe, devices: Devices, seconds: int) -> None:
    """Some sensors' samples, each second once, value by value."""
    some = np.random.Generator(np.random.PCG64(9)).integers(0, devices.n_groups, 5).tolist()
    for group in some:
        slot = pipe.directory.slot(*paths(group, group + 1))
        path = pipe.directory.sensor_path(slot, 0)
        found = pipe.store.query(path, START_NS, START_NS + seconds * NS, tail=pipe.host.tail)
        want = [float(devices.values(s)[group, 0]) for s in range(seconds)]
        if found.columns["value"].tolist() != want:
            raise HeadraceError(
                f"{path} has {len(found):,} samples after the restart that differ from what was sent"
            )


if __name__ == "__main__":
    _role, _folder, _settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    print(json.dumps((_fill if _role == "fill" else _reopen)(_folder, _settings)), flush=True)
    if _role == "fill":
        signal.pause()
