"""What the journal promises, for any sequence of writes, crashes and faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.clock import VirtualClock
from headrace.core.errors import CorruptionError, Fenced, StorageError
from headrace.ingest.journal import Journal, JournalSettings
from headrace.ingest.journal_format import Record, RecordKind
from headrace.ingest.journal_reader import Damage, read_records
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.testing.strategies import JournalStep, journal_steps

SMALL = JournalSettings(object_bytes=1_500)


def open_journal(disk: SimulatedDisk, nonce: int) -> Journal:
    return Journal.open(disk, VirtualClock(), nonce=nonce, settings=SMALL, faults=disk.faults)


def content(records: Iterator[Record]) -> list[tuple[int, int, bytes]]:
    return [(r.seq, int(r.kind), bytes(r.payload)) for r in records if not r.is_repeated]


class Model:
    """A journal beside the plain list of what was written to it."""

    def __init__(self, seed: int) -> None:
        self.disk = SimulatedDisk(seed)
        self.nonce = 1
        self.journal = open_journal(self.disk, 1)
        self.written: dict[int, tuple[int, int, bytes]] = {}
        self.durable_seq = 0
        self.trimmed_seq = 0

    def append(self, argument: tuple[int, bytes]) -> None:
        kind, payload = argument
        try:
            seq = self.journal.append(RecordKind(kind), [payload[:7], payload[7:]])
        except StorageError:
            assert self.journal.refusal
            return
        assert seq not in self.written or seq > self.durable_seq
        self.written[seq] = (seq, kind, payload)

    def sync(self, _: None) -> None:
        before = self.durable_seq
        try:
            self.durable_seq = self.journal.sync()
        except StorageError as e:
            refusal = str(e)
        else:
            refusal = ""
            assert self.durable_seq == self.journal.last_seq
        assert refusal == self.journal.refusal
        self.durable_seq = self.journal.durable_seq
        assert self.durable_seq >= before

    def crash(self, seed: int) -> None:
        self.disk = self.disk.crash()
        self.take_over()

    def reopen(self, _: None) -> None:
        old = self.journal
        self.disk.capacity_bytes = 1 << 40
        self.take_over()
        if not old.refusal:
            old.append(RecordKind.CONFIG, [b"zombie"])
        with pytest.raises(Fenced):  # a first, forgotten owner is never confirmed
            old.sync()

    def take_over(self) -> None:
        self.disk.capacity_bytes = 1 << 40
        self.nonce += 1
        self.journal = open_journal(self.disk, self.nonce)
        last = self.journal.recovery.last_seq
        assert last >= self.durable_seq
        assert not self.journal.recovery.n_cut_bytes or self.journal.recovery.sentences
        self.written = {s: w for s, w in self.written.items() if s <= last}
        self.durable_seq = last

    def trim(self, fraction: float) -> None:
        seq = int(self.durable_seq * fraction)
        self.journal.trim(seq)
        self.trimmed_seq = max(seq, self.trimmed_seq)

    def full(self, n_bytes: int) -> None:
        self.disk.capacity_bytes = (1 << 40) - self.disk.free_bytes() + n_bytes

    def space(self, _: None) -> None:
        self.disk.capacity_bytes = 1 << 40

    def check(self) -> None:
        wanted = [w for s, w in sorted(self.written.items()) if self.trimmed_seq < s <= self.durable_seq]
        got = content(read_records(self.disk, self.trimmed_seq))
        assert got[: len(wanted)] == wanted
        # What is not confirmed yet may be there, but then it is what was written.
        rest = [w for s, w in sorted(self.written.items()) if s > self.durable_seq]
        assert got[len(wanted) :] == rest[: len(got) - len(wanted)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), journal_steps())
def test_what_is_durable_is_read_back_in_order_bit_by_bit_whatever_happens(
    seed: int, steps: list[JournalStep]
) -> None:
    model = Model(seed)
    for word, argument in steps:
        getattr(model, word)(argument)
        model.check()
    model.take_over()
    model.check()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 60))
def test_a_process_that_ends_at_any_write_loses_nothing_confirmed(seed: int, n_passes_max: int) -> None:
    disk = SimulatedDisk(seed, faults=SeededFaults(seed, n_passes_max))
    confirmed, written = 0, {}
    for life in range(3):
        try:
            journal = open_journal(disk, life + 1)
            assert journal.recovery.last_seq >= confirmed
            written = {s: w for s, w in written.items() if s <= journal.recovery.last_seq}
            for i in range(12):
                payload = f"{life} {i}".encode() * (20 * i)
                seq = journal.append(RecordKind.CONFIG, [payload])
                written[seq] = (seq, int(RecordKind.CONFIG), payload)
                if i % 3 == 2:
                    confirmed = journal.sync()
        except Crashed:
            disk = disk.crash()
            disk.faults = SeededFaults(seed + life, n_passes_max)
    disk = disk.crash()
    got = content(read_records(disk, 0))
    assert got[:confirmed] == [written[s] for s in range(1, confirmed + 1)]
    assert got == [written[s] for s in range(1, len(got) + 1)]


def some_journal(n_syncs: int) -> tuple[SimulatedDisk, list[tuple[int, int, bytes]]]:
    disk = SimulatedDisk()
    journal = open_journal(disk, 1)
    written: list[tuple[int, int, bytes]] = []
    for i in range(n_syncs):
        for kind, payload in (
            (RecordKind.CONFIG, bytes([i]) * 90),
            (RecordKind.TICK, bytes(8)),
            (RecordKind.FRAMES, b"ab" * 300),
        ):
            written.append((journal.append(kind, [payload]), int(kind), payload))
        journal.sync()
    return disk, written


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_rotten_bit_gives_an_error_or_fewer_records_never_a_wrong_one(n_syncs: int, data: Any) -> None:
    disk, written = some_journal(n_syncs)
    path = data.draw(st.sampled_from(disk.list("journal")))
    disk.flip_bit(path, data.draw(st.integers(0, disk.size(path) - 1)), data.draw(st.integers(0, 7)))

    got, error = [], path
    try:
        for record in read_records(disk, 0):
            got += content(iter([record]))
    except CorruptionError as e:
        error = str(e)
    assert path in error
    assert got == written[: len(got)]

    told: list[Damage] = []
    got = content(read_records(disk, 0, told.append))
    assert all(g in written for g in got)
    missing = {w[0] for w in written} - {g[0] for g in got}
    named = {s for d in told for s in range(d.first_seq, d.last_seq + 1)}
    # What nobody names is the unconfirmed end: at most the last write.
    assert missing - named <= {w[0] for w in written[-3:]}
    assert not named - missing


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.data())
def test_opening_a_rotten_journal_keeps_what_can_be_read_and_goes_on(n_syncs: int, data: Any) -> None:
    disk, _ = some_journal(n_syncs)
    path = data.draw(st.sampled_from(disk.list("journal")))
    disk.flip_bit(path, data.draw(st.integers(0, disk.size(path) - 1)))
    readable = content(read_records(disk, 0, lambda damage: None))
    journal = open_journal(disk, 2)
    seq = journal.append(RecordKind.CONFIG, [b"after"])
    assert journal.sync() == seq > max((r[0] for r in readable), default=0)
    told: list[Damage] = []
    got = content(read_records(disk, 0, told.append))
    assert got == [*readable, (seq, int(RecordKind.CONFIG), b"after")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["first", "second", "write", "sync"]), max_size=12))
def test_of_two_owners_only_the_last_is_confirmed(moves: list[str]) -> None:
    disk = SimulatedDisk()
    owners: list[Journal] = []
    confirmed: dict[int, bytes] = {}
    for i, move in enumerate(["first", *moves, "first", "write", "sync"]):
        if move in ("first", "second"):
            owners.append(open_journal(disk, i + 1))
            continue
        for n, owner in enumerate(owners):
            try:
                seq = owner.append(RecordKind.CONFIG, [f"{n} {i}".encode()])
                if move == "sync":
                    owner.sync()
                    assert owner is owners[-1]
                    confirmed[seq] = f"{n} {i}".encode()
            except Fenced:
                assert owner is not owners[-1]
    got = {seq: payload for seq, _, payload in content(read_records(disk, 0))}
    assert {seq: got[seq] for seq in confirmed} == confirmed
