"""A whole plant in this process: what it counts, how it ends, what it says when something fails."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.core.clock import NS, SystemClock, VirtualClock
from headrace.core.config import parse_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import Closed, Fenced, HeadraceError, StorageError
from headrace.core.frames import FrameBatch
from headrace.core.problems import InvalidConfig
from headrace.ingest.intake_core import IntakeSettings
from headrace.ingest.journal import DamagePolicy, Journal
from headrace.runtime.assemble import build_plant, check_plant, host_settings
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.reader import open_store
from headrace.store.flush import Flusher
from headrace.testing.plants import HandFed, hand_fed_plant

T0 = 1_767_225_600 * NS
PATHS = [f"plant/hall/line/d{i}" for i in range(12)]
WINDOWS = """
[store]
flush_interval = "4s"
[pipelines.minutes]
read = "**"
steps = [{ op = "window", every = "10s", agg = ["mean", "count"] }]
write = "{parent}/{signal}_{agg}_10s"
"""
FATES = ("stored", "duplicates", "rejected", "thinned")


async def until(what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.005)
    return found


async def settled(plant: Any) -> dict[str, int]:
    """The counts once nothing is on its way."""
    await plant.intake.drain()
    await until(lambda: plant.summary()["in_flight"] == 0)
    return dict(plant.summary())


def cut_off(folder: Path, copy: Path) -> None:
    """Copy a folder as it is at one moment: taken again while another thread changes it meanwhile."""

    def seen() -> dict[str, tuple[int, int]]:
        stats = ((str(p), p.stat(follow_symlinks=False)) for p in folder.rglob("*"))
        return {name: (s.st_size, s.st_mtime_ns) for name, s in stats}

    for _ in range(1_000):
        try:
            before = seen()
            shutil.copytree(folder, copy)
            if seen() == before:
                return
        except (shutil.Error, FileNotFoundError):
            pass  # a file went while it was looked at
        shutil.rmtree(copy, ignore_errors=True)
    raise AssertionError(f"{folder} does not keep still")


def adds_up(samples: dict[str, int]) -> bool:
    return samples["received"] == sum(samples[fate] for fate in FATES)


class Stream:
    """Seeded frames with late ones, repeats, corrections, bad times and rejects; knows what must be stored."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.newest: dict[tuple[int, int], tuple[float, float]] = {}
        self.sent: list[tuple[int, int, tuple[float, float]]] = []
        self.now = 0

    async def step(self, hand: HandFed, slots: Any, clock: VirtualClock) -> None:
        rng = self.rng
        self.now += 1
        rows = [(i, self.now, tuple(rng.normal(size=2))) for i in range(len(PATHS)) if rng.random() < 0.7]
        for _ in range(int(rng.integers(0, 4))):
            kind, device = rng.random(), int(rng.integers(len(PATHS)))
            if kind < 0.4 and self.sent:
                rows.append(
                    self.sent[int(rng.integers(len(self.sent)))]
                )  # again, or the version before the last
            elif kind < 0.7:
                rows.append((device, max(0, self.now - int(rng.integers(1, 30))), tuple(rng.normal(size=2))))
            elif kind < 0.85:
                await hand.reject(int(rng.integers(1, 5)))
            else:
                rows.append((device, 10**9, tuple(rng.normal(size=2))))  # far in the future
        order = rng.permutation(len(rows))
        for part in np.array_split(order, 2):
            chosen = [rows[i] for i in part]
            if chosen:
                ts = [T0 + t * NS // 2 for _, t, _ in chosen]
                await hand.emit(slots[[d for d, _, _ in chosen]], ts, [v for _, _, v in chosen])
                for device, t, values in chosen:
                    if t < 10**9:
                        self.newest[device, t] = values
                        self.sent.append((device, t, values))
        clock.advance(0.5)


def stored(folder: Path) -> dict[tuple[int, int], float]:
    """What a query finds of column a."""
    answer = open_store(folder / "store").query("plant/hall/line/*/a", from_="2025-12-01", to="2026-02-01")
    assert answer.missing == ()
    return {
        (PATHS.index(row["path"].rpartition("/")[0]), (row["ts"] - T0) * 2 // NS): row["value"]
        for row in answer.to_rows()
        if (row["ts"] - T0) % (NS // 2)
        == 0  # the others had no time that can be, and got that of their arrival
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_received_is_stored_duplicate_rejected_or_thinned_whatever_comes(tmp_path, seed):
    stream = Stream(seed)
    clock = VirtualClock(T0 + 1_234)
    folder = tmp_path / "0"
    for life in range(3):
        plant, hand = hand_fed_plant(folder, WINDOWS, clock=clock)
        await plant.start()
        slots = hand.define(PATHS)
        for _ in range(60):
            await stream.step(hand, slots, clock)
            if stream.now % 20 == 0:
                samples = await settled(plant)
                # What comes late may still turn out to be stored already when it is flushed.
                assert adds_up(samples), samples
        samples = await settled(plant)
        assert adds_up(samples), samples
        assert samples["duplicates"] > 0
        assert samples["rejected"] > 0
        if life == 1:  # the power goes: what is on the disk at this moment is all there is
            cut_off(folder, tmp_path / "1")
        await plant.stop()
        samples = plant.summary()
        assert adds_up(samples), samples
        assert hand.n_acked > 0
        folder = tmp_path / "1" if life == 1 else folder
        want = {key: values[0] for key, values in stream.newest.items()}
        assert stored(folder) == want


async def test_derived_series_do_not_count_as_duplicates(tmp_path):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=clock)
    await plant.start()
    slots = hand.define(PATHS[:1])
    for second in range(40):
        await hand.emit(slots, T0 + second * NS, [[1.0, 2.0]])
        await settled(plant)
        clock.advance(1.0)
    await until(lambda: plant.store.status().n_samples)
    # Late data that change nothing: their windows are computed again, to what they were.
    for second in range(0, 20, 3):
        await hand.emit(slots, T0 + second * NS + NS // 2, [[1.0, 2.0]])
        await hand.emit(slots, T0 + second * NS, [[1.0, 2.0]])
    await settled(plant)
    await plant.stop()
    samples = plant.summary()
    assert samples["derived"] > 0
    assert (samples["received"], samples["stored"], samples["duplicates"]) == (80 + 28, 80 + 14, 14)


async def test_rejects_alone_free_the_credit_they_take(tmp_path):
    plain = host_settings(parse_plant({"version": 1}, tmp_path))
    plant, hand = hand_fed_plant(
        tmp_path, settings=replace(plain, intake=IntakeSettings(limit_samples=500)), clock=VirtualClock(T0)
    )
    await plant.start()
    async with asyncio.timeout(30):
        for _ in range(5_000):
            await hand.reject(raw=b"x" * 100)
    samples = await settled(plant)
    assert samples["rejected"] == samples["received"] == hand.n_acked == 5_000
    await plant.stop()


async def test_every_acknowledged_batch_is_in_a_store_cut_off_at_any_moment(tmp_path):
    plant, hand = hand_fed_plant(tmp_path / "live", WINDOWS)
    await plant.start()
    slots = hand.define(PATHS)
    for i in range(30):
        await hand.emit(slots, T0 + i * NS, np.full((12, 2), float(i)))
        if i % 10 == 9:
            await until(lambda i=i: hand.n_acked == i + 1)
            cut_off(tmp_path / "live", tmp_path / f"cut{i}")
            assert len(stored(tmp_path / f"cut{i}")) == 12 * (i + 1)
    await plant.stop()


# --- failures --------------------------------------------------------------------------------------------


async def test_a_defect_of_a_runner_ends_the_plant_with_a_sentence_and_nothing_is_acknowledged_after(
    tmp_path,
):
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await plant.start()
    told = asyncio.Event()
    plant.on_failure(told.set)
    slots = hand.define(PATHS)
    await hand.emit(slots, T0, np.zeros((12, 2)))
    await settled(plant)
    assert hand.n_acked == 1

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in a kernel")

    for core in plant._host.engine.cores:
        core.process = broken
    await hand.emit(slots, T0 + NS, np.ones((12, 2)))
    await asyncio.wait_for(told.wait(), 20)
    n_acked = hand.n_acked
    assert plant.state == "failed"
    assert plant.failure == (
        "the engine stopped by a defect (ZeroDivisionError: in a kernel); what was acknowledged is in the journal"
    )
    assert plant.status()["failure"] == plant.failure
    with pytest.raises(ZeroDivisionError):
        await hand.emit(slots, T0 + 2 * NS, np.ones((12, 2)))
    assert not hand.sink.has_credit(1)
    begun = time.monotonic()
    await plant.stop()
    assert time.monotonic() - begun < 8
    assert plant.state == "failed"
    assert hand.n_acked == n_acked
    assert [e.kind for e in plant.events if e.kind == "plant.failed"] == ["plant.failed"]
    assert len(stored(tmp_path)) >= 12 * n_acked


async def test_a_new_owner_ends_the_plant(tmp_path):
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await plant.start()
    told = asyncio.Event()
    plant.on_failure(told.set)
    slots = hand.define(PATHS)
    Journal.open(LocalDisk(tmp_path / "store"), SystemClock(), nonce=99)
    await hand.emit(slots, T0, np.zeros((12, 2)))
    await asyncio.wait_for(told.wait(), 20)
    assert plant.failure.startswith("another process took over this store; this one stops: ")
    with pytest.raises(Fenced):
        await hand.emit(slots, T0, np.zeros((12, 2)))
    await plant.stop()
    assert hand.n_acked == 0


async def test_a_new_owner_of_the_commits_ends_the_plant(tmp_path):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=clock)
    await plant.start()
    told = asyncio.Event()
    plant.on_failure(told.set)
    folder = tmp_path / "store" / "commits" / "00000001"
    folder.mkdir(parents=True)
    (folder / "00000001.json").write_bytes(b'{"not": "ours"}')
    slots = hand.define(PATHS)
    await hand.emit(slots, T0, np.zeros((12, 2)))
    for _ in range(8):
        clock.advance(1.0)
        await asyncio.sleep(0.01)
    await asyncio.wait_for(told.wait(), 20)
    assert plant.state == "failed"
    assert "commits/00000001/00000001.json" in plant.failure
    await plant.stop()


async def test_a_store_that_refuses_at_the_end_is_told_and_the_journal_has_everything(tmp_path, monkeypatch):
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await plant.start()
    slots = hand.define(PATHS)
    await hand.emit(slots, T0, np.zeros((12, 2)))

    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("can't write /store: the disk is full; free some space")

    with monkeypatch.context() as patch:
        patch.setattr(Flusher, "flush", refuse)
        begun = time.monotonic()
        await plant.stop()
        assert time.monotonic() - begun < 8
    assert plant.state == "stopped"
    texts = [e.text for e in plant.events]
    assert (
        "not all was flushed, the journal has it: can't write /store: the disk is full; free some space"
        in texts
    )
    assert any(e.kind == "store.refused" for e in plant.events)
    assert len(stored(tmp_path)) == 12
    again, _ = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    await again.start()
    while again.status()["recovery"]["caught_up_s"] is None:
        await asyncio.sleep(0.01)
    assert again.status()["recovery"]["replayed_records"] == again.status()["recovery"]["records"] > 0
    await again.stop()
    assert again.store.status().n_samples == 24


async def test_a_store_that_refuses_for_a_while_is_told_once_and_written_when_it_takes_again(
    tmp_path, monkeypatch
):
    clock = VirtualClock(T0)
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=clock)
    await plant.start()
    slots = hand.define(PATHS)

    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("the disk is full")

    async def seconds(n: int) -> None:
        for _ in range(n):
            await hand.emit(slots, clock.now_ns(), np.zeros((12, 2)))
            await settled(plant)
            clock.advance(1.0)
            await asyncio.sleep(0.02)

    with monkeypatch.context() as patch:
        patch.setattr(Flusher, "flush", refuse)
        await seconds(12)
        assert plant.status()["store"]["problem"] == "the disk is full"
    await seconds(12)
    await until(lambda: "problem" not in plant.status()["store"])
    kinds = [e.kind for e in plant.events if e.kind.startswith("store.")]
    assert kinds == ["store.refused", "store.recovered"]
    await plant.stop()
    assert len(stored(tmp_path)) == 12 * 24


async def test_a_disk_short_of_space_slows_the_sources_until_there_is_some(tmp_path, monkeypatch):
    clock = VirtualClock(T0)
    plain = host_settings(parse_plant({"version": 1}, tmp_path))
    settings = replace(plain, intake=IntakeSettings(limit_samples=1_000), engine=EngineSettings(3_600 * NS))
    plant, hand = hand_fed_plant(tmp_path, settings=settings, clock=clock)
    await plant.start()
    slots = hand.define(PATHS)
    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "free_bytes", lambda disk: 1_000_000)
        await hand.emit(slots, T0, np.zeros((12, 2)))
        n = 1
        await until(lambda: plant.status()["journal"]["refusal"] and not plant.summary()["in_flight"])
        while hand.sink.has_credit(24):
            await hand.emit(slots, T0 + n * NS, np.zeros((12, 2)))
            n += 1
            await asyncio.sleep(0)
        assert n == 1 + 1_000 // 24
        assert plant.status()["journal"]["refusal"] == (
            f"less than {plant.journal.reserve_bytes:,} bytes are free on the disk, which the store needs; "
            "free some space"
        )
        waiting = asyncio.ensure_future(hand.emit(slots, T0 + n * NS, np.zeros((12, 2))))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    clock.advance(1.0)
    await asyncio.wait_for(waiting, 20)
    samples = await settled(plant)
    assert adds_up(samples)
    assert hand.n_acked == n + 1
    assert [e.kind for e in plant.events if "journal" in e.kind] == ["journal.refused", "journal.recovered"]
    await plant.stop()
    assert len(stored(tmp_path)) == 12 * (n + 1)


async def test_devices_may_appear_at_any_moment(tmp_path):
    """Groups are defined by one thread while others step, flush and save those that are known."""
    clock = VirtualClock(T0)
    plain = host_settings(parse_plant({"version": 1}, tmp_path))
    settings = replace(plain, engine=EngineSettings(NS, turns=1, buffer_bytes_max=20_000, snapshot_every=2))
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, settings=settings, clock=clock)
    await plant.start()
    paths: list[str] = []
    n = 0
    for second in range(60):
        paths += [f"plant/hall/line/new{len(paths) + k}" for k in range(7)]
        slots = hand.define(paths)
        await hand.emit(slots, T0 + second * NS, np.full((len(paths), 2), float(second)))
        n += 2 * len(paths)
        clock.advance(1.0)
        await asyncio.sleep(0.002)
    samples = await settled(plant)
    await plant.stop()
    assert plant.failure == ""
    assert samples["received"] == samples["stored"] == n
    answer = open_store(tmp_path / "store").query(
        "plant/hall/line/*/a", from_="2025-12-01", to="2026-02-01", agg="count"
    )
    assert sum(int(row["count"]) for row in answer.to_rows()) == n // 2


async def test_a_second_plant_is_refused_the_store(tmp_path):
    first, _ = hand_fed_plant(tmp_path)
    await first.start()
    second, _ = hand_fed_plant(tmp_path)
    with pytest.raises(StorageError, match="is in use by process"):
        await second.start()
    assert second.state == "failed"
    await second.stop()
    assert first.state == "running"
    await first.stop()
    third, _ = hand_fed_plant(tmp_path)
    await third.start()
    await third.stop()


async def test_an_adapter_that_does_not_stop_delays_nobody_for_ever(tmp_path):
    plant, hand = hand_fed_plant(tmp_path)
    await plant.start()

    async def hang() -> None:
        await asyncio.sleep(3600)

    hand.stop = hang
    begun = time.monotonic()
    await plant.stop(2.0)
    assert time.monotonic() - begun < 4
    assert plant.state == "stopped"
    assert any(e.kind == "adapter.stopped" for e in plant.events)


async def test_an_adapter_that_can_not_stop_is_told(tmp_path):
    plant, hand = hand_fed_plant(tmp_path)
    await plant.start()

    async def broken() -> None:
        raise OSError("socket")

    hand.stop = broken
    await plant.stop()
    assert "adapter hand did not stop cleanly: OSError('socket')" in [e.text for e in plant.events]


# --- life ------------------------------------------------------------------------------------------------


async def test_what_is_unflushed_can_be_read_until_the_very_end(tmp_path, monkeypatch):
    plant, hand = hand_fed_plant(tmp_path, clock=VirtualClock(T0))
    assert plant.tail(np.zeros(1, np.uint32)) == []
    await plant.start()
    slots = hand.define(PATHS)
    await hand.emit(slots, T0, np.zeros((12, 2)))
    await settled(plant)
    seen: list[int] = []

    async def stop() -> None:
        seen.append(sum(batch.n_frames for batch in plant.tail(slots)))

    hand.stop = stop
    await plant.stop()
    assert seen == [12]
    assert plant.tail(slots) == []


async def test_it_says_the_same_things_before_while_and_after(tmp_path):
    plant, hand = hand_fed_plant(tmp_path, WINDOWS, clock=VirtualClock(T0))
    before = json.loads(json.dumps(plant.status()))
    assert before["state"] == "stopped"
    assert plant.summary()["received"] == 0
    await plant.stop()
    await plant.start()
    slots = hand.define(PATHS)
    await hand.emit(slots, T0, np.zeros((12, 2)))
    await hand.reject()
    await settled(plant)
    status = json.loads(json.dumps(plant.status()))
    assert status["state"] == "running"
    assert status["samples"] == {
        "received": 25, "stored": 24, "duplicates": 0, "rejected": 1, "thinned": 0, "derived": 0, "in_flight": 0,
    }  # fmt: skip
    assert [a["name"] for a in status["adapters"]] == ["hand"]
    text = plant.metrics.expose()
    text = text.decode() if isinstance(text, bytes) else text
    assert 'headrace_samples_received_total{adapter="hand"} 25' in text
    assert 'headrace_samples_rejected_total{adapter="hand",code="malformed"} 1' in text
    await plant.stop()
    await plant.stop()
    after = plant.status()
    assert after["state"] == "stopped"
    assert plant.summary()["stored"] == 24
    assert plant.summary()["store"]["samples"] == 24


async def test_a_batch_that_fits_no_sensor_comes_back_to_its_adapter(tmp_path):
    plant, hand = hand_fed_plant(tmp_path)
    await plant.start()
    with pytest.raises(HeadraceError):
        await hand.hand_on(FrameBatch.dense(np.array([7], np.uint32), np.array([T0]), np.zeros((1, 2))))
    assert plant.state == "running"
    await plant.stop()
    with pytest.raises(Closed):
        await hand.reject()


# --- the plant file --------------------------------------------------------------------------------------


def test_every_problem_of_adapters_and_pipelines_is_found_at_once(tmp_path):
    config = parse_plant(
        {
            "version": 1,
            "adapters": {
                "a": {"protocol": "modbuss"},
                "b": {"protocol": "mqtt", "url": "mqtt://h", "topic": {}},
            },
            "pipelines": {"p": {"read": "**", "steps": [{"op": "windoww"}], "write": "{parent}/{signal}_x"}},
        },
        tmp_path,
    )
    with pytest.raises(InvalidConfig) as e:
        check_plant(config)
    text = str(e.value)
    for where in ("adapters.a.protocol", "adapters.b", "pipelines.p.steps[0]"):
        assert where in text
    with pytest.raises(InvalidConfig):
        build_plant(config)


def test_bounds_follow_the_plant_file(tmp_path):
    small = parse_plant(
        {"version": 1, "store": {"journal_size": "1MB", "flush_size": "8MB"}, "runtime": {"threads": 4}},
        tmp_path,
    )
    settings = host_settings(small, DamagePolicy.SKIP)
    assert settings.journal.limit_bytes == 1_000_000
    assert settings.journal.object_bytes == 65_536
    assert settings.intake.limit_samples == 31_250
    assert settings.engine.buffer_bytes_max == 2_000_000
    assert settings.threads == 4
    assert settings.damaged is DamagePolicy.SKIP
    plain = host_settings(parse_plant({"version": 1}, tmp_path))
    assert plain.journal.object_bytes == 64 << 20
    assert plain.intake.limit_samples == 8_000_000
    assert plain.damaged is DamagePolicy.STOP


async def test_a_part_of_the_disk_is_left_to_the_store(tmp_path):
    plant, _ = hand_fed_plant(tmp_path)
    await plant.start()
    assert 0 < plant.journal.reserve_bytes <= 64 << 20
    assert not plant.journal.is_short
    await plant.stop()
