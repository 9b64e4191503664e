"""Backups of a store that does not keep still: all that was acknowledged before is in them, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.core.clock import NS, VirtualClock
from headrace.core.disk import Disk, LocalDisk
from headrace.core.errors import ConfigError, CorruptionError, Unreachable
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.tier_settings import TierSection
from headrace.ingest.journal import JournalSettings
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.backup import Backup, BackupReport, back_up
from headrace.runtime.host import Host, HostSettings
from headrace.runtime.reader import open_store
from headrace.runtime.restoring import check_backup, check_catalogued, fill, open_catalogue, restore
from headrace.runtime.soundness import verify_folder
from headrace.sim.disk import SimulatedDisk
from headrace.sim.faults import Crashed, SeededFaults
from headrace.store.backups import read_catalogue
from headrace.store.cloud import CloudDisk
from headrace.store.compactor import CompactionPolicy, Compactor
from headrace.store.disks import SplitDisk, mark_folder, open_disk
from headrace.store.tiers import TierRules
from headrace.testing.hosts import flush_all, work_off
from headrace.testing.plants import hand_fed_plant

T0 = 1_767_225_600 * NS
PAIR = Layout("f64", (Column("a"), Column("b")))
SECONDS = FlowSpec(
    "seconds", "**", ({"op": "window", "every": "1s", "agg": ["count"]},), "{parent}/{signal}_{agg}_1s"
)
N = 6


class Life:
    """A host on a disk, stepped by hand; what it was fed is acknowledged when `feed` returns."""

    def __init__(self, disk: Disk, nonce: int = 1) -> None:
        self.disk, self.clock = disk, VirtualClock(T0)
        settings = HostSettings(nonce=nonce, threads=1, journal=JournalSettings(object_bytes=4_096))
        self.host = Host(
            self.disk, self.clock, [SECONDS], settings=settings, on_failed=lambda e: pytest.fail(repr(e))
        )
        self.host.catch_up()
        self.slots = self.host.directory.define_many([f"plant/hall/d{i}" for i in range(N)], PAIR)
        self.compactor = Compactor(self.host.store, self.clock, policy=CompactionPolicy(grace_s=0.0))
        self.n = len(self.values()[0])

    def feed(self, n: int) -> None:
        for i in range(self.n, self.n + n):
            ts_ns = T0 + i * NS // 4
            self.host.core.offer(
                FrameBatch.dense(self.slots, np.full(N, ts_ns), np.full((N, 2), float(i)), arrival_ns=T0)
            )
            self.clock.set_ns(ts_ns)
            self.host.core.tick()
        self.n += n
        self.host.core.commit()
        work_off(self.host)

    def flush(self) -> None:
        flush_all(self.host)

    def compact(self) -> None:
        assert self.compactor.run_once(force=True).problems == []

    def values(self) -> list[list[float]]:
        """Of every device, what a query gives, in time order."""
        answer = self.host.store.query("plant/hall/*/a", T0 - NS, T0 + 10**6 * NS, tail=self.host.tail)
        assert answer.missing == ()
        rows = answer.to_rows()
        paths = sorted({row["path"] for row in rows}) or [""]
        return [[row["value"] for row in rows if row["path"] == path] for path in paths]

    def counts(self) -> list[float]:
        answer = self.host.store.query("**/a_count_1s", T0 - NS, T0 + 10**6 * NS, tail=self.host.tail)
        return [row["value"] for row in answer.to_rows()]


class RestlessDisk:
    """A disk on which the store goes on whenever a file is read."""

    def __init__(self, life: Life, every: int) -> None:
        self.life, self.every, self.n_reads, self.n_changes = life, every, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.life.disk, name)

    def read(self, path: str) -> memoryview:
        self.n_reads += 1
        # More seldom while it is read what there is, or no two listings would be the same.
        every = self.every + 17 * path.startswith(("commits", "manifests"))
        if self.n_reads % every == 0 and self.n_changes < 12:
            self.n_changes += 1
            self.life.feed(2)
            self.life.flush()
            if self.n_changes % 3 == 0:
                self.life.compact()
        return self.life.disk.read(path)


def copied(target: Disk, nonce: int = 99) -> Life:
    new = SimulatedDisk(nonce)
    catalogue = read_catalogue(target)
    assert check_catalogued(target, catalogue).harms == []
    fill(new, target, catalogue, lambda n, total, path: None)
    assert verify_folder(new).harms == []
    return Life(new, nonce)


def is_whole(life: Life, at_least: int) -> bool:
    """Every device has each sample once, and at least those; pipelines go on over the seam."""
    one = life.values()
    assert len(one) == N
    for values in one:
        assert values == [float(i) for i in range(len(values))]
        assert len(values) >= at_least
    before = life.n
    life.feed(8)
    life.flush()
    life.compact()
    assert life.values() == [[float(i) for i in range(before + 8)]] * N
    # A second is closed by what comes after it; what was counted is all there, once.
    counts = life.counts()
    assert counts
    assert set(counts) == {4.0}
    return True


def lived(disk: Disk) -> Life:
    """A store with hot and warm segments, a trimmed journal, and a tail in it."""
    made = Life(disk)
    for n in (20, 4):
        made.feed(n)
        made.flush()
    made.compact()
    made.feed(8)
    made.flush()
    made.feed(5)
    return made


@pytest.fixture
def life() -> Life:
    return lived(SimulatedDisk(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same in a folder."""
    life = lived(SimulatedDisk(1))
    disk = LocalDisk(tmp_path / "store")
    for path in life.disk.list(""):
        file = disk.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(life.disk.read(path))
    return disk.root


def test_a_backup_is_what_the_store_was(life: Life) -> None:
    told: list[str] = []
    target = SimulatedDisk(2)
    report = Backup(life.disk, target, life.clock, lambda n, total, path: told.append(path)).take()
    assert report.problems == []
    assert (report.n_rounds, report.n_copied) == (1, len(told))
    catalogue = read_catalogue(target)
    assert catalogue.taken_ns == life.clock.now_ns()
    assert report.n_files == len(catalogue.files)
    assert {path.split("/")[0] for path in catalogue.files} == {
        "commits", "manifests", "segments", "state", "directory", "journal",
    }  # fmt: skip
    assert is_whole(copied(target), 37)


@pytest.mark.parametrize("every", [1, 3, 7])
def test_it_is_so_whatever_the_store_does_meanwhile(life: Life, every: int) -> None:
    n_acked, target = life.n, SimulatedDisk(2)
    report = Backup(RestlessDisk(life, every), target, life.clock).take()
    assert report.problems == []
    assert life.n > n_acked
    if every == 1:
        assert report.n_rounds > 1
    assert is_whole(copied(target), n_acked)
    # The next one is of the same store and copies what is new.
    n_acked = life.n
    again = Backup(RestlessDisk(life, every), target, life.clock).take()
    assert again.problems == []
    assert again.n_copied < report.n_copied
    assert is_whole(copied(target), n_acked)


def test_a_second_backup_copies_only_what_is_new(life: Life) -> None:
    target = SimulatedDisk(2)
    first = Backup(life.disk, target, life.clock).take()
    idle = Backup(life.disk, target, life.clock).take()
    assert (idle.n_copied, idle.n_removed, idle.n_files) == (0, 0, first.n_files)
    life.feed(3)
    life.flush()
    life.feed(1)
    told: list[str] = []
    second = Backup(life.disk, target, life.clock, lambda n, total, path: told.append(path)).take()
    assert len(told) == len(set(told)) == second.n_copied
    assert {path.split("/")[0] for path in told} == {"segments", "commits", "state", "journal"}
    life.compact()
    third = Backup(life.disk, target, life.clock).take()
    assert third.n_removed > 0  # what was compacted leaves the backup too
    assert set(target.list("files")) == {one.place for one in read_catalogue(target).files.values()}
    assert is_whole(copied(target), 41)


@pytest.mark.parametrize("after", [{"rollups": "30d"}, {"cold": "20d", "rollups": "30d"}])
def test_rollups_are_in_it_and_answer_alone_where_samples_are_gone(life: Life, after: dict[str, str]) -> None:
    life.flush()
    sections = {
        "gone": {"match": "plant/hall/d0/a", "after": after},
        "rest": {"match": "**", "after": {"rollups": "9y"}},
    }
    rules = TierRules({name: TierSection.model_validate(one) for name, one in sections.items()})
    life.clock.set_ns(T0 + 100 * 86_400 * NS)
    for _ in range(2):
        compactor = Compactor(life.host.store, life.clock, policy=CompactionPolicy(grace_s=0.0), rules=rules)
        assert compactor.run_once().problems == []

    def answers(one: Life) -> list[Any]:
        span = T0 - NS, T0 + 86_400 * NS
        asked: list[Any] = [
            ("plant/hall/*/a", *span, 60 * NS, ("count", "max", "last")),
            ("plant/hall/d0/*", *span),
        ]
        found = [one.host.store.query(*ask) for ask in asked]
        return [(each.missing, each.resolution_ns, each.to_rows()) for each in found]

    before, view = answers(life), life.host.store.refresh()
    assert [one[1] for one in before] == [0, 60 * NS]
    assert before[0][2][0]["count"] == life.n
    assert 0 < len(view.alone) < sum(map(len, view.rolled.values()))
    target = SimulatedDisk(2)
    assert Backup(life.disk, target, life.clock).take().problems == []
    again = copied(target)
    assert (again.host.store.refresh().rolled, answers(again)) == (view.rolled, before)
    (name,) = view.alone
    target.delete(read_catalogue(target).files[name].place)
    assert [harm.name for harm in check_catalogued(target, read_catalogue(target)).harms] == [name]
    life.disk.delete(name)
    assert [harm.name for harm in verify_folder(life.disk).harms] == [name]


def test_a_backup_that_is_cut_leaves_the_one_before_as_it_was(life: Life) -> None:
    target = SimulatedDisk(2)
    Backup(life.disk, target, life.clock).take()
    expected, n_cut = 37, 0
    for seed in range(6):
        life.feed(1)
        life.flush()
        life.feed(1)
        target.faults = SeededFaults(seed, 12)
        try:
            Backup(life.disk, target, life.clock).take()
        except Crashed:
            n_cut += 1
        else:
            expected = life.n
        target = target.crash()
        new = copied(target)
        assert [len(values) for values in new.values()] in ([expected] * N, [life.n] * N)
        expected = new.n
    assert n_cut > 1
    Backup(life.disk, target, life.clock).take()
    assert is_whole(copied(target), life.n)


KILLED = """
import os, signal, sys
from pathlib import Path
from headrace.core.clock import SystemClock
from headrace.runtime.backup import back_up
n = int(sys.argv[3])
def tell(done, total, path):
    global n
    n -= 1
    if n < 0:
        os.kill(os.getpid(), signal.SIGKILL)
back_up(Path(sys.argv[1]), Path(sys.argv[2]), SystemClock(), tell)
"""


def test_kill_9_harms_no_backup_and_the_next_one_goes_on(folder: Path, tmp_path: Path) -> None:
    to, clock = tmp_path / "to", VirtualClock(T0)

    def killed(at: int) -> None:
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(to), str(at)], check=False)
        assert done.returncode == -signal.SIGKILL

    killed(9)
    with pytest.raises(Unreachable, match="is no backup"):
        open_catalogue(to)
    report = back_up(folder, to, clock)
    assert report.n_copied <= report.n_files - 9  # what was there is not copied again
    assert check_backup(to).harms == []
    (folder / "audit.jsonl").write_text("{}\n")
    for name in ("a", "b", "c", "d"):
        (folder / "config").mkdir(exist_ok=True)
        (folder / "config" / name).write_text(name)
    killed(3)
    assert check_backup(to).harms == []
    assert "audit.jsonl" not in open_catalogue(to).files
    back_up(folder, to, clock)
    restore(to, tmp_path / "new")
    assert (tmp_path / "new" / "audit.jsonl").read_text() == "{}\n"
    assert verify_folder(LocalDisk(tmp_path / "new")).harms == []


def test_what_a_cut_backup_left_is_not_taken_for_what_has_its_name_now(life: Life) -> None:
    target = SimulatedDisk(2)
    Backup(life.disk, target, life.clock).take()
    # A store that was restored, and goes another way than the one that the cut backup was of.
    other = copied(target)
    other.feed(4)
    other.flush()
    for path in other.disk.list("segments"):
        target.put_if_absent(f"files/{path}", b"something else")
    assert Backup(other.disk, target, other.clock).take().problems == []
    assert is_whole(copied(target), 41)


def test_damage_is_told_and_no_good_copy_is_lost_to_it(life: Life) -> None:
    target, disk = SimulatedDisk(2), life.disk
    Backup(disk, target, life.clock).take()
    hot, warm = disk.list("segments/hot")[-1], disk.list("segments/warm")[0]
    disk.delete(hot)
    disk.truncate(warm, disk.size(warm) - 1)
    report = Backup(disk, target, life.clock).take()
    told = " ".join(sorted(report.problems))
    assert f"{hot} is missing in the store; the backup still has it" in told
    assert f"{warm} was damaged since it was copied; the backup keeps what it was" in told
    assert read_catalogue(target).problems == tuple(report.problems)
    assert is_whole(copied(target), 37)
    fresh = Backup(disk, SimulatedDisk(3), life.clock).take()
    damaged, missing = sorted(fresh.problems)
    assert missing == f"{hot} is missing in the store"
    assert f"damaged in the store: {warm}: its content has another checksum" in damaged


@pytest.mark.parametrize("what", ["commits", "segments", "journal"])
def test_a_damaged_backup_is_not_restored(folder: Path, tmp_path: Path, what: str) -> None:
    to, clock = tmp_path / "to", VirtualClock(T0)
    back_up(folder, to, clock)
    victim = next(p for p in sorted((to / "files" / what).rglob("*")) if p.is_file())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    (harm,) = check_backup(to).harms
    assert "take the backup anew" in harm.sentence
    with pytest.raises(CorruptionError, match="is damaged"):
        restore(to, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "to"]
    victim.unlink()
    assert "is missing" in check_backup(to).harms[0].sentence
    # As long as the store is there, the next backup mends it.
    assert back_up(folder, to, clock).problems == []
    assert check_backup(to).harms == []


def test_folders_that_can_be_no_backup_or_no_store_are_refused(folder: Path, tmp_path: Path) -> None:
    to, clock = tmp_path / "to", VirtualClock(T0)
    with pytest.raises(Unreachable, match="holds no store"):
        back_up(tmp_path, to, clock)
    for wrong in (folder / "backup", folder, tmp_path):
        with pytest.raises(ConfigError, match="one in the other"):
            back_up(folder, wrong, clock)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"letter\.txt and is no backup"):
        back_up(folder, tmp_path / "full", clock)
    with pytest.raises(ConfigError, match="is a file"):
        back_up(folder, tmp_path / "full" / "letter.txt", clock)
    back_up(folder, to, clock)
    with pytest.raises(ConfigError, match="is not empty"):
        restore(to, tmp_path / "full")
    with pytest.raises(Unreachable, match="is no backup"):
        restore(tmp_path / "full", tmp_path / "new")


def test_a_damaged_catalogue_says_how_to_go_on(life: Life) -> None:
    target = SimulatedDisk(2)
    first = Backup(life.disk, target, life.clock).take()
    target.flip_bit("catalogue.json", 99)
    with pytest.raises(CorruptionError, match=r"delete catalogue\.json and take the backup anew"):
        Backup(life.disk, target, life.clock).take()
    target.delete("catalogue.json")
    again = Backup(life.disk, target, life.clock).take()
    assert (again.n_files, again.n_copied) == (first.n_files, 0)
    assert is_whole(copied(target), 37)


def test_the_backup_of_another_store_is_left_alone(life: Life) -> None:
    target = SimulatedDisk(2)
    Backup(life.disk, target, life.clock).take()
    young = Life(SimulatedDisk(5))
    young.feed(1)
    young.flush()
    with pytest.raises(ConfigError, match="begun anew, or is another one"):
        Backup(young.disk, target, life.clock).take()
    for _ in range(4):
        young.feed(1)
        young.flush()
    with pytest.raises(ConfigError, match="it is of another store"):
        Backup(young.disk, target, life.clock).take()
    assert is_whole(copied(target), 37)


# --- a whole plant, and the commands ---------------------------------------------------------------------


async def test_a_plant_is_backed_up_while_it_takes_in(tmp_path: Path) -> None:
    clock = VirtualClock(T0)
    text = '[store]\nflush_interval = "1s"\n'
    plant, hand = hand_fed_plant(tmp_path, text, clock=clock)
    await plant.start()
    slots = hand.define([f"plant/d{i}" for i in range(N)])

    async def feed(first: int, n: int) -> None:
        for i in range(first, first + n):
            await hand.emit(slots, T0 + i * NS, np.full((N, 2), float(i)))
            await hand.reject()
            clock.set_ns(T0 + i * NS)
            await asyncio.sleep(0)
        await plant.intake.drain()

    await feed(0, 10)
    taking = asyncio.create_task(asyncio.to_thread(back_up, tmp_path / "store", tmp_path / "to", clock))
    n = 10
    while not taking.done():
        await feed(n, 5)
        n += 5
    report: BackupReport = await taking
    assert report.problems == []
    await plant.stop()
    restore(tmp_path / "to", tmp_path / "copy" / "store")
    assert not (tmp_path / "copy" / "store" / "running.json").exists()
    again, hand = hand_fed_plant(tmp_path / "copy", text, clock=clock)
    await again.start()
    await again.stop()
    rows = (
        open_store(tmp_path / "copy" / "store")
        .query("plant/d0/a", from_="2026-01-01", to="2026-01-03")
        .to_rows()
    )
    values = [row["value"] for row in rows]
    assert values == [float(i) for i in range(len(values))]
    assert 10 <= len(values) <= n


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*words: str) -> tuple[int, str]:
        return run_command(words), capsys.readouterr().out

    to, new = str(tmp_path / "to"), str(tmp_path / "new")
    code, out = command("store", "backup", "-t", str(folder), "--to", to, "--verify", "--json")
    facts = json.loads(out)
    assert (code, facts["problems"], facts["is_verified"]) == (Exit.DONE, [], True)
    assert facts["files"] == facts["copied_files"]
    code, out = command("store", "backup", "-t", str(folder), "--to", to, "--verify")
    assert "0 copied" in out
    assert "read and sound" in out
    code, out = command("store", "verify", "-t", to)
    assert (code, "sound" in out) == (Exit.DONE, True)
    assert command("query", "**", "-t", to)[0] == Exit.UNREACHABLE
    code, out = command("store", "restore", to, "--to", new, "--json")
    assert (code, json.loads(out)["files"]) == (Exit.DONE, facts["files"])
    code, out = command("store", "restore", to, "--to", new)
    assert code == Exit.CONFIG
    victim = next(p for p in sorted((Path(to) / "files").rglob("*.parquet")))
    victim.write_bytes(b"")
    code, out = command("store", "verify", "-t", to, "--json")
    assert (code, len(json.loads(out)["damages"])) == (Exit.FAILED, 1)
    assert read_catalogue(LocalDisk(to)).last > (0, 0)


# --- stores and backups in buckets ----------------------------------------------------------------------


def in_bucket(folder: Path, url: str) -> SplitDisk:
    """A store with its journal in a folder."""
    found = SplitDisk(LocalDisk(folder), CloudDisk(url), {"url": url, "options": {}})
    mark_folder(found)
    return found


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_store_in_a_bucket_is_copied_while_it_goes_on(bucket: Any, tmp_path: Path, place: str) -> None:
    disk = in_bucket(tmp_path / "journal", f"{bucket.url}/store")
    life = lived(disk)
    target: Disk = LocalDisk(tmp_path / "to") if place == "folder" else CloudDisk(f"{bucket.url}/backup")
    n_acked = life.n
    report = Backup(RestlessDisk(life, 5), target, life.clock).take()
    assert report.problems == []
    assert life.n > n_acked
    catalogue = read_catalogue(target)
    assert {path.split("/")[0] for path in catalogue.files} == {
        "commits", "manifests", "segments", "state", "directory", "journal",
    }  # fmt: skip
    assert is_whole(copied(target), n_acked)
    # The next one copies what is new.
    n_acked = life.n
    again = Backup(life.disk, target, life.clock).take()
    assert 0 < again.n_copied < report.n_copied
    assert again.n_removed > 0
    assert set(target.list("files")) == {one.place for one in read_catalogue(target).files.values()}
    assert Backup(life.disk, target, life.clock).take().n_copied == 0
    assert is_whole(copied(target), n_acked)


def test_a_store_in_a_folder_moves_into_a_bucket_by_a_backup_in_another(
    folder: Path, bucket: Any, tmp_path: Path
) -> None:
    to, place = f"{bucket.url}/backup", {"url": f"{bucket.url}/store", "options": {}}
    (folder / "audit.jsonl").write_text("{}\n")
    assert back_up(folder, to, VirtualClock(T0)).problems == []
    assert check_backup(to).harms == []
    new = SplitDisk(LocalDisk(tmp_path / "new"), CloudDisk(f"{bucket.url}/store"), place)
    seen: list[int] = []

    def tell(n: int, total: int, path: str) -> None:
        seen.append(len(new.objects.list("commits")))

    restore(to, new, tell)
    assert seen[-1] == max(seen) > 0
    assert not any(seen[: -seen[-1] - 1]), "a commit was there before what it names"
    assert (tmp_path / "new" / "audit.jsonl").read_text() == "{}\n"
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"audit.jsonl", "journal", "store.json"}
    found = open_disk(tmp_path / "new")
    assert verify_folder(found).harms == []
    assert is_whole(Life(found, 7), 37)
    # What has begun there is not taken for an empty place.
    empty = SplitDisk(LocalDisk(tmp_path / "other"), new.objects, place)
    with pytest.raises(ConfigError, match=r"store holds .*; name a prefix with nothing below it"):
        restore(to, empty)
    assert verify_folder(found).harms == []


def test_a_restore_to_a_bucket_that_is_cut_is_gone_on_with_and_of_a_damaged_backup_nothing_is_made(
    folder: Path, bucket: Any, tmp_path: Path
) -> None:
    to, url = tmp_path / "to", f"{bucket.url}/store"
    back_up(folder, to, VirtualClock(T0))

    def new() -> SplitDisk:
        return SplitDisk(LocalDisk(tmp_path / "new"), CloudDisk(url), {"url": url, "options": {}})

    def cut(n: int, total: int, path: str) -> None:
        if n == total - 1:
            raise Crashed("the power fails")

    with pytest.raises(Crashed):
        restore(to, new(), cut)
    assert len(new().objects.list("segments")) > 0
    assert not (tmp_path / "new").exists()
    victim = next(iter(sorted((to / "files" / "segments").rglob("*.parquet"))))
    sound = victim.read_bytes()
    victim.write_bytes(sound[:-1] + b"?")
    with pytest.raises(CorruptionError, match="is damaged"):
        restore(to, new())
    victim.write_bytes(sound)
    restore(to, new())
    assert is_whole(Life(open_disk(tmp_path / "new"), 7), 37)
    other = SplitDisk(LocalDisk(tmp_path / "x"), CloudDisk(f"{bucket.url}/x"), {"url": "", "options": {}})
    victim.write_bytes(sound[:-1] + b"?")
    with pytest.raises(CorruptionError, match="is damaged"):
        restore(to, other)
    assert other.objects.list("") == []
    assert not (tmp_path / "x").exists()


def test_of_two_backups_into_a_bucket_at_a_time_the_first_to_end_counts(life: Life, bucket: Any) -> None:
    target = CloudDisk(f"{bucket.url}/backup")
    for _ in range(2):  # into an empty one, and into one with an earlier backup
        life.feed(2)
        life.flush()
        slow = Backup(life.disk, CloudDisk(f"{bucket.url}/backup"), life.clock)
        life.feed(2)
        life.flush()
        life.compact()
        assert Backup(life.disk, target, life.clock).take().problems == []
        with pytest.raises(Unreachable, match="another backup was put there meanwhile"):
            slow.take()
        assert is_whole(copied(CloudDisk(f"{bucket.url}/backup")), life.n)
    assert Backup(life.disk, target, life.clock).take().problems == []
    assert set(target.list("files")) == {one.place for one in read_catalogue(target).files.values()}


def test_a_bucket_that_is_the_stores_or_holds_something_else_is_refused(bucket: Any, tmp_path: Path) -> None:
    disk = in_bucket(tmp_path / "journal", f"{bucket.url}/store")
    lived(disk)
    for wrong in (f"{bucket.url}/store", f"{bucket.url}/store/backup", bucket.url):
        with pytest.raises(ConfigError, match="one in the other"):
            back_up(disk, wrong, VirtualClock(T0))
    CloudDisk(f"{bucket.url}/full").put_if_absent("letter.txt", b"dear")
    with pytest.raises(ConfigError, match=r"letter\.txt and is no backup"):
        back_up(disk, f"{bucket.url}/full", VirtualClock(T0))
    with pytest.raises(Unreachable, match="is no backup"):
        open_catalogue(f"{bucket.url}/full")
    with pytest.raises(Unreachable, match="holds no store"):
        back_up(CloudDisk(bucket.url), f"{bucket.url}/backup", VirtualClock(T0))
    # Named by its folder, it is found whole.
    assert back_up(tmp_path / "journal", f"{bucket.url}/backup", VirtualClock(T0)).problems == []
    assert check_backup(f"{bucket.url}/backup").harms == []


def test_the_commands_of_stores_and_backups_in_buckets(
    bucket: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lived(in_bucket(tmp_path / "one", f"{bucket.url}/one"))
    backup = f"{bucket.url}/backup"

    def plant(name: str) -> str:
        file = tmp_path / f"{name}.toml"
        text = f'[store]\nurl = "{bucket.url}/{name}"\nfolder = "./{name}"\n'
        options = f'[store.options]\nendpoint = "{bucket.server.endpoint}"\n'
        file.write_text(
            f'version = 1\n[plant]\nlevels = ["site", "area", "device", "signal"]\n{text}{options}'
        )
        return str(file)

    def command(*words: str) -> tuple[int, str, str]:
        code = run_command(words)
        return (code, *capsys.readouterr())

    code, out, err = command("store", "backup", "-t", plant("one"), "--to", backup, "--verify", "--json")
    assert code == Exit.DONE, (out, err)
    facts = json.loads(out)
    assert (facts["problems"], facts["is_verified"], facts["to"]) == ([], True, backup)
    code, out, _ = command("store", "verify", "-t", backup)
    assert (code, f"{facts['files']} files" in out, "sound" in out) == (Exit.DONE, True, True)
    code, _, err = command("query", "**", "-t", backup)
    assert (code, f"{backup} is a backup; make a store of it" in err) == (Exit.UNREACHABLE, True)
    code, _, err = command("store", "restore", backup, "--to", f"{bucket.url}/two")
    assert (code, "name a plant file whose [store] says both" in err) == (Exit.CONFIG, True)
    code, out, err = command("store", "restore", backup, "--to", plant("two"), "--json")
    assert (code, json.loads(out)["files"]) == (Exit.DONE, facts["files"]), err
    span = ("--from", "2025-12-31", "--to", "2026-02-01", "--agg", "count", "--every", "60d", "--json")
    rows = [
        json.loads(command("query", "plant/hall/*/a", "-t", plant(x), *span)[1])["rows"]
        for x in ("one", "two")
    ]
    assert rows[0] == rows[1] != []
    code, out, _ = command("store", "verify", "-t", plant("two"))
    assert (code, "sound" in out) == (Exit.DONE, True)
    code, _, err = command("store", "restore", backup, "--to", plant("two"))
    assert (code, "is not empty" in err) == (Exit.CONFIG, True), err


# --- verify ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("commits/*/00000002.json", "restore it from a backup"),
        ("manifests/warm/*/*.json", "restore it from a backup"),
        ("state/*/*.bin", "--skip-damaged"),
        ("directory/*.parquet", "restore it from a backup"),
        ("journal/*/*.hrj", "--skip-damaged"),
        ("segments/warm/*/*.parquet", "restore it from a backup"),
    ],
)
def test_verify_names_whatever_is_damaged_or_missing(life: Life, pattern: str, sentence: str) -> None:
    disk = life.disk
    assert verify_folder(disk).harms == []
    used = {position.state_path for position in life.host.store.refresh().commits.shards.values()}
    victim = next(
        p for p in disk.list("") if fnmatch(p, pattern) and (p in used or not p.startswith("state"))
    )
    sound = bytes(disk.read(victim))
    disk.flip_bit(victim, len(sound) // 4)
    harms = verify_folder(disk).harms
    assert any(sentence in harm.sentence for harm in harms), harms
    disk.delete(victim)
    if not pattern.startswith("manifests"):  # without its manifest a day is what the hot segments have
        harms = verify_folder(disk).harms
        assert any("restore" in harm.sentence for harm in harms), harms
    disk.replace(victim, sound)
    assert verify_folder(disk).harms == []
