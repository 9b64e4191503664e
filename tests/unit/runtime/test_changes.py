"""What differs between what runs and a plant file, part by part."""

from __future__ import annotations

import tomllib

import pytest

from headrace.core.config import load_plant, parse_plant
from headrace.core.disk import LocalDisk
from headrace.core.errors import CorruptionError, NotFound
from headrace.runtime.changes import LINES_MAX, Fingerprints, config_hash, difference
from headrace.runtime.versions import VERSIONS_MAX, Versions, tags_before, version_before

TEXT = """version = 1
[plant]
levels = ["site", "device", "signal"]
[profiles.oven]
temperature = { address = "holding:10:F32" }
[profiles.press]
force = { address = "holding:1" }
[adapters.ovens]
protocol = "modbus"
profile = "oven"
devices = "ovens.csv"
[adapters.presses]
protocol = "modbus"
profile = "press"
[adapters.presses.devices]
"plant/press1" = "modbus+tcp://h?unit=1"
"plant/press2" = { url = "modbus+tcp://h?unit=2", profile = "oven" }
[pipelines.m]
read = "**"
steps = [{ op = "window", every = "1m", agg = ["mean"] }]
write = "{parent}/{signal}_{agg}"
"""
TABLE = "path,url,profile\nplant/oven1,modbus+tcp://h?unit=1,\nplant/oven2,modbus+tcp://h?unit=2, press\n"


@pytest.fixture
def look(tmp_path):
    def looked(text=TEXT, table=TABLE):
        (tmp_path / "ovens.csv").write_text(table)
        return Fingerprints.of(parse_plant(tomllib.loads(text), tmp_path))

    return looked


def parts(before, after):
    return [(c.part, str(c.fate), list(c.lines)) for c in difference(before, after).changes]


def test_comments_and_order_are_no_difference(look):
    data = tomllib.loads(TEXT)
    again = look(
        "# new\n"
        + TEXT.replace('protocol = "modbus"\nprofile = "oven"', 'profile = "oven"\nprotocol="modbus"')
    )
    assert not difference(look(), again)
    assert look().hash == again.hash
    assert data["version"] == 1


def test_each_part_that_differs_is_told_with_what_differs(look):
    assert parts(look(), look(TEXT.replace('every = "1m"', 'every = "2m"'))) == [
        (
            "pipelines.m",
            "changed",
            [
                'steps: [{"op": "window", "every": "1m", "agg": ["mean"]}] → '
                '[{"op": "window", "every": "2m", "agg": ["mean"]}]'
            ],
        )
    ]
    assert parts(look(), look(TEXT.replace("h?unit=1", "h?unit=7"))) == [
        (
            "adapters.presses",
            "changed",
            ['devices."plant/press1": "modbus+tcp://h?unit=1" → "modbus+tcp://h?unit=7"'],
        )
    ]
    more = TEXT + '[adapters.files]\nprotocol = "replay"\nfiles = "*.csv"\n'
    assert parts(look(), look(more)) == [("adapters.files", "added", [])]
    assert parts(look(more), look()) == [("adapters.files", "removed", [])]
    long = TEXT.replace('read = "**"', f'read = "{"x" * 200}/**"')
    (_, _, (line,)) = parts(look(), look(long))[0]
    assert (line[:11], line[-3:], len(line)) == ('read: "**" ', "...", len('read: "**" → ') + 80)


def test_a_profile_changes_the_adapters_that_use_it(look):
    changed = parts(look(), look(TEXT.replace("holding:10:F32", "holding:12:F32")))
    line = 'profiles.oven.temperature.address: "holding:10:F32" → "holding:12:F32"'
    assert changed == [("adapters.ovens", "changed", [line]), ("adapters.presses", "changed", [line])]
    # The table of ovens names the profile of presses in one of its cells.
    changed = parts(look(), look(TEXT.replace('"holding:1"', '"holding:2"')))
    assert [part for part, *_ in changed] == ["adapters.ovens", "adapters.presses"]
    table = TABLE.replace(" press", "")
    changed = parts(look(table=table), look(TEXT.replace('"holding:1"', '"holding:2"'), table))
    assert [part for part, *_ in changed] == ["adapters.presses"]


def test_what_a_profile_includes_is_part_of_it(look):
    more = TEXT.replace(
        "[profiles.oven]",
        '[profiles.common]\nhours = { address = "input:1" }\n[profiles.oven]\ninclude = ["common"]',
    )
    changed = parts(look(more), look(more.replace('"input:1"', '"input:2"')))
    line = 'profiles.common.hours.address: "input:1" → "input:2"'
    assert ("adapters.ovens", "changed", [line]) in changed


def test_profiles_that_nobody_uses_come_and_go(look):
    more = TEXT + '[profiles.spare]\nx = { address = "holding:1" }\n'
    assert parts(look(), look(more)) == [("profiles.spare", "added", [])]
    assert parts(look(more), look()) == [("profiles.spare", "removed", [])]


def test_a_device_table_is_part_of_its_adapter(look):
    longer = TABLE + "plant/oven3,modbus+tcp://h?unit=3,\n"
    before, after = look(), look(table=longer)
    assert parts(before, after) == [
        ("adapters.ovens", "changed", ['devices."plant/oven3,modbus+tcp://h?unit=3,": "" added'])
    ]
    assert before.hash != after.hash
    many = TABLE + "".join(f"plant/o{i},modbus+tcp://h?unit=3,\n" for i in range(100))
    ((_, _, lines),) = parts(before, look(table=many))
    assert (len(lines), lines[-1]) == (LINES_MAX + 1, "and 80 more")


def test_a_table_that_is_gone_is_told_by_whoever_needs_it(look, tmp_path):
    before = look()
    (tmp_path / "ovens.csv").unlink()
    after = Fingerprints.of(before.config)
    assert [part for part, *_ in parts(before, after)] == ["adapters.ovens"]


def test_a_table_of_tags_is_part_of_its_adapter(look, tmp_path):
    text = TEXT.replace('devices = "ovens.csv"', 'devices = "ovens.csv"\ntags = "tags.csv"')
    (tmp_path / "tags.csv").write_text("profile,signal,address\nown,a,holding:1\n")
    before = look(text)
    (tmp_path / "tags.csv").write_text("profile,signal,address\nown,a,holding:2\n")
    after = look(text)
    assert parts(before, after) == [
        (
            "adapters.ovens",
            "changed",
            ['tags."own,a,holding:1": "" removed', 'tags."own,a,holding:2": "" added'],
        )
    ]
    assert before.hash != after.hash
    assert before.frozen.tables["tags.csv"].endswith("holding:1\n"), "what was looked at stays"
    (tmp_path / "tags.csv").unlink()
    assert [part for part, *_ in parts(before, look(text))] == ["adapters.ovens"]


def test_what_only_a_restart_changes_is_told_by_key(look):
    text = TEXT.replace("[profiles.oven]", '[store]\nurl = "./s"\nflush_interval = "1m"\n[profiles.oven]')
    found = difference(look(), look(text))
    assert (found.changes, list(found.restart)) == (
        (), ['store.url: "./store" → "./s"', 'store.flush_interval: "2m" → "1m"'],
    )  # fmt: skip
    assert found
    assert found.to_dict()["needs_restart"] == list(found.restart)
    zone = TEXT.replace("levels =", 'timezone = "Europe/Madrid"\nlevels =')
    assert list(difference(look(), look(zone)).restart) == ['plant.timezone: "UTC" → "Europe/Madrid"']


def test_the_hash_of_a_file_is_that_of_what_it_says(tmp_path, look):
    prints = look()
    (tmp_path / "plant.toml").write_text(TEXT)
    assert config_hash(load_plant(tmp_path / "plant.toml")) == prints.hash


# --- versions --------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path):
    return Versions(LocalDisk(tmp_path / "store"))


def keep(versions, prints, previous=0, how="apply"):
    return versions.add(prints, time="2026-03-01T00:00:00Z", by="ann", how=how, previous=previous)


def test_versions_are_kept_and_come_back_as_they_were(versions, look, tmp_path):
    assert versions.newest() is None
    one = keep(versions, look(), how="start")
    table = TABLE + "plant/oven3,modbus+tcp://h?unit=3,\n"
    two = keep(versions, look(table=table), one.n)
    assert (one.n, two.n, versions.newest()) == (1, 2, two)
    assert versions.get(1) == one
    assert one.summary() == {
        "n": 1, "hash": one.hash, "time": "2026-03-01T00:00:00Z", "by": "ann", "how": "start", "file": "", "previous": 0,
    }  # fmt: skip
    back = versions.restored(version_before(versions, two))
    assert (tmp_path / "ovens.csv").read_text() == table
    assert Fingerprints.of(back).hash == one.hash, "the device table comes from the version"
    (tmp_path / "ovens.csv").write_text(TABLE)
    assert versions.restored(one).adapters["ovens"].devices == "ovens.csv"
    (tmp_path / "ovens.csv").unlink()
    assert Fingerprints.of(versions.restored(one)).hash == one.hash


def test_versions_know_the_file_they_came_from(versions, tmp_path):
    (tmp_path / "ovens.csv").write_text(TABLE)
    (tmp_path / "plant.toml").write_text(TEXT)
    kept = keep(versions, Fingerprints.of(load_plant(tmp_path / "plant.toml")))
    assert kept.file == str(tmp_path / "plant.toml")


def test_the_newest_fifty_are_kept(versions, look):
    prints = look()
    for _ in range(VERSIONS_MAX + 3):
        newest = keep(versions, prints, previous=1)
    assert versions.numbers() == list(range(4, VERSIONS_MAX + 4))
    with pytest.raises(NotFound, match="version 1 is not kept any more"):
        version_before(versions, newest)


def test_without_anything_before_there_is_nothing_to_undo(versions, look):
    for running in (None, keep(versions, look())):
        with pytest.raises(NotFound, match="nothing to undo"):
            version_before(versions, running)


def test_tags_are_undone_where_they_were_the_newest_change(versions, look):
    table = TABLE + "plant/oven3,modbus+tcp://h?unit=3,\n"
    one = keep(versions, look(), how="start")
    with pytest.raises(NotFound, match="nothing to undo"):
        tags_before(versions, one)
    two = keep(versions, look(table=table), one.n, how="tags")
    assert tags_before(versions, two) == one
    three = keep(versions, look(), two.n, how="apply")
    with pytest.raises(NotFound, match="newest change of the configuration is none of tags; headrace undo"):
        tags_before(versions, three)
    # Undone, it is as it was when the second one ran: that can be taken back.
    four = keep(versions, look(table=table), two.previous, how="undo")
    assert tags_before(versions, four) == one


def test_what_an_undone_version_came_from_may_be_lost(versions, look, tmp_path):
    one = keep(versions, look(), how="start")
    keep(versions, look(table=TABLE + "plant/oven3,u,\n"), one.n, how="tags")
    three = keep(versions, look(table=TABLE + "plant/oven3,u,\n"), one.n, how="undo")
    (tmp_path / "store" / "config" / "000002.json").write_text("{")
    with pytest.raises(NotFound, match="is none of tags"):
        tags_before(versions, three)


def test_a_damaged_version_is_passed_over(versions, look, tmp_path):
    one = keep(versions, look())
    keep(versions, look())
    (tmp_path / "store" / "config" / "000002.json").write_text("{")
    assert versions.newest() == one
    with pytest.raises(CorruptionError, match="000002.json can't be read"):
        versions.get(2)
