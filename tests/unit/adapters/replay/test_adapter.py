"""The replay adapter: configuration, pace, files."""

import asyncio

import pytest

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.replay.adapter import ReplayAdapter, find_files
from headrace.adapters.replay.simulator import as_long, walks, write_table
from headrace.core.clock import NS, VirtualClock
from headrace.core.errors import ConfigError
from headrace.core.problems import validate_section
from headrace.testing.adapters import RecordingSink, until

START_NS = 1_700_000_000 * NS


def adapter_of(folder, levels=(), **config):
    settings = validate_section(ReplayAdapter.Config, {"files": "*.parquet", **config}, "adapters.r")
    return ReplayAdapter.from_config("r", settings, {}, PlantFacts(levels, "UTC", folder))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("leon/line1", "must end in a level {key}"),
        ("leon/{x}/{key}", "must end in a level {key}"),
        ("leon/{key}", "has 2 levels, expected 3: a/b/c"),
    ],
)
def test_paths_that_cannot_be(tmp_path, path, why):
    with pytest.raises(ConfigError) as e:
        adapter_of(tmp_path, ("a", "b", "c"), path=path)
    assert e.value.where == "adapters.r.path"
    assert why in e.value.message


@pytest.mark.parametrize("speed", ["fast", 0, -1.0])
def test_speeds_that_cannot_be(tmp_path, speed):
    with pytest.raises(ConfigError):
        adapter_of(tmp_path, speed=speed)


async def played(adapter, sink=None):
    sink = sink or RecordingSink()
    await adapter.start(sink)
    await adapter.finished()
    found = adapter.diagnostics()
    await adapter.stop()
    return sink, found


async def test_files_are_played_in_the_order_of_their_names(tmp_path):
    for name, start in (("b.parquet", 10), ("a.parquet", 0), ("c.csv", 20)):
        write_table(walks(10, 3, START_NS + start * NS, NS, 1), tmp_path / name)
    (tmp_path / "d.txt").write_text("nothing")
    sink, found = await played(
        adapter_of(tmp_path, ("site", "device", "signal"), files=["*.*"], path="leon/d/{key}")
    )
    assert [int(b.ts_ns[0] - START_NS) // NS for b in sink.batches] == [0, 10, 20]
    assert found.n_bytes >= 3 * 10 * 16
    assert (found.state, found.reason) == (AdapterState.STOPPED, "all 3 files were played")
    assert (found.n_samples, found.n_frames, found.n_sensors, found.devices[0].n_requests) == (90, 30, 3, 3)
    assert found.decode_ns > 0


async def test_long_and_wide_files_tell_the_same(tmp_path):
    wide = walks(50, 4, START_NS, NS, 3)
    write_table(wide, tmp_path / "w.parquet")
    write_table(as_long(wide, "leon/d"), tmp_path / "l.csv")
    sinks = [
        (await played(adapter_of(tmp_path, files=f, path="leon/d/{key}")))[0] for f in ("w.parquet", "l.csv")
    ]
    assert [b.values.tolist() for b in sinks[0].batches] == [b.values.tolist() for b in sinks[1].batches]
    assert [b.ts_ns.tolist() for b in sinks[0].batches] == [b.ts_ns.tolist() for b in sinks[1].batches]


async def test_files_that_are_not_what_they_say_are_rejects(tmp_path):
    write_table(walks(10, 1, START_NS, NS, 1), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"nothing of the kind")
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "d.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "e.csv").write_text("ts,s0\n1700000000,5\n,6\n")
    sink, found = await played(adapter_of(tmp_path, files="*.*", path="leon/d/{key}"))
    assert [(str(r.code), r.source, r.n_samples) for r in sink.rejects] == [
        ("malformed", "b.parquet", 1), ("malformed", "c.csv", 1), ("malformed", "d.csv", 2), ("bad-time", "e.csv", 1),
    ]  # fmt: skip
    assert found.n_rejects == 4
    assert sink.n_samples == 11
    assert all(r.arrival_ns > START_NS for r in sink.rejects)


async def test_a_file_that_vanishes_is_a_reject(tmp_path, monkeypatch):
    write_table(walks(10, 1, START_NS, NS, 1), tmp_path / "a.csv")
    adapter = adapter_of(tmp_path, files="*.csv", path="leon/d/{key}")
    found = find_files(tmp_path, "*.csv")
    monkeypatch.setattr("headrace.adapters.replay.adapter.find_files", lambda *a: found)
    found[0].unlink()
    sink, _ = await played(adapter)
    assert sink.rejects[0].detail == "No such file or directory"


async def run(clock, seconds, step_s=0.01):
    for _ in range(round(seconds / step_s)):
        for _ in range(6):
            await asyncio.sleep(0)
        clock.advance(step_s)
    await asyncio.sleep(0)


@pytest.mark.parametrize("speed", [1.0, 10])
async def test_samples_come_at_the_pace_that_is_asked_for(tmp_path, speed):
    write_table(walks(10, 2, START_NS, NS, 1), tmp_path / "a.parquet")
    write_table(as_long(walks(10, 2, START_NS + 10 * NS, NS, 1), "leon/e"), tmp_path / "b.parquet")
    clock = VirtualClock(START_NS)
    sink = RecordingSink(clock)
    adapter = adapter_of(tmp_path, path="leon/d/{key}", speed=speed)
    await adapter.start(sink)
    for _ in range(20):
        await run(clock, 1 / speed)
        for batch in sink.batches:
            assert ((batch.ts_ns - START_NS) / speed <= batch.arrival_ns - START_NS + 1).all(), (
                "none before its time"
            )
        expected = int((clock.now_ns() - START_NS) * speed / NS)
        assert expected - 1 <= sink.n_samples / 2 <= expected + 1
    await run(clock, 1)
    assert sink.n_samples == 40
    await adapter.stop()


async def test_what_lies_close_together_comes_together(tmp_path):
    write_table(walks(1_000, 1, START_NS, NS // 1_000, 1), tmp_path / "a.parquet")
    clock = VirtualClock(START_NS)
    sink = RecordingSink(clock)
    adapter = adapter_of(tmp_path, path="leon/d/{key}", speed=1.0)
    await adapter.start(sink)
    await run(clock, 1.1)
    assert sink.n_samples == 1_000
    assert 20 <= len(sink.batches) <= 60
    await adapter.stop()


async def test_times_can_be_moved_to_now(tmp_path):
    write_table(walks(5, 1, START_NS, NS, 1), tmp_path / "a.parquet")
    write_table(walks(5, 1, START_NS + 5 * NS, NS, 1), tmp_path / "b.parquet")
    clock = VirtualClock(START_NS * 2)
    sink, _ = await played(adapter_of(tmp_path, path="leon/d/{key}", shift=True), RecordingSink(clock))
    assert [int(t - 2 * START_NS) // NS for b in sink.batches for t in b.ts_ns] == list(range(10))


async def test_an_empty_file_gives_nothing(tmp_path):
    write_table(walks(0, 1, START_NS, NS, 1), tmp_path / "a.parquet")
    sink, found = await played(adapter_of(tmp_path, path="leon/d/{key}", speed=1.0))
    assert sink.n_samples == 0
    assert found.reason == "all 1 files were played"


async def test_a_file_of_which_a_part_is_empty(tmp_path):
    table = as_long(walks(5, 1, START_NS, NS, 1), "leon/d").to_pydict()
    table["value"] = [None] * 5
    import pyarrow as pa

    write_table(
        pa.table(
            table,
            schema=pa.schema([("path", pa.string()), ("ts", pa.timestamp("ns")), ("value", pa.float64())]),
        ),
        tmp_path / "a.parquet",
    )
    sink, _ = await played(adapter_of(tmp_path))
    assert sink.n_samples == 0


async def test_new_files_are_found_when_it_follows(tmp_path):
    write_table(walks(5, 1, START_NS, NS, 1), tmp_path / "a.parquet")
    adapter = adapter_of(tmp_path, path="leon/d/{key}", follow=True)
    sink = RecordingSink()
    await adapter.start(sink)
    await until(lambda: sink.n_samples == 5, "the first is played")
    assert adapter.diagnostics().state is AdapterState.CONNECTED
    write_table(walks(5, 1, START_NS + 5 * NS, NS, 1), tmp_path / "b.parquet")
    await until(lambda: sink.n_samples == 10, "the second is played")
    await adapter.stop()


async def test_stopped_before_it_began(tmp_path):
    adapter = adapter_of(tmp_path)
    await adapter.finished()
    await adapter.stop()
    assert adapter.diagnostics().state is AdapterState.STOPPED


def test_files_by_their_names(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("x/b.csv", "x/a.csv", "x/c.txt", "d.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "e.csv").mkdir()
    assert find_files(tmp_path, "x/*.csv") == [tmp_path / "x/a.csv", tmp_path / "x/b.csv"]
    assert find_files(tmp_path, str(tmp_path / "d.parquet")) == [tmp_path / "d.parquet"]
    assert find_files(tmp_path, "**/*.csv") == [tmp_path / "x/a.csv", tmp_path / "x/b.csv"]
    assert find_files(tmp_path, "x/c.txt") == []
    assert find_files(tmp_path, "none.csv") == []


async def test_it_waits_in_place_and_plays_on(tmp_path):
    for name in ("a", "b"):
        write_table(walks(10, 3, START_NS, NS, 1), tmp_path / f"{name}.parquet")
    sink = RecordingSink()
    adapter = adapter_of(tmp_path, ("site", "device", "signal"), path="leon/d/{key}")
    adapter.suspend()
    await adapter.start(sink)
    await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "it has found its files")
    await asyncio.sleep(0.02)
    assert not sink.batches
    adapter.proceed()
    await adapter.finished()
    assert sink.n_samples == 60
    await adapter.stop()
