"""A watched folder and a whole plant: killed between what was durable and what was noted, nothing is lost or twice."""

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager

import pytest

from headrace.adapters.files.positions import FILE
from headrace.adapters.files.simulator import (
    CsvLogger,
    compress,
    rotate_by_copy,
    rotate_by_name,
    write_parquet,
)
from headrace.core.config import load_plant
from headrace.core.disk import LocalDisk
from headrace.ingest.journal_format import RecordKind
from headrace.ingest.journal_reader import read_records
from headrace.runtime.assemble import build_plant
from headrace.runtime.reader import open_store

PLANT = """version = 1
[plant]
levels = ["site", "line", "device", "signal"]
[store]
url = "./store"
flush_interval = "1s"
[api]
listen = "127.0.0.1:0"
[adapters.logs]
protocol = "files"
folder = "in"
interval = "20ms"
[adapters.logs.files]
"{line}/{device}.csv*" = { path = "leon/{line}/{device}/{key}", time = "ts" }
"{line}/{device}.log" = { path = "leon/{line}/{device}/{key}", format = "csv" }
"""
LINES = 4_000


@asynccontextmanager
async def running(folder):
    """The plant of a folder, in this process."""
    plant = build_plant(load_plant(folder / "plant.toml"))
    await plant.start()
    try:
        yield plant
    finally:
        await plant.stop()


async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def stored(folder):
    """path → (time, value) of every sample, in order of time."""
    found = open_store(folder / "store").query("leon/**", from_="2020-01-01", to="2100-01-01")
    out = {}
    for row in found.to_rows():
        out.setdefault(row["path"], []).append((row["ts"], row["value"]))
    return out


def values_of(text):
    """(time in ms, value) of each line and column of a CSV file."""
    head, *lines = text.splitlines()
    names = head.split(",")[1:]
    out = {name: [] for name in names}
    for line in lines:
        ts, *cells = line.split(",")
        for name, cell in zip(names, cells, strict=True):
            out[name].append((int(ts), float(cell)))
    return out


def noted(folder):
    """Inode → bytes (or row groups) that are noted as durable."""
    try:
        lines = (folder / "store" / "adapters" / "logs" / FILE).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {one["inode"]: one["at"] for one in map(json.loads, lines)}


def is_noted(folder, *files):
    """Whether all of text files is noted."""
    known = noted(folder)
    return all(known.get(file.stat().st_ino) == file.stat().st_size for file in files)


def has_frames(folder):
    """Whether frames are durable in the journal."""
    return any(one.kind is RecordKind.FRAMES for one in read_records(LocalDisk(folder / "store")))


async def test_killed_before_its_position_is_noted_it_reads_again_and_stores_nothing_twice(
    headrace, tmp_path
):
    """The process kills itself when the journal has synced: what was read is durable, and nobody was told so."""
    (tmp_path / "plant.toml").write_text(PLANT)
    timed = CsvLogger(tmp_path / "in" / "line1" / "oven1.csv", ("a", "b"), 1, step_ns=1_000_000)
    timed.write(LINES)
    dateless = tmp_path / "in" / "line1" / "press.log"
    dateless.write_text("n\n" + "".join(f"{i}\n" for i in range(LINES)))
    table = tmp_path / "in" / "line2" / "mill.parquet"
    write_parquet(table, LINES, ("c",), 3, 500)
    plant = (tmp_path / "plant.toml").read_text()
    events = tmp_path / "in" / "line2" / "saw.jsonl"
    lines = [f'{{"ts": {1_700_000_000_000 + i}, "n": {i}}}\n' for i in range(LINES)]
    events.write_text("".join(lines)[:-7])  # its last line is half there
    rules = '"{line}/{device}.parquet" = { path = "leon/{line}/{device}/{key}" }\n'
    rules += '"{line}/{device}.jsonl" = { path = "leon/{line}/{device}/{key}", time = "ts" }\n'
    (tmp_path / "plant.toml").write_text(plant + rules)
    while not has_frames(tmp_path):  # a sync can bring a tick alone: nothing was read before it
        headrace.start("--no-web", HEADRACE_FAULT="journal.sync:2")
        assert headrace.wait() == -signal.SIGKILL
    timed.write(LINES // 10)
    with events.open("a") as out:
        out.write("".join(lines)[-7:])
    async with running(tmp_path) as plant:
        await until(lambda: is_noted(tmp_path, timed.file, dateless, events))
        await until(lambda: noted(tmp_path).get(table.stat().st_ino) == LINES // 500)
    counts = plant.summary()
    found = await asyncio.to_thread(stored, tmp_path)
    for name, expected in values_of(timed.file.read_text()).items():
        assert [v for _, v in found[f"leon/line1/oven1/{name}"]] == [v for _, v in expected]
    assert sorted(v for _, v in found["leon/line1/press/n"]) == list(range(LINES))
    assert [v for _, v in found["leon/line2/saw/n"]] == list(range(LINES))
    assert len(found["leon/line2/mill/c"]) == LINES
    assert counts["rejected"] == 0
    assert counts["duplicates"] > 0  # so it was durable, and not noted


@pytest.mark.parametrize("rotate", [rotate_by_name, rotate_by_copy, compress], ids=lambda f: f.__name__)
async def test_a_file_that_is_rotated_over_restarts_is_there_once(tmp_path, rotate):
    (tmp_path / "plant.toml").write_text(PLANT)
    logger = CsvLogger(tmp_path / "in" / "line1" / "oven1.csv", ("a",), 5)
    expected = []

    def write(n):
        lines = logger.lines(n)
        logger.file.parent.mkdir(parents=True, exist_ok=True)
        is_new = not logger.file.exists() or not logger.file.stat().st_size
        with logger.file.open("a") as out:
            out.write(("ts,a\n" if is_new else "") + lines)
        expected.extend(float(line.split(",")[1]) for line in lines.splitlines())

    write(50)
    async with running(tmp_path) as plant:
        await until(lambda: plant.adapters()[0].n_samples >= 50)
        write(7)  # perhaps read, perhaps not, when it is rotated
        rotate(logger.file)
        write(20)
        await until(lambda: is_noted(tmp_path, logger.file) and plant.adapters()[0].n_samples >= 77)
    write(5)
    rotate(logger.file)
    write(3)
    async with running(tmp_path) as plant:
        await until(lambda: is_noted(tmp_path, logger.file) and plant.adapters()[0].n_samples >= 8)
    found = await asyncio.to_thread(stored, tmp_path)
    assert [v for _, v in found["leon/line1/oven1/a"]] == expected
