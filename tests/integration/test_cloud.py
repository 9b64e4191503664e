"""A store in a bucket, on a real S3 server: what is stored is found, whoever ends when, with few requests."""

from __future__ import annotations

import asyncio
import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Pipeline, open_store
from headrace.cli.main import run_command
from headrace.core.disk import LocalDisk
from headrace.core.errors import Fenced
from headrace.core.faults import FaultPoints
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.sim.faults import CountedFaults, Crashed
from headrace.store import block_cache
from headrace.store.cloud import CloudDisk
from headrace.store.commits import CommitLog
from headrace.store.manifests import HOT_FOLDER
from headrace.store.query import Store
from headrace.store.verify import verify_store
from headrace.testing.stores import StoreModel, StoreRig, check_rows, check_windows

NS = 1_000_000_000
DAY_NS = 86_400 * NS
NOON = 20_000 * DAY_NS + DAY_NS // 2
SPAN = NOON - DAY_NS, NOON + 3 * DAY_NS


def a_plant(n: int = 3) -> SensorDirectory:
    directory = SensorDirectory(shard_bits=1)
    for i in range(n):
        columns = (Column("temp", unit="degC", scale=0.1, offset=-40.0), Column("level"))
        directory.define(f"leon/line1/oven{i:03d}", Layout("u16", columns))
    return directory


def frames(slot: int, first: int, n: int, seed: int = 1, start_ns: int = NOON) -> FrameBatch:
    values = np.random.default_rng(seed + slot).integers(0, 50_000, (n, 2)).astype(np.uint16)
    ts_ns = start_ns + (first + np.arange(n)) * NS
    return FrameBatch.dense(np.full(n, slot, np.uint32), ts_ns, values, arrival_ns=int(ts_ns[0]))


class Life:
    """A rig on a bucket, and the model of what it must answer."""

    def __init__(self, disk: CloudDisk, n: int = 3) -> None:
        self.rig = StoreRig(disk, a_plant(n))
        self.model = StoreModel(self.rig.directory)

    def add(self, *batches: FrameBatch) -> None:
        for batch in batches:
            self.rig.add(batch)
            self.model.put(batch)

    def check(self) -> None:
        fresh = Store.open(CloudDisk(self.rig.disk.url))
        for store, tail in ((self.rig.store, self.rig.tail), (fresh, self.rig.tail)):
            check_rows(store, self.model, *SPAN, tail)
            check_windows(store, self.model, SPAN, 3_600 * NS, tail)


@pytest.fixture
def life(bucket) -> Life:
    return Life(CloudDisk(bucket.url))


def test_what_is_stored_is_found_flushed_compacted_and_late(life):
    for day in range(3):
        life.add(*(frames(slot, 0, 40, day, NOON + day * DAY_NS) for slot in range(3)))
        life.rig.flush()
        life.check()
    life.add(frames(1, 10, 5, 99), frames(2, 0, 4, 77, NOON + DAY_NS))  # late: revisions of what is stored
    life.check()
    life.rig.flush()
    life.check()
    assert life.rig.compact().problems == []
    life.check()
    life.rig.clock.advance(11)
    assert life.rig.compact().n_deleted > 0
    life.check()
    assert verify_store(life.rig.disk, life.rig.store).is_sound
    life.rig.start()
    life.check()


@pytest.mark.parametrize("point", ["segment.write", "snapshot.write", "commit.publish"])
def test_a_process_that_ends_between_segment_and_commit_leaves_nothing_to_be_seen(life, point):
    life.add(frames(0, 0, 20))
    life.rig.flush()
    before = Store.open(CloudDisk(life.rig.disk.url)).status()
    life.rig.flusher._faults = CountedFaults({point: 1})
    life.add(frames(0, 20, 20))
    with pytest.raises(Crashed):
        life.rig.flusher.flush([life_part(buffer, len(life.rig.journal) - 1) for buffer in life.rig.buffers])
    if point == "commit.publish":
        assert len(life.rig.disk.list(HOT_FOLDER)) == 2  # the segment is there, and nobody names it
    assert Store.open(CloudDisk(life.rig.disk.url)).status() == before
    life.rig.faults = FaultPoints()
    life.rig.start()
    life.check()
    life.rig.flush()
    life.check()
    life.rig.compact()
    assert len(life.rig.disk.list(HOT_FOLDER)) <= 2


def life_part(buffer, seq):
    from headrace.store.flush import FlushPart

    return FlushPart(buffer, seq, b"state", seq)


def test_of_two_owners_one_commits(bucket):
    """Both have opened the store before either knows of the other."""
    first, second = Life(CloudDisk(bucket.url)), None
    first.add(frames(0, 0, 20))
    first.rig.flush()
    second = CommitLog.open(CloudDisk(bucket.url), 2, first.rig.clock)
    first.add(frames(0, 20, 20))
    with pytest.raises(Fenced, match="has taken over"):
        first.rig.flush()
    assert first.rig.n_unflushed == 40  # the batch has two columns; the journal has it for the successor
    second.publish(None, {})
    first.rig.compactor._incarnation = 1
    with pytest.raises(Fenced, match="incarnation 2 has taken over"):
        first.rig.compact()


def test_of_many_that_put_an_object_one_is_told_that_it_did(bucket):
    won = []
    ready = threading.Barrier(8)

    def put(i: int) -> None:
        disk = CloudDisk(bucket.url)
        ready.wait()
        won.extend((n, i) for n in range(20) if disk.put_if_absent(f"commits/{n}", b"%d" % i))

    threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    disk = CloudDisk(bucket.url)
    assert sorted(n for n, _ in won) == list(range(20))
    assert all(bytes(disk.read(f"commits/{n}")) == b"%d" % i for n, i in won)


def test_a_query_takes_few_requests_and_the_same_one_again_fewer(bucket, monkeypatch):
    monkeypatch.setattr(block_cache, "WHOLE_BYTES", 4_096)  # as if segments were large
    monkeypatch.setattr(block_cache, "BLOCK_BYTES", 4_096)
    life = Life(CloudDisk(bucket.url), 40)
    for n in range(6):
        life.add(*(frames(slot, 100 * n, 100, n) for slot in range(40)))
        life.rig.flush()
    n_before = len(bucket.requests())
    store = Store.open(CloudDisk(bucket.url))
    n_opened = len(bucket.requests()) - n_before
    # 4 lists, 6 commits and the seal, the directory
    assert n_opened <= 13
    for most in (
        5 + 6 * 4,
        5,
    ):  # 5 lists; of each segment the end, the headers, payloads; then none of it again
        n_before = len(bucket.requests())
        answer = store.query("leon/line1/oven007/temp", *SPAN)
        assert (answer.n_rows, answer.missing) == (600, ())
        made = bucket.requests()[n_before:]
        assert len(made) <= most, made
        assert sum("list-type" in path for _, path in made) <= 5


def test_a_flush_takes_few_requests(bucket):
    life = Life(CloudDisk(bucket.url))
    life.add(frames(0, 0, 10))
    life.rig.flush()
    n_before = len(bucket.requests())
    life.add(frames(0, 10, 10))
    life.rig.flush()
    made = bucket.requests()[n_before:]
    assert [method for method, _ in made] == ["PUT", "PUT"], made  # the segment and the commit


def test_a_part_of_a_large_segment_is_read_by_ranges(bucket, monkeypatch):
    monkeypatch.setattr(block_cache, "WHOLE_BYTES", 8_192)
    monkeypatch.setattr(block_cache, "BLOCK_BYTES", 8_192)
    life = Life(CloudDisk(bucket.url), 60)
    for slot in range(60):  # whole batches: these samples are many
        batch = frames(slot, 0, 2_000)
        life.rig.journal.append(batch)
        life.rig.buffers[int(life.rig.directory.shard[slot])].append(slot, batch)
    life.rig.flush()
    disk = CloudDisk(bucket.url)
    fetched = []
    ranges = disk.read_ranges

    def counted(path, starts, ends):
        fetched.append(sum(ends) - sum(starts))
        return ranges(path, starts, ends)

    monkeypatch.setattr(disk, "read_ranges", counted)
    store = Store.open(disk)
    assert store.query("leon/line1/oven031/temp", *SPAN).n_rows == 2_000
    size = store.status().size_bytes
    assert size > 400_000
    assert sum(fetched) < size / 5
    assert len(fetched) <= 4


# --- whole processes -----------------------------------------------------------------------------------------


PLANT = """version = 1
[plant]
levels = ["site", "area", "device", "signal"]
[store]
url = "{url}"
folder = "./store"
[store.options]
endpoint = "{endpoint}"
region = "us-east-1"
timeout = "10s"
[api]
listen = "127.0.0.1:0"
"""


IMPORT = ("--path", "leon/hall/oven/{key}", "--yes")


@pytest.fixture
def say(capsys) -> Callable[..., tuple[int, str, str]]:
    """Any ``headrace`` command, in this process: exit code, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_command([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return run


def write_table(folder: Path) -> Path:
    """Two sensors, 600 samples each."""
    with (folder / "data.csv").open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["ts", "temp", "level"])
        rows.writerows([f"2026-03-01T06:{i // 60:02d}:{i % 60:02d}Z", i / 2, i] for i in range(600))
    return folder / "data.csv"


@pytest.fixture
def plant_file(tmp_path: Path, bucket, monkeypatch) -> Path:
    """A plant whose file says where the service is; the environment says only who we are."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    file = tmp_path / "plant.toml"
    file.write_text(PLANT.format(url=bucket.url, endpoint=bucket.server.endpoint))
    write_table(tmp_path)
    return file


def test_files_are_imported_into_a_bucket_and_found_by_every_name_of_the_store(
    plant_file, bucket, say, monkeypatch
):
    code, out, said = say("import", plant_file.parent / "data.csv", "-t", plant_file, *IMPORT, "--dry-run")
    assert (code, "600" in out) == (0, True), (out, said)
    code, out, said = say("import", plant_file.parent / "data.csv", "-t", plant_file, *IMPORT)
    assert code == 0, (out, said)
    folder = plant_file.parent / "store"
    here = {p.name for p in folder.iterdir()}
    assert {"store.json", "journal"} <= here
    assert not here & {"commits", "segments", "manifests", "state", "directory", "rollups"}
    paths = CloudDisk(bucket.url, _settings(bucket)).list("commits")
    assert len(paths) >= 2
    span = ("--from", "2026-03-01", "--to", "2026-03-02", "--agg", "count,max", "--every", "1d", "--json")
    for target in (plant_file, folder):
        code, out, said = say("query", "**/temp", "-t", target, *span)
        assert code == 0, said
        assert [(r["count"], r["max"]) for r in json.loads(out)["rows"]] == [(600, 299.5)]
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.endpoint)
    code, out, said = say("query", "**/temp", "-t", bucket.url, *span)
    assert (code, [r["count"] for r in json.loads(out)["rows"]]) == (0, [600]), said
    code, out, _ = say("store", "verify", "-t", folder)
    assert (code, "sound" in out) == (0, True)
    code, out, _ = say("store", "status", "-t", plant_file, "--json")
    facts = json.loads(out)
    assert (facts["url"], facts["samples"]) == (bucket.url, 1_200)
    code, out, _ = say("status", "-t", plant_file, "--json")
    assert json.loads(out)["store"]["url"] == bucket.url
    pipeline = Pipeline("hours").read("**").window("1h", ["count"]).write("{parent}/{signal}_{agg}_1h")
    assert pipeline.run(open_store(plant_file), from_="2026-03-01", to="2026-03-02").written == 2
    found = open_store(bucket.url).query("**/temp_count_1h", from_="2026-03-01", to="2026-03-02")
    assert [row["value"] for row in found.to_rows()] == [600]
    code, out, said = say("tiers", "status", "-t", plant_file, "--json")
    assert (code, [rule["samples"] for rule in json.loads(out)["rules"]]) == (0, [1_202]), said
    code, out, said = say("tiers", "run", "-t", plant_file, "--json")
    assert (code, json.loads(out)["compacted"]) == (0, 1), said
    assert CloudDisk(bucket.url, _settings(bucket)).list("segments/warm")
    assert not (folder / "segments").exists()
    code, out, said = say("query", "**/temp", "-t", bucket.url, *span)
    assert (code, [r["count"] for r in json.loads(out)["rows"]]) == (0, [600]), said
    code, out, said = say("codecs", "explain", "leon/hall/oven/temp", "-t", plant_file, "--last", "3650d")
    assert (code, "temp, 600 x float64" in out) == (0, True), (out, said)
    code, _, said = say("rejects", "replay", "-t", bucket.url, "--yes")
    assert (code, "no engine runs on" in said) == (3, True), said


def _settings(bucket):
    from headrace.store.cloud import CloudSettings

    return CloudSettings(bucket.server.endpoint, "us-east-1")


def test_another_machine_must_say_that_it_takes_over(plant_file, say, tmp_path):
    assert say("import", plant_file.parent / "data.csv", "-t", plant_file, *IMPORT)[0] == 0
    other = plant_file.with_name("other.toml")
    other.write_text(plant_file.read_text().replace('"./store"', '"./elsewhere"'))
    code, _, said = say("import", plant_file.parent / "data.csv", "-t", other, *IMPORT)
    assert code == 1
    assert "the store's journal is gone, its commits know of" in said


def test_a_bucket_that_is_not_there_is_told_at_the_start(plant_file, bucket, say):
    plant_file.write_text(plant_file.read_text().replace(bucket.name, "no-such-bucket"))
    code, _, said = say("query", "**", "-t", plant_file)
    assert (code, "the bucket does not exist; create it, or correct store.url" in said) == (1, True), said
    code, _, said = say("run", plant_file)
    assert (code, "the bucket does not exist" in said) == (1, True), said


async def in_a_bucket(plant: Any, bucket: Any, timeout: str) -> None:
    plant.write(flush_interval="2s")
    file = plant.headrace.folder / "plant.toml"
    options = f'[store.options]\nendpoint = "{bucket.server.endpoint}"\ntimeout = "{timeout}"\n[api]'
    text = file.read_text().replace('url = "./store"', f'url = "{bucket.url}"', 1)
    file.write_text(text.replace("[api]", options, 1))
    await plant.up()


def counts(where: Path | str) -> list[int]:
    """What is found of a device's ``count``, in order of time."""
    found = open_store(where).query("bench/hall/d0/count", from_="2025-12-31", to="2027-01-01")
    assert found.missing == ()
    return [int(row["value"]) for row in found.to_rows()]


async def test_neither_an_outage_of_the_bucket_nor_a_kill_loses_what_was_acknowledged(
    mqtt_plant, bucket, say
):
    await in_a_bucket(mqtt_plant, bucket, "1s")
    status, headrace = mqtt_plant.headrace.status, mqtt_plant.headrace
    await mqtt_plant.publish(100)
    await mqtt_plant.until(lambda: status()["store"]["samples"] == 100)
    with bucket.server.away():
        await mqtt_plant.publish(200)
        await mqtt_plant.until(lambda: status()["samples"]["received"] == 300)
        await mqtt_plant.until(lambda: "can't be reached" in status()["store"].get("problem", ""))
        await mqtt_plant.publish(50)
        await mqtt_plant.until(lambda: status()["samples"]["received"] == 350)
    await mqtt_plant.until(lambda: status()["store"]["samples"] == 350)
    await mqtt_plant.until(lambda: "problem" not in status()["store"])
    await mqtt_plant.publish(50)
    await mqtt_plant.until(lambda: status()["samples"]["received"] == 400)
    headrace.kill()
    assert counts(headrace.store) == list(range(400))  # some in the bucket, the rest in the journal
    # The next who opens the store finishes what was begun.
    table, plant = write_table(headrace.folder), headrace.folder / "plant.toml"
    code, _, said = await asyncio.to_thread(say, "import", table, "-t", plant, *IMPORT)
    assert code == 0, said
    assert counts(bucket.url) == list(range(400))
    assert LocalDisk(headrace.store).list("segments") == []
    assert verify_store(CloudDisk(bucket.url), Store.open(CloudDisk(bucket.url))).is_sound
    assert Store.open(CloudDisk(bucket.url)).status().n_samples == 400 + 1_200
