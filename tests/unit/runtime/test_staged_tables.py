"""Tables beside a plant file are written all or none, whatever dies in between."""

import errno
import json
import os
from pathlib import Path

import pytest
from tests.unit.runtime.test_tagging import OVENS, TAGS, files, folder, offline, row  # noqa: F401

from headrace.core.config import load_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, StorageError
from headrace.runtime import staged_tables
from headrace.runtime.assemble import build_plant
from headrace.runtime.staged_tables import StagedTables, finish_tables
from headrace.runtime.tagging import TagWish
from headrace.runtime.versions import Versions


class Killed(BaseException):
    """The process is gone: nothing of it tidies up."""


@pytest.fixture
def kill_at(monkeypatch):
    """Dies, or meets a disk that refuses, at the n-th time that a table gets its name or goes."""

    def set_up(n, error=Killed):
        n_left = [n]
        put = staged_tables._put

        def counted(file, text):
            n_left[0] -= 1
            if n_left[0] == 0:
                raise error
            put(file, text)

        monkeypatch.setattr(staged_tables, "_put", counted)

    return set_up


def die(folder, n, kill_at, monkeypatch):  # noqa: F811
    kill_at(n)
    with pytest.raises(Killed):
        offline(folder).apply(TagWish([row()]), "ann")
    monkeypatch.undo()


@pytest.mark.parametrize("n", [1, 2])
def test_a_change_that_was_cut_short_is_ended_by_the_next_start(folder, n, kill_at, monkeypatch):  # noqa: F811
    die(folder, n, kill_at, monkeypatch)
    assert (files(folder)["ovens-tags.csv"] != TAGS) + (files(folder)["ovens.csv"] != OVENS) == n - 1
    plant = build_plant(load_plant(folder / "plant.toml"))
    told = [event.text for _, event in plant.events.since(0) if event.kind == "config.finished"]
    assert len(told) == 3 - n
    assert all("and is now as it was to be" in text for text in told)
    assert sorted(files(folder)) == ["ovens-tags.csv", "ovens.csv", "plant.toml"], "nothing is left behind"
    assert "o2" in files(folder)["ovens.csv"]
    assert "force,holding:1" in files(folder)["ovens-tags.csv"]
    assert finish_tables(load_plant(folder / "plant.toml")) == []


def test_without_an_engine_it_is_ended_too(folder, kill_at, monkeypatch, caplog):  # noqa: F811
    die(folder, 2, kill_at, monkeypatch)
    answer = offline(folder).apply(TagWish([row()]), "ann")
    assert (answer["applied"], answer["changes"]) == (False, []), "it is as wished already"
    assert "and is now as it was to be" in caplog.text


def test_what_somebody_has_changed_since_stays(folder, kill_at, monkeypatch):  # noqa: F811
    die(folder, 1, kill_at, monkeypatch)
    (folder / "ovens.csv").write_text("path,url\n")
    told = finish_tables(load_plant(folder / "plant.toml"))
    assert [text for text in told if "somebody has changed it since" in text]
    assert files(folder)["ovens.csv"] == "path,url\n"
    assert "force" in files(folder)["ovens-tags.csv"]


def test_an_engine_that_may_be_at_it_is_left_alone(folder, kill_at, monkeypatch):  # noqa: F811
    die(folder, 2, kill_at, monkeypatch)
    before, disk = files(folder), LocalDisk(folder / "store")
    disk.lock()
    with pytest.raises(StorageError, match="is in use"):
        finish_tables(load_plant(folder / "plant.toml"))
    disk.unlock()
    assert files(folder) == before


def test_a_note_that_is_damaged_is_told(folder):  # noqa: F811
    note = folder / ".headrace-tables.7.json"
    for text in ("{", "[]", json.dumps({"tables": {"ovens.csv": {}}})):
        note.write_text(text)
        with pytest.raises(
            ConfigError, match=r"headrace-tables\.7\.json says .* can't be read .* then delete it"
        ):
            build_plant(load_plant(folder / "plant.toml"))


def test_a_disk_that_refuses_at_the_start_is_told(folder, kill_at, monkeypatch):  # noqa: F811
    die(folder, 2, kill_at, monkeypatch)
    kill_at(1, OSError(errno.ENOSPC, ""))
    with pytest.raises(StorageError, match="the disk is full"):
        finish_tables(load_plant(folder / "plant.toml"))


@pytest.mark.parametrize("n", [1, 2])
def test_a_commit_that_fails_leaves_all_as_it_was(folder, n, kill_at, monkeypatch):  # noqa: F811
    (folder / "ovens.csv").write_bytes(OVENS.replace("\n", "\r\n").encode())
    offline(folder).apply(TagWish([row("leon/o3/t", "modbus+tcp://h?unit=3")]), "ann")
    for wanted in (
        lambda: offline(folder).apply(TagWish([row()]), "ann"),
        lambda: offline(folder).undo("ann"),
    ):
        before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        kill_at(n, OSError(errno.ENOSPC, ""))
        with pytest.raises(StorageError, match="the disk is full"):
            wanted()
        monkeypatch.undo()
        assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_version_that_is_not_kept_takes_its_tables_with_it(folder, monkeypatch):  # noqa: F811
    offline(folder).apply(TagWish([row()]), "ann")
    before = files(folder)

    def refuse(*_, **more):
        raise StorageError("the disk is full")

    monkeypatch.setattr(Versions, "add", refuse)
    for wanted in (
        lambda: offline(folder).apply(TagWish([row("leon/o3/t")]), "ann"),
        lambda: offline(folder).undo("ann"),
    ):
        with pytest.raises(StorageError, match="the disk is full"):
            wanted()
        assert files(folder) == before


def test_a_disk_that_takes_nothing_back_is_told_and_the_note_stays(folder, kill_at, monkeypatch, caplog):  # noqa: F811
    kill_at(2, OSError(errno.EROFS, ""))

    def refuse(file, data):
        raise OSError(errno.EROFS, "read-only")

    staged = StagedTables(
        folder, {"ovens.csv": "a", "ovens-tags.csv": "b"}, {"ovens.csv": OVENS, "ovens-tags.csv": TAGS}
    )
    staged.stage()
    monkeypatch.setattr(staged_tables, "_write", refuse)
    with pytest.raises(StorageError, match="read-only"):
        staged.commit()
    assert "its tables may be half changed, and can't be put back" in caplog.text
    assert [name for name in files(folder) if name.startswith(".headrace-tables.")]
    monkeypatch.undo()
    finish_tables(load_plant(folder / "plant.toml"))
    assert (files(folder)["ovens.csv"], files(folder)["ovens-tags.csv"]) == ("a", "b")


def test_what_was_staged_goes_where_it_can_not_be_written(folder):  # noqa: F811
    before = files(folder)
    with pytest.raises(ConfigError, match=r"ovens.csv was changed by somebody else and is not what runs"):
        StagedTables(folder, {"ovens.csv": "x"}, {"ovens.csv": "path\n"})
    staged = StagedTables(folder, {"ovens.csv": "a", "ovens.csv/x.csv": "b"}, {"ovens.csv": OVENS})
    with pytest.raises(StorageError, match="can't write"):
        staged.stage()
    assert files(folder) == before
    staged = StagedTables(folder, {"sub/new.csv": "a"}, {})
    staged.stage()
    (folder / "sub" / "new.csv").mkdir()
    with pytest.raises(StorageError, match="can't write"):
        staged.commit()
    assert os.listdir(folder / "sub") == ["new.csv"]


def test_tables_are_durable_before_the_version_that_has_them(folder, monkeypatch):  # noqa: F811
    """Else a start after a power failure reads the old ones, and takes back what was applied."""
    synced = []

    def sync(where):
        known = Versions(LocalDisk(folder / "store")).numbers()
        synced.append((where, len(known), "o2" in (folder / "ovens.csv").read_text()))

    monkeypatch.setattr(staged_tables, "sync_folder", sync)
    offline(folder).apply(TagWish([row()]), "ann")
    offline(folder).undo("ann")
    assert synced == [(folder, 1, True)] * 2 + [(folder, 2, False)] * 2, "tables, then that the note is gone"
    gone = StagedTables(folder, {"sub/gone.csv": None}, {})
    gone.commit()  # its folder is gone already
    refusal = OSError(5, "")
    monkeypatch.setattr(staged_tables, "sync_folder", lambda where: (_ for _ in ()).throw(refusal))
    with pytest.raises(StorageError, match="can't write"):
        StagedTables(folder, {"gone.csv": None}, {}).commit()


def test_names_in_a_note_are_below_the_plant_file(folder):  # noqa: F811
    """A note beside tables of a folder of their own is found there."""
    (folder / "sub").mkdir()
    plant = (
        (folder / "plant.toml")
        .read_text()
        .replace("ovens", "sub/ovens")
        .replace("adapters.sub/", "adapters.")
    )
    (folder / "plant.toml").write_text(plant)
    for name in ("ovens.csv", "ovens-tags.csv"):
        (folder / name).rename(folder / "sub" / name)
    note = Path(folder / "sub" / ".headrace-tables.1.json")
    note.write_text(json.dumps({"tables": {"sub/ovens.csv": {"from": OVENS, "to": None}}}))
    assert len(finish_tables(load_plant(folder / "plant.toml"))) == 1
    assert os.listdir(folder / "sub") == ["ovens-tags.csv"]
