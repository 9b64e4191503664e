import time

import numpy as np
import pytest

from headrace.core import sensors
from headrace.core.errors import ConfigError, CorruptionError, NotFound
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory, group_key, join_path, sensor_id


def layout(*names, dtype="u16"):
    return Layout(dtype, tuple(Column(n) for n in names))


OVEN = layout("temperature", "pressure")
LONE = layout("")


def found(directory, pattern):
    selection = directory.find(pattern)
    assert len(selection) == len(selection.column) == len(selection.sensor)
    paths = [
        directory.sensor_path(int(s), int(c)) for s, c in zip(selection.slot, selection.column, strict=True)
    ]
    for path, sensor in zip(paths, selection.sensor.tolist(), strict=True):
        assert sensor == sensor_id(path)
    return paths


# --- names -------------------------------------------------------------------------------------------


def test_an_id_is_the_hash_of_the_path():
    assert sensor_id("leon/paint/line1/oven1/temperature") == 0x484408273632F309
    assert 0 <= sensor_id("a") < 2**64


def test_paths_of_columns():
    assert join_path("a/b", "t") == "a/b/t"
    assert join_path("a/b", "") == "a/b"
    assert join_path("a/b", "../{self}_mean") == "a/b_mean"
    assert join_path("a/b", "../x") == "a/x"
    assert join_path("b", "../{self}_mean") == "b_mean"
    assert group_key("a/b") == "a/b"
    assert group_key("a/b", "u16") == "a/b#u16"


# --- defining ----------------------------------------------------------------------------------------


def test_a_group_gets_a_slot_and_keeps_it():
    directory = SensorDirectory()
    slot = directory.define("a/oven1", OVEN)
    assert directory.define("a/oven1", OVEN) == slot == directory.slot("a/oven1")
    assert directory.define("a/oven2", OVEN) == slot + 1
    assert (directory.n_slots, directory.n_sensors) == (2, 4)
    assert directory.layout(slot) is OVEN
    assert directory.width.tolist() == [2, 2]
    assert directory.layout_index.tolist() == [0, 0]
    assert directory.sensor_path(1, 1) == "a/oven2/pressure"
    assert directory.sensors(1).tolist() == [sensor_id("a/oven2/temperature"), sensor_id("a/oven2/pressure")]
    assert directory.locate(sensor_id("a/oven2/pressure")) == (1, 1)


def test_many_groups_at_once_are_the_same_as_one_by_one():
    paths = [f"a/oven{i}" for i in range(300)]
    many, single = SensorDirectory(), SensorDirectory()
    single_slots = [single.define(p, OVEN) for p in paths]
    assert many.define_many([*paths, *paths[:5]], OVEN).tolist() == single_slots + single_slots[:5]
    for name in ("shard", "local", "width", "previous", "group_id"):
        assert getattr(many, name).tolist() == getattr(single, name).tolist()
    assert many.to_bytes() == single.to_bytes()


def test_shards_are_the_top_bits_and_locals_count_within():
    directory = SensorDirectory(shard_bits=3)
    directory.define_many([f"a/{i}" for i in range(200)], LONE)
    assert directory.n_shards == 8
    assert directory.shard.tolist() == [sensor_id(f"a/{i}") >> 61 for i in range(200)]
    for shard in range(8):
        mine = directory.local[directory.shard == shard].tolist()
        assert mine == list(range(directory.n_local(shard)))


def test_places_rank_slots_by_shard_and_local():
    directory = SensorDirectory(shard_bits=3)
    for n in (40, 60):
        directory.define_many([f"a/{i}" for i in range(n)], LONE)
        ordered = np.argsort(directory.place)
        assert sorted(directory.place.tolist()) == list(range(n))
        ranked = list(zip(directory.shard[ordered].tolist(), directory.local[ordered].tolist(), strict=True))
        assert ranked == sorted(ranked)
    assert directory.place is directory.place
    place, at_place = directory.places
    assert place is directory.place
    assert place[at_place].tolist() == list(range(len(place)))
    assert directory.places is directory.places


def test_places_are_of_one_moment_while_slots_are_defined(monkeypatch):
    """Another thread may look between any two steps of defining."""
    directory = SensorDirectory()
    seen = []
    steps = ("_local", "_shard", "_layout_index", "_width", "_previous", "_first", "_sensor", "paths")

    def looked_at(grow):
        def extend(*args):
            seen.append(directory.places)
            grow(*args)
            seen.append(directory.places)

        return extend

    for name in steps:
        part = getattr(directory, name)
        monkeypatch.setattr(part, "extend", looked_at(part.extend))
    for n in (3, 40, 7):
        directory.define_many([f"plant/{n}/d{i}" for i in range(n)], OVEN)
    assert {len(place) for place, _ in seen} == {0, 3, 43, 50}
    for place, at_place in seen:
        order = np.lexsort((directory.local[: len(place)], directory.shard[: len(place)]))
        assert at_place.tolist() == order.tolist()
        assert place[at_place].tolist() == list(range(len(place)))


def test_parts_of_a_device_live_in_one_shard():
    directory = SensorDirectory()
    a = directory.define("a/oven1", OVEN, "u16")
    b = directory.define("a/oven1", layout("weight", dtype="f32"), "f32")
    assert a != b
    assert directory.shard[a] == directory.shard[b]
    assert directory.group_id[a] != directory.group_id[b]
    assert (directory.slot("a/oven1", "u16"), directory.slot("a/oven1", "f32")) == (a, b)


def test_a_new_layout_gets_a_new_slot_and_keeps_the_sensors():
    directory = SensorDirectory()
    old = directory.define("a/oven1", OVEN)
    new = directory.define("a/oven1", layout("pressure", "humidity"))
    assert directory.previous.tolist() == [-1, old]
    assert directory.slot("a/oven1") == new
    assert directory.group_id[old] == directory.group_id[new]
    assert directory.n_sensors == 3
    assert directory.locate(sensor_id("a/oven1/pressure")) == (new, 0)
    assert directory.locate(sensor_id("a/oven1/temperature")) == (old, 0)
    assert directory.define("a/oven1", OVEN) == new + 1


def test_a_renamed_sensor_keeps_its_id():
    directory = SensorDirectory()
    first = directory.define("a/oven1", layout("temp"))
    kept = directory.sensors(first)
    second = directory.define("a/oven1", layout("temperature"), sensors=kept.tolist())
    assert directory.sensors(second).tolist() == kept.tolist()
    assert directory.overridden(range(2)) == {second: kept.tolist()}
    assert directory.overridden(range(first, first + 1)) == {}
    assert directory.n_sensors == 1
    assert directory.locate(int(kept[0])) == (second, 0)


def test_derived_series_are_found_by_path_and_not_indexed():
    directory = SensorDirectory()
    directory.define("a/oven1", OVEN)
    slot = directory.define("a/oven1", layout("temperature_mean", dtype="f64"), "~minutes")
    assert directory.is_derived(slot)
    assert directory.n_sensors == 2
    assert directory.sensors(slot).tolist() == [sensor_id("a/oven1/temperature_mean")]
    assert directory.overridden(range(2)) == {}
    assert found(directory, "**/temperature_mean") == ["a/oven1/temperature_mean"]
    with pytest.raises(NotFound):
        directory.locate(sensor_id("a/oven1/temperature_mean"))
    after = directory.define("a/oven2", OVEN)
    assert directory.locate(sensor_id("a/oven2/pressure")) == (after, 1)


def test_watchers_hear_of_new_groups_that_are_not_derived():
    directory, heard = SensorDirectory(), []
    directory.watchers.append(lambda: heard.append(directory.n_slots))
    directory.define("a/oven1", OVEN)
    directory.define("a/oven1", OVEN)
    directory.define("a/oven1", layout("t_mean"), "~minutes")
    assert heard == [1]


# --- refusing ----------------------------------------------------------------------------------------


def test_a_path_that_is_none_is_refused_and_changes_nothing():
    directory = SensorDirectory()
    with pytest.raises(ConfigError, match="can't name a sensor"):
        directory.define_many(["a/oven1", "a//oven2"], OVEN)
    assert (directory.n_slots, directory.n_sensors) == (0, 0)


def test_a_sensor_belongs_to_one_group():
    directory = SensorDirectory()
    directory.define("a/oven1", OVEN)
    with pytest.raises(ConfigError, match="'a/oven1/pressure' is defined twice, by two groups"):
        directory.define("a/oven1/pressure", LONE)
    with pytest.raises(ConfigError, match="defined twice"):
        directory.define("a/oven1", layout("pressure", dtype="f32"), "f32")
    assert directory.n_slots == 1


@pytest.fixture
def colliding(monkeypatch):
    """A hash under which different paths have the same id."""
    real = sensors.hashes
    same = {b"a/two/t": b"a/one/t", b"a/one/u": b"a/one/t", b"b/two": b"b/one"}
    monkeypatch.setattr(sensors, "hashes", lambda texts: real([same.get(text, text) for text in texts]))


@pytest.mark.usefixtures("colliding")
def test_a_collision_of_ids_is_refused():
    says = "have the same 64-bit id"
    directory = SensorDirectory()
    with pytest.raises(ConfigError, match=f"sensors 'a/two/t' and 'a/one/t' {says}"):
        directory.define_many(["a/one", "a/two"], layout("t"))
    directory.define("a/one", layout("t"))
    with pytest.raises(ConfigError, match=f"sensors 'a/two/t' and 'a/one/t' {says}"):
        directory.define("a/two", layout("t"))
    with pytest.raises(ConfigError, match=f"sensors 'a/one/u' and 'a/one/t' {says}"):
        directory.define("a/one", layout("u"))
    with pytest.raises(ConfigError, match=says):
        directory.define("a/one", layout("t", "u"))
    assert (directory.n_slots, directory.n_sensors) == (1, 1)


@pytest.mark.usefixtures("colliding")
def test_a_collision_of_groups_is_refused():
    directory = SensorDirectory()
    with pytest.raises(ConfigError, match="groups 'b/two' and 'b/one' have the same 64-bit id; rename one"):
        directory.define_many(["b/one", "b/two"], OVEN)
    directory.define("b/one", OVEN)
    with pytest.raises(ConfigError, match="groups 'b/two' and 'b/one' have the same 64-bit id; rename one"):
        directory.define("b/two", layout("t"))
    with pytest.raises(NotFound, match="no group 'b/two'"):
        directory.slot("b/two")
    assert directory.slots_at("b/two", ["", "f32"]) == {}
    assert directory.slots_at("b/one", ["", "f32"]) == {"": 0}
    assert directory.n_slots == 1


def test_ids_that_do_not_fit_the_columns_are_refused():
    with pytest.raises(ConfigError, match="3 ids were given for the 2 sensors of a group"):
        SensorDirectory().define("a/one", OVEN, sensors=[1, 2, 3])


def test_a_path_without_utf8_is_refused():
    directory = SensorDirectory()
    with pytest.raises(ConfigError, match="can't name a sensor"):
        directory.define_many(["a/one", "a/\ud800"], OVEN)
    with pytest.raises(NotFound):
        directory.slot("a/\ud800")


def test_paths_of_many_sensors_at_once():
    directory = SensorDirectory()
    directory.define("a/one", OVEN)
    directory.define("a/two", layout("../{self}_b"))
    slots, columns = np.array([0, 0, 1, 0], np.uint32), np.array([1, 0, 0, 1], np.uint16)
    assert directory.sensor_paths(slots, columns).tolist() == [
        "a/one/pressure", "a/one/temperature", "a/two_b", "a/one/pressure",
    ]  # fmt: skip
    assert directory.sensor_paths(slots[:0], columns[:0]).tolist() == []
    assert directory.locate(sensor_id("a/two_b")) == (1, 0)


def test_many_groups_are_known_again_in_any_order():
    directory = SensorDirectory()
    paths = [f"plant/hall/d{i}" for i in range(3_000)]
    slots = directory.define_many(paths, OVEN)
    assert slots.tolist() == list(range(3_000))
    assert directory.define_many(paths[10:900], OVEN).tolist() == list(range(10, 900))
    assert directory.define_many(paths[::-7], OVEN).tolist() == list(range(3_000))[::-7]
    assert directory.define_many(["plant/new", *paths[:3]], OVEN).tolist() == [3_000, 0, 1, 2]
    assert directory.define_many(paths[:2], layout("t"), "second").tolist() == [3_001, 3_002]
    assert directory.define_many(paths[:2], layout("t"), "second").tolist() == [3_001, 3_002]
    assert directory.define_many([], OVEN).tolist() == []


def test_a_collision_of_layouts_is_refused():
    directory = SensorDirectory()
    directory.define("a/one", layout("t"))
    other = layout("u")
    other.__dict__["id"] = layout("t").id
    with pytest.raises(ConfigError, match="two layouts have the same 64-bit id"):
        directory.define("a/two", other)


# --- finding -----------------------------------------------------------------------------------------


@pytest.fixture
def plant():
    directory = SensorDirectory()
    directory.define_many(["leon/line1/oven1", "leon/line1/oven2", "leon/line2/oven1"], OVEN)
    directory.define("leon/line2/door", LONE)
    directory.define("leon/line2/door", layout("../{self}_mean", dtype="f64"), "~minutes")
    directory.define("leon/line2/node", layout("Node Control/Rebirth", "t"))
    return directory


@pytest.mark.parametrize(
    ("pattern", "n"),
    [
        ("**", 10), ("**/temperature", 3), ("leon/line1/**", 4), ("leon/*/oven1/*", 4), ("leon/line2/door", 1),
        ("leon/line2/*", 2), ("leon/line2/door_mean", 1), ("**/Rebirth", 1), ("leon/line2/node/Node*/Rebirth", 1),
        ("leon/line1/oven1/**", 2), ("leon/line1/oven1", 0), ("x/**", 0), ("*", 0), ("**/{pressure,t}", 4),
    ],
)  # fmt: skip
def test_patterns_find_whole_paths(plant, pattern, n):
    assert len(found(plant, pattern)) == n


def test_what_a_new_layout_dropped_is_still_found(plant):
    plant.define("leon/line1/oven1", layout("pressure", "humidity"))
    plant.define("leon/line1/oven1", layout("humidity"))
    assert sorted(found(plant, "leon/line1/oven1/*")) == [
        "leon/line1/oven1/humidity", "leon/line1/oven1/pressure", "leon/line1/oven1/temperature",
    ]  # fmt: skip


def test_what_does_not_exist(plant):
    with pytest.raises(NotFound, match="no group 'leon/line9'"):
        plant.slot("leon/line9")
    with pytest.raises(NotFound, match="no sensor with id 000000000000002a"):
        plant.locate(42)


# --- saving ------------------------------------------------------------------------------------------


def same(a, b):
    assert (a.paths, a.parts, a.layouts) == (b.paths, b.parts, b.layouts)
    for name in ("shard", "local", "width", "previous", "group_id", "layout_index"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
    assert [a.sensors(s).tolist() for s in range(a.n_slots)] == [
        b.sensors(s).tolist() for s in range(b.n_slots)
    ]
    assert a.n_sensors == b.n_sensors


def test_a_directory_survives_its_file(plant):
    plant.define("leon/line1/oven1", layout("pressure", "humidity"))
    door = plant.sensors(plant.slot("leon/line2/door")).tolist()
    plant.define("leon/line2/door", layout("", dtype="u8"), sensors=door)
    plant.define("leon/line2/gate", LONE, sensors=[123])
    again = SensorDirectory()
    again.apply_bytes(plant.to_bytes())
    same(again, plant)
    again.apply_bytes(memoryview(plant.to_bytes()))
    same(again, plant)


def test_definitions_are_added_in_pieces(plant):
    again = SensorDirectory()
    whole = plant.to_bytes()
    n = 2
    head = SensorDirectory()
    head.define_many(plant.paths[:n], OVEN)
    again.apply_bytes(head.to_bytes())
    again.apply_bytes(plant.to_bytes(n))
    same(again, plant)
    other = SensorDirectory()
    other.apply_bytes(head.to_bytes())
    other.apply_bytes(whole)
    same(other, plant)


def test_an_empty_directory_is_a_file_too():
    again = SensorDirectory()
    again.apply_bytes(SensorDirectory().to_bytes())
    assert again.n_slots == 0


def test_definitions_must_follow_one_another(plant):
    with pytest.raises(CorruptionError, match="definitions start at slot 3, expected 0"):
        SensorDirectory().apply_bytes(plant.to_bytes(3))


def test_definitions_that_contradict_what_is_known(plant):
    other = SensorDirectory()
    other.define_many(["x/1", "x/2"], LONE)
    other.define("leon/line1/oven1/temperature", LONE)
    with pytest.raises(CorruptionError, match="contradict what is known: sensor .* is defined twice"):
        other.apply_bytes(directory_of(["y/1", "y/2", "y/3", "leon/line1/oven1"]).to_bytes())


def directory_of(paths):
    directory = SensorDirectory()
    for path in paths:
        directory.define(path, OVEN)
    return directory


def test_a_million_sensors_are_registered_in_seconds():
    signals = layout(*(f"signal{i}" for i in range(50)))
    paths = [f"plant/area{i % 7}/line{i % 40}/device{i}" for i in range(20_000)]
    directory = SensorDirectory()
    before = time.process_time()
    directory.define_many(paths, signals)
    assert directory.n_sensors == 1_000_000
    assert len(directory.find("**/line3/*/signal7")) == 500
    assert directory.locate(sensor_id(f"{paths[777]}/signal9")) == (777, 9)
    assert time.process_time() - before < 8


@pytest.mark.parametrize("looked_at", [0, 1_000], ids=["bisected", "looked at"])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 500])
def test_shards_of_an_ordered_batch_are_found(n, looked_at, monkeypatch):
    monkeypatch.setattr(sensors, "_LOOKED_AT", looked_at)
    directory = SensorDirectory()
    slots = directory.define_many([f"a/line/oven{i}" for i in range(max(n, 1))], OVEN)[:n]
    ordered = slots[np.argsort(directory.shard[slots], kind="stable")]
    shard = directory.shard[ordered]
    assert directory.shard_starts(ordered).tolist() == [
        int((shard < one).sum()) for one in range(directory.n_shards + 1)
    ]
