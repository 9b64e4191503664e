"""What a tag table changes in a plant that does not run: plans, files, versions, and back."""

from __future__ import annotations

import pytest

from headrace.core.clock import VirtualClock
from headrace.core.config import load_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, NotFound, StorageError
from headrace.core.problems import InvalidConfig
from headrace.ingest.tag_rows import TagRow
from headrace.runtime.offline_tags import OfflineTags
from headrace.runtime.tagging import PROBLEMS_SHOWN, TagWish, address_reader, present_rows
from headrace.runtime.versions import Versions

PLANT = """version = 1
[plant]
levels = ["site", "device", "signal"]
[store]
url = "./store"
[profiles.oven]
t = { address = "holding:10:F32", unit = "degC" }
[adapters.ovens]
protocol = "modbus"
profile = "oven"
devices = "ovens.csv"
tags = "ovens-tags.csv"
[adapters.broker]
protocol = "mqtt"
url = "mqtt://h"
[adapters.broker.topics]
"a/{device}" = { path = "leon/{device}/{key}" }
"""
OVENS, TAGS = "path,url\nleon/o1,modbus+tcp://h?unit=1\n", "profile,signal,address\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plant.toml").write_text(PLANT)
    (tmp_path / "ovens.csv").write_text(OVENS)
    (tmp_path / "ovens-tags.csv").write_text(TAGS)
    return tmp_path


def offline(folder):
    return OfflineTags(load_plant(folder / "plant.toml"), VirtualClock(10**18))


def files(folder):
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def row(path="leon/o2/force", url="modbus+tcp://h?unit=2", address="holding:1", **more):
    return TagRow(path=path, url=url, address=address, **more)


def test_applied_and_undone_the_files_are_as_they_were(folder):
    before, told = files(folder), []
    for n, wish in enumerate(
        (
            TagWish([row()]),
            TagWish([row(), row("leon/o2/more", address="holding:2")]),
            TagWish([row()], is_whole=True),
        )
    ):
        trial = offline(folder).apply(wish, "ann", is_trial=True)
        assert not trial["applied"]
        told.append(files(folder))
        done = offline(folder).apply(wish, "ann")
        assert (done["applied"], done["version"]) == (True, n + 2)
        assert done["tags"] == trial["tags"]
    assert told[0] == before
    assert files(folder)["ovens.csv"] == "path,url,profile\nleon/o2,modbus+tcp://h?unit=2,o\n"
    assert "o,force,holding:1" in files(folder)["ovens-tags.csv"]
    for n, expected in enumerate(reversed(told)):
        assert offline(folder).undo("ann", is_trial=True)["applied"] is False
        back = offline(folder).undo("ann")
        assert (back["applied"], back["version"], files(folder)) == (True, n + 5, expected)
    with pytest.raises(NotFound, match="nothing to undo"):
        offline(folder).undo("ann")
    kept = Versions(LocalDisk(folder / "store"))
    assert [kept.get(n).how for n in kept.numbers()] == [
        "start",
        "tags",
        "tags",
        "tags",
        "undo",
        "undo",
        "undo",
    ]


def test_a_new_adapter_begins_with_tables_that_are_not_there(folder):
    text = '[adapters.new]\nprotocol = "modbus"\ndevices = "new.csv"\ntags = "new-tags.csv"\n'
    (folder / "plant.toml").write_text(PLANT + text)
    before = files(folder)
    done = offline(folder).apply(TagWish([row()], "new"), "ann")
    assert done["tables"] == ["new.csv", "new-tags.csv"]
    assert done["tags"]["new"]["devices_added"] == 1
    assert files(folder)["new.csv"] == "path,url,profile\nleon/o2,modbus+tcp://h?unit=2,o\n"
    offline(folder).undo("ann")
    assert files(folder) == before


def test_nothing_that_differs_is_nothing_to_do(folder):
    before = files(folder)
    config = load_plant(folder / "plant.toml")
    rows = present_rows(config)
    assert rows == [
        TagRow("ovens", "leon/o1/t", "modbus+tcp://h?unit=1", "holding:10:F32", dtype="f32", unit="degC")
    ]
    assert present_rows(config, ["broker"]) == []
    with pytest.raises(ConfigError, match="there is no adapter 'oven'; did you mean 'ovens'"):
        present_rows(config, ["oven"])
    done = offline(folder).apply(TagWish(rows), "ann")
    assert (done["applied"], done["tables"], files(folder)) == (False, [], before)
    assert not (folder / "store").exists()


@pytest.mark.parametrize(
    ("rows", "adapter", "said"),
    [
        ([], "", "the table has no rows"),
        ([row(path="leon/o2")], "", "line 2: the path has 2 levels, expected 3"),
        ([row(address="")], "", "line 2: has no address"),
        ([row(url="")], "", "device 'leon/o2' has no url"),
        ([row(adapter="oven")], "", "the plant file has no adapter 'oven'; did you mean 'ovens'"),
        ([row()], "new", r'no adapter .new.* write there: \[adapters.new\] with its protocol, devices = "new.csv"'),
        ([row()], "broker", r'adapters.broker: mqtt knows its signals by rules: for a table .* write tags = "broker-tags.csv"'),
        ([row("leon/o1/t", "", "holding:10:I32")], "", "leon/o1/t: its values would change from f32 to i32; a sensor keeps"),
        ([row(url="modbus+tcp://h?unit=777")], "", "unit is 0 to 255"),
        ([row(more={"colour": "red"})], "", "the profile has no parameter 'colour'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_and_changes_nothing(folder, rows, adapter, said):
    before = files(folder)
    with pytest.raises(ConfigError, match=said):
        offline(folder).apply(TagWish(rows, adapter), "ann")
    assert files(folder) == before
    assert not (folder / "store").exists()


def test_many_problems_are_told_together_but_not_all(folder):
    with pytest.raises(InvalidConfig) as e:
        offline(folder).apply(TagWish([row(path=f"leon/o{n}") for n in range(50)]), "ann")
    assert len(e.value.problems) == PROBLEMS_SHOWN + 1
    assert e.value.problems[-1].message == "and 30 more"


def test_the_adapter_is_asked_for_where_there_are_several(folder):
    more = '[adapters.more]\nprotocol = "modbus"\nprofile = "oven"\ndevices = "more.csv"\n'
    (folder / "plant.toml").write_text(PLANT + more)
    (folder / "more.csv").write_text("path,url\nleon/o9,modbus+tcp://h?unit=9\n")
    with pytest.raises(
        ConfigError, match="say which adapter the rows are for, with --adapter; known: ovens, broker, more"
    ):
        offline(folder).apply(TagWish([row()]), "ann")
    wish = TagWish(
        [
            row(adapter="ovens"),
            row("leon/o8/t", "modbus+tcp://h?unit=8", "holding:10:F32", adapter="more", unit="degC"),
        ]
    )
    done = offline(folder).apply(wish, "ann")
    assert {name: one["devices_added"] for name, one in done["tags"].items()} == {"ovens": 1, "more": 1}
    assert files(folder)["more.csv"].endswith("leon/o8,modbus+tcp://h?unit=8,\n")


def test_a_file_that_somebody_else_changed_is_not_overwritten(folder):
    offline(folder).apply(TagWish([row()]), "ann")
    (folder / "ovens.csv").write_text(OVENS + "leon/o5,modbus+tcp://h?unit=5\n")
    with pytest.raises(ConfigError, match="the plant file or a table was changed since"):
        offline(folder).undo("ann")


def test_a_store_in_use_changes_nothing(folder):
    before = files(folder)
    disk = LocalDisk(folder / "store")
    disk.lock()
    with pytest.raises(StorageError, match="is in use"):
        offline(folder).apply(TagWish([row()]), "ann")
    disk.unlock()
    assert files(folder) == before


def test_a_file_keeps_its_rights(folder):
    (folder / "ovens.csv").chmod(0o640)
    offline(folder).apply(TagWish([row()]), "ann")
    assert (folder / "ovens.csv").stat().st_mode & 0o777 == 0o640


def test_addresses_are_read_by_the_adapter_or_by_the_url():
    read = address_reader(None)
    assert read(row(address="holding:1")).place == "holding:1:U16"
    assert read(row(url="mqtt://h", address="a/b")) is None
    node = read(row(url="opc.tcp://h", address="ns=0;s=Oven1.T", dtype="f32"))
    assert (node.text, node.dtype, node.place) == ("ns=0;s=Oven1.T", "f32", "s=Oven1.T")
    assert read(row(url="what://h")) is None
    assert read(row(url="http://[", address="x")) is None
    base = {"base": "100", "factor": "0.5"}
    found = read(row(address="holding:{base+2};scale={factor}", dtype="f32", more=base))
    assert (found.text, found.place) == (
        "holding:{base+2}:F32;scale={factor}",
        "holding:102:F32;order=ABCD;scale=0.5",
    )
    assert read(row(address="holding:{base}", more=base)).text == "holding:{base}"
    assert read(row(address="holding:{base}")) is None, "its profile may have one"
    node = row(url="opc.tcp://h", address="ns=2;s={node}.T", more={"node": "Oven1"})
    assert read(node).text == "ns=2;s={node}.T", "as its protocol understands it"
    with pytest.raises(ConfigError, match="tag address"):
        read(row(address="hold:{base}", more=base))
    for _ in range(2):
        with pytest.raises(ConfigError, match="tag address"):
            read(row(address="register:1"))


def test_devices_with_parameters_come_back_as_they_were(folder):
    """A profile whose addresses have parameters stays one profile, whatever else is changed."""
    text = PLANT.replace("holding:10:F32", "holding:{base}:F32")
    (folder / "plant.toml").write_text(
        text.replace("[profiles.oven]", "[profiles.oven]\nparameters = { base = 5 }")
    )
    table = "path,url,base\nleon/o1,modbus+tcp://h?unit=1,100\nleon/o3,modbus+tcp://h?unit=3,\n"
    (folder / "ovens.csv").write_text(table)
    before = files(folder)
    rows = present_rows(load_plant(folder / "plant.toml"))
    assert [(r.address, r.more) for r in rows] == [
        ("holding:{base}:F32", {"base": "100"}),
        ("holding:{base}:F32", {}),
    ]
    assert not [r.problem for r in rows if r.problem]
    assert not offline(folder).apply(TagWish(rows), "ann")["applied"]
    new = [*rows, row("leon/o2/t", address="holding:{base}:F32", more={"base": "7"}, unit="degC")]
    assert offline(folder).apply(TagWish(new), "ann")["applied"]
    assert files(folder)["ovens.csv"].splitlines()[-1] == "leon/o2,modbus+tcp://h?unit=2,,7"
    assert files(folder)["ovens-tags.csv"].strip() in (
        "",
        TAGS.strip(),
        "profile,signal,address,unit,kind,low,high,labels",
    )
    offline(folder).undo("ann")
    assert files(folder) == before
