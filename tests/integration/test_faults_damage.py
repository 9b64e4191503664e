"""Files of a store that were damaged: what can be repaired is, the rest is told with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.cli.exits import Exit
from headrace.core.clock import NS, VirtualClock
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.ingest.journal import JournalSettings
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.engine_core import EngineSettings
from headrace.runtime.host import HostSettings
from headrace.runtime.pipe import Pipe
from headrace.runtime.reader import open_store

T0 = 1_767_225_600 * NS
SECONDS = FlowSpec(
    "seconds", "**", ({"op": "window", "every": "1s", "agg": ["count"]},), "{parent}/{signal}_{agg}_1s"
)
PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "./store"
[api]
listen = "127.0.0.1:0"
"""
N_FLUSHED, N_BEHIND = 60, 20
SPAN = ("--from", "2025-12-31T00:00:00Z", "--to", "2027-01-01T00:00:00Z", "--json")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a kill leaves it: two segments with their commits, and a journal with frames behind them."""
    folder = tmp_path_factory.mktemp("history")
    clock = VirtualClock(T0)
    settings = HostSettings(
        nonce=1, engine=EngineSettings(3_600 * NS), journal=JournalSettings(object_bytes=3_000), threads=1
    )
    pipe = Pipe(folder / "live", [SECONDS], clock, settings)
    slots = pipe.directory.define_many(["plant/hall/d0", "plant/hall/d1"], Layout("f64", (Column("a"),)))
    n = 0

    def feed(count: int) -> None:
        nonlocal n
        for _ in range(count):
            ts_ns, values = np.full(2, T0 + n * NS // 2), np.full((2, 1), float(n))
            pipe.offer(FrameBatch.dense(slots, ts_ns, values, arrival_ns=int(ts_ns[0])))
            n += 1
            clock.advance(0.5)
            pipe.tick()
            pipe.host.journal.sync()  # one by one, so that each vouches for those before it

    for _ in range(2):
        feed(N_FLUSHED // 2)
        pipe.drain()
    feed(N_BEHIND)
    pipe.host.engine.wait_processed(pipe.host.delivered_seq, 20)
    shutil.copytree(folder / "live", folder / "store")
    pipe.close()
    return folder / "store"


@pytest.fixture
def store(headrace: Any, history: Path) -> Path:
    """A copy of `history` to damage, below a plant file."""
    shutil.copytree(history, headrace.store)
    (headrace.folder / "plant.toml").write_text(PLANT)
    return Path(headrace.store)


@pytest.fixture
def values(headrace: Any) -> Callable[[], tuple[list[float], list[str]]]:
    """What a query finds of a sensor, and what it says is missing."""

    def found() -> tuple[list[float], list[str]]:
        answer = open_store(headrace.store).query("plant/hall/d0/a", from_="2025-12-31", to="2027-01-01")
        return [row["value"] for row in answer.to_rows()], list(answer.missing)

    return found


ALL = [float(i) for i in range(N_FLUSHED + N_BEHIND)]


def flip(file: Path, byte: int) -> None:
    data = bytearray(file.read_bytes())
    data[byte] ^= 0x40
    file.write_bytes(data)


def records(file: Path) -> Iterator[tuple[int, int]]:
    """(start, end) of the records of a journal object."""
    from headrace.core.disk import LocalDisk
    from headrace.ingest.journal_format import Record
    from headrace.ingest.journal_reader import list_objects, scan

    disk = LocalDisk(file.parents[2])
    (one,) = [
        o for o in list_objects(disk) if o.n == int(file.stem) and o.incarnation == int(file.parent.name)
    ]
    for item in scan(memoryview(file.read_bytes()), one):
        assert isinstance(item, Record)
        yield item.start, item.end


def journal(store: Path) -> list[Path]:
    """The objects that hold records, in order."""
    return [p for p in sorted(store.glob("journal/*/*.hrj")) if p.stat().st_size > 500]


def go_on(store: Path, n: int = N_FLUSHED + N_BEHIND) -> list[float]:
    """Five more frames of each device, behind a record of the pipelines; all values that are then to be found."""
    pipe = Pipe(store, [], VirtualClock(T0 + 100 * NS), HostSettings(nonce=5))
    slots = pipe.directory.define_many(["plant/hall/d0", "plant/hall/d1"], Layout("f64", (Column("a"),)))
    for i in range(n, n + 5):
        times, rows = np.full(2, T0 + i * NS // 2), np.full((2, 1), float(i))
        pipe.offer(FrameBatch.dense(slots, times, rows, arrival_ns=T0))
    pipe.drain()
    pipe.close()
    return [float(i) for i in range(n + 5)]


def starts(headrace: Any, *arguments: str) -> None:
    headrace.start(*arguments)
    headrace.up()
    assert headrace.stop() == Exit.DONE


def test_the_history_has_what_these_tests_need(store, values):
    assert len(journal(store)) >= 2
    assert len(list(store.glob("commits/*[1-9]/*.json"))) == 2
    assert len(list(store.glob("segments/hot/**/*.parquet"))) == 2
    assert values() == (ALL, [])


# --- the journal -----------------------------------------------------------------------------------------


def cut_short(store: Path) -> int:
    last = journal(store)[-1]
    _, end = list(records(last))[-1]
    with last.open("r+b") as file:
        file.truncate(end - 5)
    return 1


def garbage_behind(store: Path) -> int:
    with journal(store)[-1].open("ab") as file:
        file.write(np.random.default_rng(1).bytes(777))
    return 0


def flipped_at_the_end(store: Path) -> int:
    last = journal(store)[-1]
    start, _ = list(records(last))[-1]
    flip(last, start + 30)
    return 1


@pytest.mark.parametrize("damage", [cut_short, garbage_behind, flipped_at_the_end])
def test_a_torn_tail_of_the_journal_is_cut_and_that_is_said(headrace, store, values, damage):
    n_lost = damage(store)
    last = journal(store)[-1]
    starts(headrace)
    cut = [line for line in headrace.said.splitlines() if ": cut " in line]
    assert len(cut) == 1
    assert f"{last.relative_to(store)}: cut " in cut[0]
    assert "a write that was never confirmed" in cut[0]
    found, missing = values()
    # The last record is a tick or a frame.
    assert found[: len(ALL) - n_lost] == ALL[: len(ALL) - n_lost]
    assert missing == []


def test_damage_inside_the_journal_refuses_the_start_and_says_how_to_go_on(headrace, store, values):
    last = journal(store)[-1]
    start, end = list(records(last))[3]
    flip(last, start + 30)
    before = {p: p.read_bytes() for p in store.rglob("*.hrj")}
    code, said = headrace.run()
    assert code == Exit.FAILED
    (sentence,) = [line for line in said.splitlines() if line.startswith("headrace: ")]
    name = str(last.relative_to(store))
    assert f"{name} is damaged at byte {start} ({end - start} bytes); records " in sentence
    assert "can't be read" in sentence
    assert "start with --skip-damaged to go on without them" in sentence
    assert all(p.read_bytes() == data for p, data in before.items())
    quarantined = store / "journal" / "quarantine" / name.removeprefix("journal/").replace("/", "-")
    assert quarantined.read_bytes() == last.read_bytes()
    # A query works all the same, and says what it can't have.
    found, missing = values()
    assert len(found) >= len(ALL) - 1
    assert any(name in sentence for sentence in missing)
    starts(headrace, "--skip-damaged")
    assert f"{name} is damaged at byte {start}" in headrace.said
    found, missing = values()
    assert len(found) >= len(ALL) - 1
    assert set(found) <= set(ALL)
    # From now on nothing is missing: what could be had is in segments.
    starts(headrace)
    assert values() == (found, [])


def test_a_journal_that_was_lost_behind_what_is_stored_does_not_swallow_what_comes(headrace, store, values):
    want = go_on(store)
    # All is in segments; the end of the journal goes, as a disk may lose it.
    for file in store.glob("journal/*/*.hrj"):
        found = list(records(file))
        if found:
            with file.open("r+b") as one:
                one.truncate(found[0][0])
    starts(headrace)
    assert "the journal ends 6 records before what the store has: they were cut or removed" in headrace.said
    assert values() == (want, [])
    want = go_on(store, len(want))
    assert values() == (want, [])


def test_a_journal_that_was_removed_refuses_the_start_and_says_how_to_go_on(headrace, store, values):
    shutil.rmtree(store / "journal")
    flushed = ALL[:N_FLUSHED]
    assert values()[0] == flushed
    code, said = headrace.run()
    assert code == Exit.FAILED
    assert "the store's journal is gone" in said
    assert "restore journal/ from a backup, or start with --skip-damaged to go on without what was" in said
    starts(headrace, "--skip-damaged")
    starts(headrace)
    assert values() == (flushed, [])
    want = go_on(store, N_FLUSHED)
    assert values() == (want, [])


# --- segments, commits, state ----------------------------------------------------------------------------


def test_a_damaged_segment_costs_its_own_samples_only_and_is_named(headrace, store, values, ask):
    first = sorted(store.glob("segments/hot/**/*.parquet"))[0]
    data = first.read_bytes()
    flip(first, len(data) // 3)
    found, missing = values()
    code, out, _ = ask("query", "plant/hall/d0/a", "-t", store, *SPAN)
    assert code == Exit.DONE
    assert [row["value"] for row in json.loads(out)["rows"]] == found
    assert json.loads(out)["missing"] == missing
    lost = sorted(set(ALL) - set(found))
    assert lost
    assert len(lost) <= N_FLUSHED // 2
    assert any(first.name in sentence for sentence in missing)
    starts(headrace)
    again, still = values()
    assert again == found
    assert any(first.name in sentence for sentence in still)
    first.write_bytes(data)
    assert values() == (ALL, [])


def test_a_segment_that_is_no_file_of_ours_is_named(store, values):
    first = sorted(store.glob("segments/hot/**/*.parquet"))[0]
    first.write_bytes(b"not parquet")
    found, missing = values()
    assert set(ALL) - set(found)
    assert any(first.name in sentence for sentence in missing)


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_commit_is_rebuilt_from_its_segment(headrace, store, values, which):
    commit = sorted(store.glob("commits/*[1-9]/*.json"))[which]
    flip(commit, 40)
    assert values() == (ALL, [])
    starts(headrace)
    assert values() == (ALL, [])


def test_a_commit_that_is_lost_with_its_segment_is_told_and_the_rest_is_there(headrace, store, values):
    """The newest commit says how far the shards are; without it the journal may not reach back far enough."""
    commit = sorted(store.glob("commits/*[1-9]/*.json"))[1]
    flip(commit, 40)
    segment = sorted(store.glob("segments/hot/**/*.parquet"))[1]
    segment.write_bytes(b"gone")
    code, said = headrace.run()
    assert code == Exit.FAILED
    (sentence,) = [line for line in said.splitlines() if line.startswith("headrace: ")]
    assert "the journal does not reach back to record" in sentence
    assert "restore the commits from a backup, or start with --skip-damaged to go on without" in sentence
    starts(headrace, "--skip-damaged")
    assert str(commit.relative_to(store)) in headrace.said
    found, _ = values()
    assert set(ALL[: N_FLUSHED // 2]) | set(ALL[N_FLUSHED:]) <= set(found)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_state_that_can_not_be_read_refuses_the_start_and_says_how_to_go_on(headrace, store, values, how):
    state = max(store.glob("state/*/*.bin"), key=lambda p: p.stem)
    if how == "missing":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[:-3])
    code, said = headrace.run()
    assert code == Exit.FAILED
    (sentence,) = [line for line in said.splitlines() if line.startswith("headrace: ")]
    assert f"can't be read from {state.relative_to(store)}" in sentence
    assert "restore it from a backup, or start with --skip-damaged to go on without it" in sentence
    starts(headrace, "--skip-damaged")
    assert "the windows that were open in it are lost" in headrace.said
    assert values() == (ALL, [])


def test_a_damaged_directory_of_sensors_is_named(headrace, store):
    for file in store.glob("directory/*.parquet"):
        flip(file, file.stat().st_size // 8)  # in its pages
        name = str(file.relative_to(store))
    code, said = headrace.run()
    assert code == Exit.FAILED
    assert name in said
    assert "restore it from a backup" in said
