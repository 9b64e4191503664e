"""Fault points: by name, by count, by seed; and a real process that is killed in the middle of a write."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.core.clock import VirtualClock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError
from headrace.core.faults import POINTS, FaultPoints
from headrace.ingest.journal import Journal
from headrace.ingest.journal_reader import read_records
from headrace.sim.faults import CountedFaults, Crashed, SeededFaults, fault_points

WRITER = """
import os, sys
from headrace.core.clock import SystemClock
from headrace.core.disk import LocalDisk
from headrace.ingest.journal import Journal
from headrace.ingest.journal_format import RecordKind
from headrace.sim.faults import fault_points

journal = Journal.open(
    LocalDisk(sys.argv[1]), SystemClock(), nonce=1, faults=fault_points(os.environ.get("HEADRACE_FAULT"))
)
for i in range(100):
    journal.append(RecordKind.CONFIG, [str(i).encode() * 40])
    print(journal.sync(), flush=True)
"""


def test_nothing_happens_without_faults() -> None:
    for spec in (None, ""):
        faults = fault_points(spec)
        assert type(faults) is FaultPoints
        for point in POINTS:
            faults.reach(point)
            assert not faults.watches(point)


def test_a_counted_fault_acts_at_its_pass_only() -> None:
    acted: list[str] = []
    faults = CountedFaults({"journal.sync": 3}, acted.append)
    for _ in range(5):
        faults.reach("journal.sync")
        faults.reach("journal.write")
    assert acted == ["journal.sync"]
    assert faults.passes == {"journal.sync": 5, "journal.write": 5}
    assert faults.watches("journal.sync")
    assert not faults.watches("journal.write")


def test_a_seeded_fault_crashes_at_the_same_pass_each_time() -> None:
    def passes(seed: int) -> int:
        faults = SeededFaults(seed, 50)
        assert faults.watches("disk.put")
        for n in range(1, 51):
            try:
                faults.reach("disk.put")
            except Crashed:
                return n
        raise AssertionError("no crash in 50 passes")

    assert [passes(s) for s in range(20)] == [passes(s) for s in range(20)]
    assert len({passes(s) for s in range(20)}) > 5


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("journal.sync", "not of the form point:n"),
        ("journal.sync:0", "not of the form"),
        ("journal.sync:x", "not of the form"),
        ("journal.sink:3", "unknown fault point 'journal.sink'; did you mean 'journal.sync'"),
    ],
)
def test_a_misspelt_fault_is_refused(spec: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        fault_points(spec)


@pytest.mark.parametrize("point", ["journal.write", "journal.sync"])
def test_a_process_killed_in_the_middle_of_a_write_loses_nothing_it_confirmed(
    point: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env={"HEADRACE_FAULT": f"segment.write:99, {point}:7", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    confirmed = [int(line) for line in done.stdout.split()]
    assert confirmed == list(range(1, 6))  # the first pass is the object's header
    disk = LocalDisk(tmp_path)
    journal = Journal.open(disk, VirtualClock(), nonce=2)
    assert (journal.recovery.n_cut_bytes > 0) == (point == "journal.write")
    records = list(read_records(disk, 0))
    assert [bytes(r.payload) for r in records][:5] == [str(i).encode() * 40 for i in range(5)]
    assert len(records) == (5 if point == "journal.write" else 6)
    journal.close()
