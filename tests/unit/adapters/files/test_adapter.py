"""The files adapter in a folder: what grows, rotates, is cut or written half, what can't be read, and what becomes of it."""

import asyncio
import gzip
import os
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.adapters.base import AdapterState, DeviceDiagnostics, PlantFacts
from headrace.adapters.files import adapter as module
from headrace.adapters.files import folder as folder_module
from headrace.adapters.files import reader as reader_module
from headrace.adapters.files.adapter import FilesAdapter
from headrace.adapters.files.config import FileRule
from headrace.adapters.files.folder import SeenFile
from headrace.adapters.files.followed import FollowedFile
from headrace.adapters.files.positions import FILE, FORGET_NS, FilePosition, Positions
from headrace.adapters.files.simulator import (
    CsvLogger,
    compress,
    rotate_by_copy,
    rotate_by_name,
    write_parquet,
)
from headrace.adapters.meters import Backoff
from headrace.adapters.payloads.chunks import CsvChunks
from headrace.core.clock import NS, SystemClock
from headrace.core.errors import ConfigError, NotConnected, Overloaded, PluginError, StorageError
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.problems import validate_section
from headrace.core.readings import readings
from headrace.core.sensors import SensorDirectory
from headrace.testing.adapters import RecordingSink, until
from headrace.testing.fault_rigs import JumpingClock

T = 1_700_000_000
CSV = {"{device}.csv*": {"path": "leon/{device}/{key}", "time": "ts"}}
KINDS = {
    **CSV,
    "{device}.jsonl": {"path": "leon/{device}/{key}", "time": "ts"},
    "{device}.parquet": {"path": "leon/{device}/{key}"},
    "*.lp": {"path": "leon/{host}/{field}", "other_tags": "drop"},
    "{device}.odd": {"path": "leon/{device}/{key}"},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, ns in (("LOOK_FIRST_NS", NS // 100), ("LOOK_MOST_NS", NS // 50)):
        monkeypatch.setattr(module, name, ns)
    monkeypatch.setattr(module, "NOTE_S", 0.0)


def adapter_of(folder, files=None, **config):
    config = {"folder": "in", "interval": "5ms", "files": KINDS if files is None else files, **config}
    settings = validate_section(FilesAdapter.Config, config, "adapters.logs")
    return FilesAdapter.from_config("logs", settings, {}, PlantFacts(folder=folder, state=folder / "state"))


class Running:
    """A started adapter and its sink."""

    def __init__(self, adapter, sink=None):
        self.adapter, self.sink = adapter, sink or RecordingSink()

    async def __aenter__(self):
        await self.adapter.start(self.sink)
        return self.adapter, self.sink

    async def __aexit__(self, *_):
        self.sink.set_credit(True)
        await self.adapter.stop()


def values_of(sink):
    return [r.value for b in sink.batches for r in readings(b, sink.directory, 10**6)]


def written(folder, name, text):
    file = folder / "in" / name
    file.parent.mkdir(exist_ok=True)
    with file.open("ab") as out:
        out.write(text if isinstance(text, bytes) else text.encode())
    return file


def key_of(file):
    found = file.stat()
    return found.st_dev, found.st_ino


def device_of(adapter, name):
    found = (d for d in adapter.diagnostics().devices if d.path == name)
    return next(found, DeviceDiagnostics(name, AdapterState.STARTING))


def is_done(adapter, name):
    file = next((f for f in adapter._running.files.values() if f.name == name), None)
    return file is not None and adapter._running.reader.is_noted(file)


def rows(first, n):
    return "".join(f"{T + i},{i}\n" for i in range(first, first + n))


# --- configuration -----------------------------------------------------------------------------------


def test_rules_that_can_not_be_are_told(tmp_path):
    with pytest.raises(ConfigError, match="there is no rule"):
        adapter_of(tmp_path, {})
    with pytest.raises(ConfigError) as e:
        adapter_of(tmp_path, {"a//b": {}})
    assert e.value.where.startswith("adapters.logs.files.")


# --- growing, rotation, truncation -------------------------------------------------------------------


async def test_a_half_written_line_waits_for_its_end(tmp_path):
    file = written(tmp_path, "a.csv", "ts,v\n" + rows(0, 2) + f"{T + 2},2")
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 2, "whole lines")
        await until(lambda: next(iter(adapter._running.files.values())).is_drained, "no more for now")
        written(tmp_path, "a.csv", f".5\n{rows(3, 1)}")
        await until(lambda: sink.n_samples == 4, "the rest")
        assert adapter.diagnostics().n_bytes >= file.stat().st_size, "a line that waited is read again"
    assert values_of(sink) == [0, 1, 2.5, 3]
    assert not sink.rejects
    assert file.exists()


async def test_a_finished_file_needs_no_line_break(tmp_path):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1) + f"{T + 1},1")
    written(tmp_path, "b.jsonl", f'{{"ts": {T}, "v": 2}}\n')
    async with Running(adapter_of(tmp_path, finished_after="30ms")) as (adapter, sink):
        await until(lambda: is_done(adapter, "a.csv") and is_done(adapter, "b.jsonl"), "both are finished")
    assert sorted(values_of(sink)) == [0, 1, 2]


@pytest.mark.parametrize("rotate", [rotate_by_name, rotate_by_copy, compress], ids=lambda f: f.__name__)
async def test_rotation_loses_nothing(tmp_path, rotate):
    logger = CsvLogger(tmp_path / "in" / "a.csv", ("x",), 1)
    async with Running(adapter_of(tmp_path)) as (_, sink):
        n = logger.write(20)
        await until(lambda: sink.n_samples == n, "as it was")
        n += logger.write(2)
        rotate(logger.file)
        n += logger.write(3)
        await until(
            lambda: len({r.ts_ns for b in sink.batches for r in readings(b, sink.directory)}) == n,
            "all of it",
        )
    assert not sink.rejects


async def test_a_renamed_file_that_no_rule_is_for_is_read_to_its_end(tmp_path):
    file = written(tmp_path, "a.csv", "ts,v\n" + rows(0, 2))
    async with Running(adapter_of(tmp_path, {"{device}.csv": CSV["{device}.csv*"]})) as (adapter, sink):
        await until(lambda: sink.n_samples == 2, "as it was")
        with file.open("a") as out:
            file.rename(file.with_name("old"))
            out.write(rows(2, 1))
        written(tmp_path, "a.csv", "ts,v\n" + rows(5, 1))
        await until(lambda: sink.n_samples == 4, "both")
    written(tmp_path, "old", rows(6, 1))
    async with Running(adapter_of(tmp_path, {"{device}.csv": CSV["{device}.csv*"]})) as (_, sink):
        await until(lambda: sink.n_samples == 1, "what is new, after a restart")
    async with Running(adapter_of(tmp_path, {"other.csv": {"path": "x/{key}"}})) as (adapter, _):
        await until(
            lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "no rule is for it any more"
        )
        assert len(adapter.diagnostics().devices) == 1


async def test_a_file_that_is_cut_or_written_anew_is_read_from_its_beginning(tmp_path):
    file = written(tmp_path, "a.csv", "ts,v\n" + rows(0, 5))
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 5, "as it was")
        file.write_text("ts,v\n" + rows(9, 1))
        await until(lambda: sink.n_samples == 6, "shorter")
        file.write_text("ts,w\n" + rows(20, 3))
        await until(lambda: sink.n_samples == 9, "as long, and other")
        assert "leon/a/w" in {r.path for r in readings(sink.batches[-1], sink.directory)}
        file.unlink()
        await until(lambda: not adapter._running.files, "gone")


async def test_it_goes_on_at_the_byte_after_a_restart(tmp_path):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 3))
    pq.write_table(
        pa.table({"ts": pa.array([T], pa.timestamp("s", "UTC")), "v": [1.5]}), tmp_path / "in" / "p.parquet"
    )
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 4 and is_done(adapter, "p.parquet"), "as it was")
    written(tmp_path, "a.csv", rows(3, 2))
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 2, "what is new")
        assert is_done(adapter, "p.parquet")
        table = pa.table({"ts": pa.array([T, T + 1], pa.timestamp("s", "UTC")), "v": [1.5, 2.5]})
        pq.write_table(table, tmp_path / "in" / "p.parquet")
        await until(lambda: sink.n_samples == 4, "written anew, under the same name")
        await until(lambda: is_done(adapter, "p.parquet"), "its end is noted")
    assert values_of(sink) == [3, 4, 1.5, 2.5]
    known = Positions(tmp_path / "state")
    known.open(sink.clock.now_ns())
    (key,) = (key for key, one in known.by_key.items() if one.name == "p.parquet")
    known.note([replace(known.by_key[key], head=7, is_done=False)], sink.clock.now_ns())
    known.close()
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 2, "it is another one, though it looks the same")
    write_parquet(tmp_path / "in" / "p.parquet", 3, ("v",), 1)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 3, "another file of this name")


async def test_lines_without_a_time_keep_theirs_when_they_are_read_again(tmp_path):
    written(tmp_path, "a.odd", "v\n" + "".join(f"{i}\n" for i in range(5)))
    files = {"{device}.odd": {"path": "leon/{device}/{key}", "format": "csv"}}
    seen = []
    for extra in ("", "7\n"):
        written(tmp_path, "a.odd", extra)
        async with Running(adapter_of(tmp_path, files), RecordingSink(is_durable=False)) as (_, sink):
            await until(lambda sink=sink, extra=extra: sink.n_samples == 5 + bool(extra), "read, not durable")
            seen.append([r.ts_ns for b in sink.batches for r in readings(b, sink.directory)])
    assert seen[1][:5] == seen[0]


async def test_a_file_that_goes_before_it_is_durable_is_waited_for(tmp_path):
    file = written(tmp_path, "a.csv", "ts,v\n" + rows(0, 3))
    async with Running(adapter_of(tmp_path), RecordingSink(is_durable=False)) as (adapter, sink):
        await until(lambda: sink.n_samples == 3, "read")
        file.unlink()
        await until(lambda: next(iter(adapter._running.files.values())).source is None, "gone")
        asyncio.get_running_loop().call_later(0.05, sink.land)
        await adapter.stop()
    assert '"at": ' in (tmp_path / "state" / FILE).read_text()


async def test_a_name_that_leads_to_a_file_twice_is_read_once(tmp_path):
    file = written(tmp_path, "a.csv", "ts,v\n" + rows(0, 3))
    os.link(file, file.with_name("b.csv"))
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 3, "read")
        await until(lambda: [f.name for f in adapter._running.files.values()] == ["a.csv"], "looked at again")
    assert sink.n_samples == 3


# --- what can't be read ------------------------------------------------------------------------------


async def test_a_line_without_end_is_refused_and_skipped(tmp_path, monkeypatch):
    for owner in (folder_module, reader_module):
        monkeypatch.setattr(owner, "LINE_BYTES_MAX", 64)
    monkeypatch.setattr(folder_module, "CHUNK_BYTES", 32)
    written(tmp_path, "a.csv", f"ts,v\n{T},1\n" + "x" * 150 + f"\n{T + 1},2\n" + "y" * 100)
    async with Running(adapter_of(tmp_path, finished_after="40ms")) as (adapter, sink):
        await until(lambda: sink.n_samples == 2 and len(sink.rejects) == 2, "both sides of it")
        await until(lambda: is_done(adapter, "a.csv"), "and its end")
    assert [(str(r.code), r.source) for r in sink.rejects] == [
        ("too-large", "a.csv:3"),
        ("too-large", "a.csv:5"),
    ]


async def test_it_goes_on_skipping_after_a_restart(tmp_path, monkeypatch):
    for owner in (folder_module, reader_module):
        monkeypatch.setattr(owner, "LINE_BYTES_MAX", 64)
    monkeypatch.setattr(folder_module, "CHUNK_BYTES", 32)
    written(tmp_path, "a.csv", f"ts,v\n{T},1\n" + "x" * 150)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: len(sink.rejects) == 1, "refused")
        await until(lambda: next(iter(adapter._running.files.values())).is_drained, "skipped")
    written(tmp_path, "a.csv", f"zz\n{T + 1},2\n")
    async with Running(adapter_of(tmp_path)) as (_, sink):
        await until(lambda: sink.n_samples == 1, "what is behind it")
    assert (values_of(sink), sink.rejects) == ([2], [])


async def test_a_file_that_is_not_what_its_name_says_is_a_reject(tmp_path):
    written(tmp_path, "a.parquet", b"no Parquet")
    written(tmp_path, "b.csv.gz", gzip.compress(("ts,v\n" + rows(0, 9)).encode())[:-6])
    table = {"ts": pa.array([T, None], pa.timestamp("s", "UTC")), "v": [1.5, 2.5]}
    pq.write_table(pa.table(table), tmp_path / "in" / "c.parquet")
    pq.write_table(pa.table({"v": [1.5, 2.5]}), tmp_path / "in" / "d.parquet")
    none = {"ts": pa.array([None], pa.timestamp("s", "UTC")), "v": [1.5]}
    pq.write_table(pa.table(none), tmp_path / "in" / "e.parquet")
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: len(sink.rejects) >= 5, "told")
        await until(
            lambda: all(is_done(adapter, n) for n in ("a.parquet", "c.parquet", "d.parquet")), "and done"
        )
    told = {r.source.partition(":")[0]: (str(r.code), r.n_samples) for r in sink.rejects}
    assert told["a.parquet"][0] == told["b.csv.gz"][0] == "malformed"
    assert (told["c.parquet"], told["d.parquet"]) == (("bad-time", 1), ("malformed", 2))
    assert values_of(sink) == [1.5]


async def test_a_damaged_part_of_a_table_does_not_hold_up_the_rest(tmp_path):
    file = tmp_path / "in" / "a.parquet"
    write_parquet(file, 20, ("v",), 1, 10)
    data = bytearray(file.read_bytes())
    data[30:60] = bytes(30)
    file.write_bytes(data)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: is_done(adapter, "a.parquet"), "given up for good")
        assert not adapter._running.files[key_of(file)].flights
    (reject,) = sink.rejects
    assert "row group 1 of 2 can't be read" in reject.detail
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: is_done(adapter, "a.parquet"), "as it was left")
        assert not sink.rejects, "it is not told again"


async def test_what_can_not_be_read_now_is_tried_again_and_costs_no_other(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "headrace.adapters")
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1))
    written(tmp_path, "b.csv", "ts,v\n" + rows(1, 1))
    written(tmp_path, "c.csv", "a,b\n1,2\n")
    written(tmp_path, "d.odd", "x")
    real = folder_module.os.open
    is_broken = [True]

    def refuse(path, *rest, **more):
        if is_broken and str(path).endswith("a.csv"):
            raise PermissionError(13, "no")
        return real(path, *rest, **more)

    monkeypatch.setattr(folder_module.os, "open", refuse)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: device_of(adapter, "a.csv").n_errors >= 2, "tried again")
        await until(lambda: device_of(adapter, "c.csv").n_errors >= 1, "told")
        assert sink.n_samples == 1
        assert device_of(adapter, "a.csv").state is AdapterState.BACKOFF
        assert device_of(adapter, "c.csv").state is AdapterState.FAILED
        assert "set format in its rule" in device_of(adapter, "d.odd").reason
        assert adapter.diagnostics().state is AdapterState.DEGRADED
        is_broken.clear()
        await until(lambda: sink.n_samples == 2, "read in the end")
    told = [r.message for r in caplog.records]
    assert sum("a.csv can't be read: Permission denied" in text for text in told) == 1
    assert any("a.csv is read again" in text for text in told)


async def test_a_file_that_goes_while_it_is_read_is_no_trouble(tmp_path, monkeypatch):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1))

    def gone(*_):
        raise FileNotFoundError(2, "gone")

    monkeypatch.setattr(reader_module, "open_lines", gone)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "looked")
        assert device_of(adapter, "a.csv").n_errors == 0
        monkeypatch.undo()
    assert not sink.rejects


async def test_a_folder_that_can_not_be_looked_at_is_told_once(tmp_path, monkeypatch, caplog):
    written(tmp_path, "a.csv", "ts,v\n")
    (tmp_path / "in" / "sub").mkdir()
    real = os.scandir

    n_looks = []

    def scandir(path):
        if str(path).endswith("sub"):
            n_looks.append(path)
            raise PermissionError(13, "no")
        return real(path)

    monkeypatch.setattr(folder_module.os, "scandir", scandir)
    async with Running(adapter_of(tmp_path, {"**/*.csv": {"path": "a/{key}", "time": "ts"}})) as (adapter, _):
        await until(lambda: len(n_looks) > 2, "looked at again")
        assert device_of(adapter, "sub").reason == "Permission denied"
    assert device_of(adapter, "sub").state is AdapterState.STOPPED
    assert sum("sub can't be looked at" in r.message for r in caplog.records) == 1


async def test_a_name_that_can_name_no_device_stops_its_file(tmp_path):
    written(tmp_path, "a#.csv", "ts,v\n" + rows(0, 1))
    async with Running(adapter_of(tmp_path)) as (adapter, _):
        await until(lambda: device_of(adapter, "a#.csv").n_errors >= 1, "told")


# --- the store and the sink --------------------------------------------------------------------------


async def test_positions_that_can_not_be_kept_are_told_and_kept_later(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "headrace.adapters")
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1))
    real, is_full, n = Positions.note, [True], []

    def note(self, *arguments):
        n.append(1)
        if is_full:
            raise StorageError("the disk is full")
        real(self, *arguments)

    class Quick(SystemClock):
        async def sleep(self, seconds):
            await super().sleep(min(seconds, 0.01))

    monkeypatch.setattr(Positions, "note", note)
    async with Running(adapter_of(tmp_path), RecordingSink(Quick())) as (adapter, sink):
        await until(lambda: len(n) >= 2, "tried twice")
        assert "can't be kept: the disk is full" in adapter.diagnostics().reason
        is_full.clear()
        await until(lambda: bool(adapter._running.positions.by_key), "kept")
        await until(lambda: not adapter.diagnostics().reason, "and told")
    assert sink.n_samples == 1
    assert sum("read again after a restart" in r.message for r in caplog.records) == 1


async def test_a_state_that_can_not_be_opened_is_tried_again(tmp_path, monkeypatch):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1))
    real, is_broken = Positions.open, [True]

    def refuse(self, now_ns):
        if is_broken:
            raise StorageError("no permission")
        real(self, now_ns)

    monkeypatch.setattr(Positions, "open", refuse)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: adapter.diagnostics().reason == "no permission", "told")
        is_broken.clear()
        await until(lambda: sink.n_samples == 1, "read")


async def test_positions_are_gone_through_only_in_the_thread_that_notes_them(tmp_path, monkeypatch):
    class Watched(dict):
        def items(self):
            threads.append(threading.current_thread())
            return super().items()

    def open_watched(self, now_ns):
        real(self, now_ns)
        self.by_key = Watched(self.by_key)

    threads, real = [], Positions.open
    monkeypatch.setattr(Positions, "open", open_watched)
    async with Running(adapter_of(tmp_path)) as (_, _):
        await until(lambda: len(threads) >= 2, "looked")
    assert threading.current_thread() not in threads


async def test_what_is_not_taken_is_read_again(tmp_path, caplog):
    class Full(RecordingSink):
        n = 0

        async def emit(self, batch, ack=None):
            self.n += 1
            if self.n in (1, 2):
                raise Overloaded("full", 1.0)
            await super().emit(batch, ack)

    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 5))
    async with Running(adapter_of(tmp_path), Full()) as (adapter, sink):
        await until(lambda: sink.n_samples == 5, "taken in the end")
        await until(lambda: adapter.diagnostics().state is AdapterState.CONNECTED, "and told")
    assert sum("what was read is not taken: full" in r.message for r in caplog.records) == 1


async def test_frames_that_are_refused_for_ever_become_a_reject(tmp_path):
    class Refusing(RecordingSink):
        async def emit(self, batch, ack=None):
            raise PluginError("no such slot")

    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 5))
    async with Running(adapter_of(tmp_path), Refusing()) as (_, sink):
        await until(lambda: bool(sink.rejects), "kept")
    assert (sink.rejects[0].code, sink.rejects[0].n_samples) == (RejectCode.INTERNAL, 5)


async def test_defects_of_ours_are_not_the_end_of_all_files(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError

    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 5))
    monkeypatch.setattr(CsvChunks, "decode", fail)
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: bool(sink.rejects), "kept as a reject")
        assert sink.rejects[0].code is RejectCode.INTERNAL
        monkeypatch.undo()
        written(tmp_path, "b.csv", "ts,v\n" + rows(0, 5))
        await until(lambda: sink.n_samples == 5, "others are read")
        monkeypatch.setattr(reader_module.FileReader, "turn", fail)
        written(tmp_path, "b.csv", rows(5, 1))
        await until(lambda: "reading failed" in adapter.diagnostics().reason, "told")
        monkeypatch.undo()
        await until(lambda: sink.n_samples == 6, "read again")


async def test_a_clock_that_is_set_makes_no_file_finished(tmp_path):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 1) + f"{T + 1},1")
    clock = JumpingClock()
    async with Running(adapter_of(tmp_path, finished_after="1h"), RecordingSink(clock)) as (adapter, sink):
        await until(lambda: sink.n_samples == 1, "whole lines")
        (file,) = adapter._running.files.values()
        for days in (1, -1, -9_000):
            clock.offset_ns = days * 86_400 * NS
            await until(lambda: abs(file.since_ns - clock.now_ns()) < 60 * NS, "counted anew")
            n = file.position.at
            written(tmp_path, "a.csv", f"0\n{T + 2},1")
            await until(lambda n=n: file.position.at > n, "what is whole is read")
    assert values_of(sink) == [0, 10, 10, 10]


async def test_files_that_went_long_ago_are_forgotten_while_it_runs(tmp_path):
    files = [written(tmp_path, name, "ts,v\n" + rows(0, 2)) for name in ("a.csv", "b.csv")]
    keys = [key_of(file) for file in files]
    clock = JumpingClock()
    async with Running(adapter_of(tmp_path), RecordingSink(clock)) as (adapter, _):
        positions = adapter._running.positions
        await until(lambda: positions.by_key.keys() == set(keys), "both were read")
        files[0].unlink()
        clock.offset_ns = FORGET_NS + NS
        await until(lambda: positions.by_key.keys() == {keys[1]}, "only what is there is known")


# --- finished files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["move", "delete"])
async def test_finished_files_are_disposed_of(tmp_path, after, monkeypatch):
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 2))
    written(tmp_path, "b.csv", "ts,v\n" + rows(2, 1) + f"{T + 3}")
    to = {"move_to": "in/done"} if after == "move" else {}
    told = ["it can't be moved"]
    real = module.dispose
    monkeypatch.setattr(module, "dispose", lambda *a: told.pop() if told else real(*a))
    async with Running(adapter_of(tmp_path, after=after, finished_after="20ms", **to)) as (_, sink):
        await until(lambda: not (tmp_path / "in" / "a.csv").exists() and sink.n_samples == 3, "gone")
        await until(lambda: not (tmp_path / "in" / "b.csv").exists(), "and the other")
    assert (tmp_path / "in" / "done" / "a.csv").exists() is (after == "move")


async def test_many_files_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "N_WHOLE_AT_ONCE", 1)
    monkeypatch.setattr(module, "DEVICES_MAX", 3)
    for i in range(5):
        write_parquet(tmp_path / "in" / f"p{i}.parquet", 4, ("v",), i, 2)
        compress(written(tmp_path, f"g{i}.csv", "ts,v\n" + rows(0, 2)))
    async with Running(adapter_of(tmp_path)) as (adapter, sink):
        await until(lambda: sink.n_samples == 5 * 4 + 5 * 2, "all of them")
        assert len(adapter.diagnostics().devices) == 4


# --- looking -----------------------------------------------------------------------------------------


async def test_a_probe_shows_what_files_would_become(tmp_path, monkeypatch):
    clock = SystemClock()
    adapter = adapter_of(tmp_path, {**KINDS, "sub/*.parquet": {}})
    with pytest.raises(NotConnected):
        await adapter.probe({}, clock)
    written(tmp_path, "a.csv", "ts,v,s\n" + "".join(f"{T + i},{i},x\n" for i in range(4)) + "bad\n")
    written(tmp_path, "h.lp", f"m,host=h a=1 {T}000000000\n")
    written(tmp_path, "o.odd", "x")
    written(tmp_path, "n.csv", "a,b\n1,2\n")
    written(tmp_path, "z.csv.gz", b"no gzip")
    (tmp_path / "in" / "sub").mkdir()
    write_parquet(tmp_path / "in" / "p.parquet", 4, ("v",), 1)
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "in" / "sub" / "e.parquet")
    monkeypatch.setattr("headrace.adapters.files.probe.PROBED_BYTES", 48)
    found = await adapter.probe({}, clock)
    by_name = {one["file"]: one for one in found["files"]}
    assert sorted(str(v["value"]) for v in by_name["a.csv"]["values"]) == ["0.0", "1.0", "x", "x"]
    assert by_name["h.lp"]["values"][0]["path"] == "leon/h/a"
    assert "set format" in by_name["o.odd"]["problems"][0]
    assert "no column ts" in by_name["n.csv"]["problems"][0]
    assert by_name["z.csv.gz"]["problems"]
    assert len(by_name["p.parquet"]["values"]) == 4
    assert by_name["sub/e.parquet"]["values"] == []
    assert len(found["table"]["rows"]) == sum(len(f["values"]) + len(f["problems"]) for f in found["files"])
    (one,) = (await adapter.probe({"file": "h.lp"}, clock))["files"]
    assert one["bytes"] == (tmp_path / "in" / "h.lp").stat().st_size
    for wanted, why in (({"fil": "x"}, "did you mean"), ({"file": "a.csx"}, "did you mean 'a.csv'")):
        with pytest.raises(ConfigError, match=why):
            await adapter.probe(wanted, clock)
    tags = await adapter.scan({}, clock)
    assert {(t.device, t.name, t.dtype) for t in tags if not t.problem} >= {
        ("leon/a", "v", "f64"),
        ("leon/a", "s", "string"),
    }
    assert {t.name for t in tags if t.problem} >= {"o.odd", "n.csv"}
    (tmp_path / "in" / "h.lp").chmod(0)
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert (await adapter.probe({"file": "h.lp"}, clock))["files"][0]["problems"] == ["Permission denied"]


async def test_a_file_that_no_adapter_has_is_probed_by_its_url(tmp_path):
    file, clock = written(tmp_path, "a.csv", "when;v\n2026-11-23 15:06:00;1,5\n"), SystemClock()
    wanted = {"url": f"file://{file}", "time": "when", "delimiter": ";", "decimal": ","}
    found = await FilesAdapter.probe_url(wanted, clock)
    assert [row[0::2] for row in found["table"]["rows"]] == [["file/v", 1.5]]
    long = written(tmp_path, "l.csv", f"path,value\nx/y,{T}\n")
    found = await FilesAdapter.probe_url({"url": f"file://localhost{long}", "path": ""}, clock)
    assert found["table"]["rows"][0][0] == "x/y"
    found = await FilesAdapter.probe_url(
        {"url": f"file://{written(tmp_path, 'm.lp', 'm,host=h a=1')}"}, clock
    )
    assert found["table"]["rows"][0][2] == 1.0
    for url in ("file://elsewhere/a.csv", "file:a.csv"):
        with pytest.raises(ConfigError, match="is no file here"):
            await FilesAdapter.probe_url({"url": url}, clock)


# --- decoded again -----------------------------------------------------------------------------------


async def test_refused_lines_are_decoded_again(tmp_path):
    written(tmp_path, "a.csv", f"ts,v\n{T},1\n")
    adapter, directory = adapter_of(tmp_path), SensorDirectory()
    assert adapter.diagnostics().state is AdapterState.STARTING
    line = Reject(RejectCode.BAD_TIME, "logs", "a.csv:3", "", f"ts,v\n{T},2".encode(), NS)
    batches, rejects = adapter.redecode(line, directory)
    assert [r.value for b in batches for r in readings(b, directory)] == [2.0]
    assert not rejects
    for odd, why in (
        (replace(line, source="a.csv"), "no line of it was kept"), (replace(line, raw=b""), "no line of it"),
        (replace(line, raw=b"x" * MAX_RAW_BYTES), "only the first"), (replace(line, source="a.txt:3"), "no rule is for"),
        (replace(line, source="a.parquet:3"), "not written in lines"), (replace(line, raw=b"a,b\n1,2"), "no column ts"),
    ):  # fmt: skip
        assert why in adapter.redecode(odd, directory)[1][0].detail
    async with Running(adapter) as (adapter, sink):
        await until(lambda: sink.n_samples == 1, "it runs")
        assert adapter.redecode(line, sink.directory)[0][0].n_samples == 1


async def test_what_is_heard_gives_the_same_again(tmp_path):
    heard, adapter = [], adapter_of(tmp_path)
    adapter.listen(heard.append)
    written(tmp_path, "a.csv", "ts,v\n" + rows(0, 2))
    async with Running(adapter) as (adapter, sink):
        await until(lambda: sink.n_samples == 2, "nobody listens")
        adapter.listen(heard.append)
        written(tmp_path, "a.csv", rows(2, 2))
        written(tmp_path, "b.csv", "ts,v\n" + rows(0, 1))
        await until(lambda: sink.n_samples == 5, "heard")
        written(tmp_path, "b.csv", rows(1, 1))
        await until(lambda: sink.n_samples == 6, "heard, too")
    directory = SensorDirectory()
    batches, rejects = adapter.decode_captured([*heard, replace(heard[0], source="x.txt")], directory)
    assert sorted(r.value for b in batches for r in readings(b, directory)) == [0, 1, 2, 3]
    assert not rejects
    broken = replace(heard[0], about={}, data=b"a,b\n1,2\n")
    assert "no column ts" in adapter.decode_captured([broken], SensorDirectory())[1][0].detail


async def test_tables_are_heard_and_give_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "BATCH_ROWS", 20)
    heard, adapter = [], adapter_of(tmp_path, {"*.parquet": {"path": "a/{key}"}})
    async with Running(adapter) as (adapter, sink):
        adapter.listen(heard.append)
        n = write_parquet(tmp_path / "in" / "a.parquet", 50, ("v", "w"), 1, 30)
        await until(lambda: sink.n_samples == n, "heard")
    assert [one.about for one in heard] == [{"part": part} for part in ("1.1", "1.21", "2.1")]
    directory = SensorDirectory()
    batches, rejects = adapter.decode_captured(heard, directory)
    assert not rejects
    assert all_of(batches, directory) == all_of(sink.batches, sink.directory)
    for data, why in ((b"ARROW1", "not an Arrow stream"), (heard[0].data[:-200], "not an Arrow stream")):
        _, (reject,) = adapter.decode_captured([replace(heard[0], data=data)], SensorDirectory())
        assert (reject.source, why in reject.detail) == ("a.parquet:1.1", True)


def all_of(batches, directory):
    return sorted((r.path, r.ts_ns, r.value) for b in batches for r in readings(b, directory, 1_000))


# --- a followed file ---------------------------------------------------------------------------------


def test_a_position_goes_on_when_all_before_it_is_durable():
    landed = []
    rule = module.compile_file_rule("*.csv", FileRule(path="a/{key}"), ())
    seen = SeenFile("a.csv", (1, 2), 10, 0, 0)
    file = FollowedFile(seen, rule, "csv", FilePosition(1, 2), Backoff("x", 1, 2), 0, landed.append)
    first, second = file.begin(None, 4, 1), file.begin(None, 6, 1)
    file.landed(second)
    assert (file.position.at, landed) == (0, [])
    file.landed(first)
    assert (file.position.at, file.position.line, landed) == (10, 3, [file])
