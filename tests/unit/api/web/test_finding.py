"""Finding sensors by parts of their names."""

from headrace.api.web.finding import find_sensors, first_look, natural
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.sensors import SensorDirectory

OVEN = Layout(
    "f32",
    (
        Column("temperature", unit="degC"),
        Column("power", unit="kW"),
        Column("mode", Kind.DISCRETE, labels=("off", "on")),
    ),
)
LONE = Layout("f64", (Column(""),))


def made(n_ovens=12):
    directory = SensorDirectory()
    directory.define_many([f"Leon/paint/line{n % 2}/oven{n}" for n in range(n_ovens)], OVEN)
    directory.define_many(["Leon/water/flow", "Leon/water/level"], LONE)
    directory.define("Leon/paint/line1/oven1", Layout("f32", (Column("temperature_mean"),)), "~1")
    return directory


def paths(hits):
    return [one.path for one in hits.sensors]


def test_every_word_must_be_in_the_path_somewhere():
    directory = made()
    # By path, numbers as numbers; what pipelines derived comes last.
    assert paths(find_sensors(directory, "OVEN1 temp")) == [
        "Leon/paint/line0/oven10/temperature",
        "Leon/paint/line1/oven1/temperature",
        "Leon/paint/line1/oven11/temperature",
        "Leon/paint/line1/oven1/temperature_mean",
    ]
    assert paths(find_sensors(directory, "flow leon")) == ["Leon/water/flow"]
    assert paths(find_sensors(directory, "oven3/mo")) == ["Leon/paint/line1/oven3/mode"]
    assert not paths(find_sensors(directory, "oven3 flow"))
    assert not paths(find_sensors(directory, "  "))


def test_what_is_found_says_what_it_is_and_where_it_was_cut():
    (one,) = find_sensors(made(), "oven2 mode").sensors
    assert (one.kind, one.labels) == ("discrete", ("off", "on"))
    hits = find_sensors(made(), "oven", limit=5)
    assert (len(hits.sensors), hits.is_cut) == (5, True)
    assert not find_sensors(made(2), "mode", limit=2).is_cut


def test_only_a_groups_present_layout_is_found():
    directory = made(1)
    directory.define("Leon/paint/line0/oven0", Layout("f32", (Column("heat", unit="kW"),)))
    assert paths(find_sensors(directory, "oven0")) == ["Leon/paint/line0/oven0/heat"]


def test_a_search_that_nobody_waits_for_ends():
    assert not paths(find_sensors(made(), "oven", wanted=lambda: False))


def test_numbers_sort_as_numbers():
    names = ["oven10/t", "oven2/t", "oven1/t", "10", "9", "a/2/b", "a/2/a"]
    assert sorted(names, key=natural) == ["9", "10", "a/2/a", "a/2/b", "oven1/t", "oven2/t", "oven10/t"]


def test_a_first_look_has_several_units_and_a_state():
    assert first_look(made()) == [
        "Leon/paint/line0/oven0/temperature",
        "Leon/paint/line0/oven0/power",
        "Leon/water/flow",
        "Leon/paint/line0/oven0/mode",
    ]
    directory = SensorDirectory()
    assert first_look(directory) == []
    directory.define("lone", LONE)
    assert first_look(directory) == ["lone"]
