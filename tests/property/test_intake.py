"""The whole intake in one thread: whatever ends the process, what was acknowledged is in the journal."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import StorageError
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import IntakeCore, IntakeSettings
from headrace.ingest.journal import Journal, JournalSettings
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.ingest.normalize import BadTime, TimePolicy
from headrace.ingest.rejects import decode_rejects
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.testing.strategies import YEAR_2000_NS, directory_and_batches

NOW = 2 * YEAR_2000_NS


class Life:
    """One process: takes batches until it ends; knows what it was told is durable."""

    def __init__(
        self, disk: SimulatedDisk, directory: SensorDirectory, policy: TimePolicy, nonce: int
    ) -> None:
        self.clock = VirtualClock(NOW)
        self.journal = Journal.open(
            disk, self.clock, nonce=nonce, settings=JournalSettings(object_bytes=3_000), faults=disk.faults
        )
        self.delivered: list[int] = []
        self.core = IntakeCore(
            directory,
            self.clock,
            self.journal,
            lambda seq, kind, what: self.delivered.append(seq),
            settings=IntakeSettings(
                record_values_max=20, limit_samples=10**6, policies={"ovens": policy, "broker": policy}
            ),
        )

    def settle(self) -> None:
        for ack in self.core.commit():
            ack()


def contents(disk: SimulatedDisk) -> tuple[SensorDirectory, list[FrameBatch], list[Reject]]:
    """What another process finds, knowing nothing but the journal."""
    directory, frames, rejects = SensorDirectory(), [], []
    for record in read_records(disk):
        if record.kind is RecordKind.DEFINE:
            record.define(directory)
        elif record.kind is RecordKind.FRAMES:
            frames.append(record.batch())
            assert record.shards.tolist() == np.unique(directory.shard[frames[-1].slot]).tolist()
        elif record.kind is RecordKind.REJECT:
            rejects += decode_rejects(record.payload)
    return directory, frames, rejects


def frame_keys(batches: list[FrameBatch]) -> Counter[tuple[int, bytes]]:
    """Slot and raw values of each frame."""
    return Counter(
        (int(b.slot[f]), b.slice(f, f + 1).values.tobytes()) for b in batches for f in range(b.n_frames)
    )


@settings(max_examples=80, deadline=None)
@given(
    directory_and_batches(n_batches_max=8),
    st.integers(0, 2**32),
    st.integers(8, 60),
    st.lists(st.integers(0, 3), max_size=12),
)
def test_what_is_acknowledged_survives_whatever_ends_the_process(
    plant: tuple[SensorDirectory, list[FrameBatch]], seed: int, n_passes_max: int, moves: list[int]
) -> None:
    directory, batches = plant
    disk = SimulatedDisk(seed)
    life = Life(disk, directory, TimePolicy(), 1)
    disk.faults = life.journal._faults = SeededFaults(seed, n_passes_max)
    acked: list[FrameBatch] = []
    n_rejects_acked = 0

    def note_reject() -> None:
        nonlocal n_rejects_acked
        n_rejects_acked += 1

    try:
        for i, batch in enumerate(batches):
            life.core.offer(batch, lambda b=batch: acked.append(b))  # type: ignore[misc]
            move = moves[i % len(moves)] if moves else 0
            if move == 1:
                life.core.offer_reject(Reject(RejectCode.MALFORMED, "broker", f"{i}", "?"), note_reject)
            elif move == 2:
                life.clock.advance(1)
                life.core.tick()
            elif move == 3:
                life.settle()
        life.settle()
    except Crashed:
        pass
    disk = disk.crash()
    Journal.open(disk, VirtualClock(), nonce=2)
    read, frames, rejects = contents(disk)
    assert read.paths == directory.paths[: read.n_slots]
    assert not frame_keys(acked) - frame_keys(frames)
    assert not frame_keys(frames) - frame_keys(batches)
    assert len(rejects) >= n_rejects_acked


@settings(max_examples=60, deadline=None)
@given(directory_and_batches(n_batches_max=8), st.sampled_from(BadTime), st.lists(st.booleans(), max_size=8))
def test_in_is_stored_and_rejected_and_groups_keep_their_order(
    plant: tuple[SensorDirectory, list[FrameBatch]], bad_time: BadTime, refusals: list[bool]
) -> None:
    directory, batches = plant
    disk = SimulatedDisk()
    life = Life(disk, directory, TimePolicy(bad_time=bad_time), 1)
    acked = 0

    def note() -> None:
        nonlocal acked
        acked += 1

    for i, batch in enumerate(batches):
        disk.is_read_only = refusals[i % len(refusals)] if refusals else False
        life.core.offer(batch.with_(arrival_ns=NOW + i * NS), note)
        try:
            life.settle()
        except StorageError:
            assert disk.is_read_only
    disk.is_read_only = False
    life.settle()
    life.settle()
    assert acked == len(batches)
    _, frames, rejects = contents(disk)
    counters = life.core.counters
    assert sum(counters.received.values()) == sum(b.n_samples for b in frames) + sum(
        r.n_samples for r in rejects
    )
    assert sum(counters.rejected.values()) == sum(r.n_samples for r in rejects)
    assert life.delivered == sorted(life.delivered)
    life.core.processed(life.journal.last_seq)
    life.core.settle()
    assert life.core.n_in_flight == 0
    if bad_time is BadTime.ARRIVAL:
        for slot in range(directory.n_slots):
            assert of_slot(frames, slot) == of_slot(batches, slot)


def of_slot(batches: list[FrameBatch], slot: int) -> list[bytes]:
    return [
        b.slice(f, f + 1).values.tobytes() for b in batches for f in range(b.n_frames) if b.slot[f] == slot
    ]
