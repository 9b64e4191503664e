"""Profiles as CSV tables."""

from __future__ import annotations

import pytest

from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError
from headrace.core.layouts import Kind
from headrace.core.problems import InvalidConfig
from headrace.core.profile_tables import (
    cells_of,
    label_text,
    profiles_of,
    read_lines,
    read_profiles,
    signal_of,
    table_text,
    write_lines,
)
from headrace.core.settings import SignalSettings

TABLE = """profile,signal,address,unit,kind,low,high,labels
oven,temperature,holding:100:F32,degC,,0,400.5,
oven,running,coil:0,,discrete,,,stopped|running
,,,
press, force ,holding:1, kN,,,9,
"""


def test_a_table_is_read_line_by_line():
    found = read_profiles(TABLE, "t.csv")
    assert list(found) == ["oven", "press"]
    assert found["oven"] == {
        "temperature": SignalSettings(address="holding:100:F32", unit="degC", limits=(0.0, 400.5)),
        "running": SignalSettings(address="coil:0", kind=Kind.DISCRETE, labels=("stopped", "running")),
    }
    assert found["press"]["force"] == SignalSettings(address="holding:1", unit="kN", limits=(None, 9.0))


def test_every_problem_of_a_table_is_told_with_its_line():
    text = "profile,signal,address,unit\noven,a,x,\noven,a,y,\n,b,x,\noven,,x,\n"
    with pytest.raises(InvalidConfig) as e:
        read_profiles(text, "t.csv")
    assert [str(p) for p in e.value.problems] == [
        "t.csv:3: signal 'a' of profile 'oven' is there twice",
        "t.csv:4: a line needs a profile and a signal",
        "t.csv:5: a line needs a profile and a signal",
    ]
    with pytest.raises(InvalidConfig) as e:
        read_profiles(
            "profile,signal,address,low,high,kind\noven,a,x,1,b,\noven,b,,,,\noven,c,x,,,odd\n", "t.csv"
        )
    assert [(p.where, p.message[:22]) for p in e.value.problems] == [
        ("t.csv: oven.a.high", "'b' is not a number"),
        ("t.csv: oven.b.address", "is missing; it says wh"),
        ("t.csv: oven.c.kind", "'odd' is not one of an"),
    ]
    with pytest.raises(InvalidConfig, match=r"t.csv:2: unknown column 'adress'; did you mean 'address'\?"):
        read_profiles("profile,signal,adress\noven,a,x\n", "t.csv")
    with pytest.raises(ConfigError, match="t.csv:2: has more cells than the head line"):
        read_profiles("profile,signal\noven,a,x\n", "t.csv")
    with pytest.raises(ConfigError, match="t.csv:0: is not a CSV table"):
        read_profiles("a" * 200_000, "t.csv")


def test_lines_are_written_as_they_are_read():
    rows = [{"a": 'x "y", z', "b": "1\n2"}, {"b": "3"}]
    text = write_lines(["a", "b"], rows)
    assert [cells for _, cells in read_lines(text, "t")] == rows


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ((), ""), (("a",), "a"), (("a", "b c"), "a|b c"), (("",), '[""]'), (("a|b", "c"), '["a|b", "c"]'),
        (("[x", "y"), "[x|y"), (('["x"]',), '["[\\"x\\"]"]'), ((" a", "b"), '[" a", "b"]'), (("[1]",), '["[1]"]'),
    ],
)  # fmt: skip
def test_labels_come_back_from_one_cell(labels, text):
    assert label_text(labels) == text
    signal = SignalSettings(address="x", labels=labels)
    assert signal_of(cells_of(signal), "") == signal


def test_what_is_not_text_stands_as_json(monkeypatch):
    class MoreSettings(SignalSettings):
        factor: float = 1.0
        stages: tuple[int, ...] = ()
        note: str = ""

    from headrace.core import profile_tables

    monkeypatch.setattr(profile_tables, "SignalSettings", MoreSettings)
    monkeypatch.setattr(profile_tables, "MORE_COLUMNS", ("factor", "stages", "note"))
    found = signal_of({"address": "x", "factor": "2.5", "note": "7"}, "t")
    assert (found.factor, found.note) == (2.5, "7")
    assert cells_of(found) == {"address": "x", "factor": "2.5", "note": "7"}
    with pytest.raises(InvalidConfig, match="factor"):
        signal_of({"address": "x", "factor": "wide"}, "t")


def test_limits_are_written_short_and_come_back():
    signal = SignalSettings(address="x", limits=(-0.5, 400.0))
    assert cells_of(signal) == {"address": "x", "low": "-0.5", "high": "400"}
    for limits in ((None, 1e300), (float("-inf"), None), (-0.5, 400.0)):
        signal = SignalSettings(address="x", limits=limits)
        assert signal_of(cells_of(signal), "") == signal


PLANT = {
    "version": 1,
    "profiles": {"shared": {"a": {"address": "holding:1"}}},
    "adapters": {"x": {"protocol": "modbus", "devices": "d.csv", "tags": "t.csv", "profile": "own"}},
}


def test_an_adapter_has_the_plants_profiles_and_those_of_its_table(tmp_path):
    config = parse_plant(PLANT, tmp_path)
    assert config.adapters["x"].table_names == ["d.csv", "t.csv"]
    assert "tags" not in config.adapters["x"].options
    with pytest.raises(ConfigError, match="adapters.x.tags: table .*t.csv can't be read: No such file"):
        profiles_of(config, "x")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfprofile,signal,address\nown,b,holding:2\n")
    assert list(profiles_of(config, "x")) == ["shared", "own"]
    held = config.with_tables({"t.csv": "profile,signal,address\nshared,b,holding:2\n"})
    assert table_text(held, "t.csv").startswith("profile")
    with pytest.raises(ConfigError, match="profile 'shared' of t.csv is in the plant file too"):
        profiles_of(held, "x")
    assert list(profiles_of(config, "x")) == ["shared", "own"], "the first one is as it was"
    with pytest.raises(InvalidConfig, match="a line needs"):
        profiles_of(config.with_tables({"t.csv": "profile,signal\nx,\n"}), "x")
    (tmp_path / "t.csv").write_bytes(b"\xff\xff")
    with pytest.raises(ConfigError, match="can't be read"):
        profiles_of(config, "x")
    plain = parse_plant({**PLANT, "adapters": {"x": {"protocol": "modbus"}}}, tmp_path)
    assert list(profiles_of(plain, "x")) == ["shared"]
