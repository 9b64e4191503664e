from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from headrace.core.clock import NS
from headrace.core.dead_bands import DeadBands, SignalBand
from headrace.core.errors import ConfigError
from headrace.core.layouts import Column, Kind, Layout
from headrace.core.problems import InvalidConfig, validate_section
from headrace.core.settings import DurationNs, PathPattern, SecretRef, Section, SignalSettings


def secret(**data):
    return validate_section(SecretRef, data, "password")


def test_a_secret_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OVEN_PASSWORD", "geheim")
    reference = secret(env="OVEN_PASSWORD")
    assert reference.read(tmp_path) == "geheim"
    assert "geheim" not in repr(reference)
    monkeypatch.delenv("OVEN_PASSWORD")
    with pytest.raises(ConfigError, match="environment variable OVEN_PASSWORD is not set"):
        reference.read(tmp_path)


def test_a_secret_from_a_file(tmp_path):
    (tmp_path / "password").write_text("geheim \n")
    assert secret(file="password").read(tmp_path) == "geheim "
    with pytest.raises(ConfigError, match=r"secret file .*none can't be read: No such file"):
        secret(file="none").read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't be read: .*utf-8"):
        secret(file="binary").read(tmp_path)


@pytest.mark.parametrize("data", [{}, {"env": "A", "file": "b"}, {"value": "geheim"}])
def test_a_secret_is_in_one_place(data):
    with pytest.raises(InvalidConfig, match="never the secret itself") as caught:
        secret(**data)
    assert "geheim" not in str(caught.value)


def test_signals():
    signal = validate_section(
        SignalSettings, {"address": "a", "kind": Kind.COUNTER, "limits": [0, float("inf")]}, "t"
    )
    column = signal.column("parts")
    assert (column.kind, column.low, column.high) == (Kind.COUNTER, 0.0, None)
    assert signal.model_dump()["kind"] == "counter"


T0 = 1_767_225_600 * NS  # 2026-01-01 UTC


def signal_of(**written):
    return validate_section(SignalSettings, {"address": "a", **written}, "t")


def test_scale_calibration_and_unit_are_one_grid():
    signal = signal_of(
        unit="bar", convert_to="kPa", scale=0.1, add=-1,
        calibration=[{"from": "2026-01-01", "scale": 1.01, "add": -0.2}, {"from": "2027-01-01T06:00:00Z"}],
    )  # fmt: skip
    assert signal.grid() == signal.grid(T0 - 1) == (10.0, -100.0)
    assert signal.grid(T0) == (10.1, -121.0), "(raw * 0.1 - 1) * 1.01 - 0.2, in hundreds of kPa"
    assert signal.grid(T0 + 366 * 86_400 * NS) == (10.0, -100.0), "the later one corrects nothing"
    assert signal.changes_ns() == [T0, T0 + (365 * 86_400 + 6 * 3_600) * NS]
    assert signal.changes_ns(ZoneInfo("Europe/Madrid"))[0] == T0 - 3_600 * NS, "plant time"
    column = signal.column("p", T0)
    assert (column.unit, column.scale, column.offset) == ("kPa", 10.1, -121.0)
    assert signal_of(scale=2).grid() == (2.0, 0.0)


@pytest.mark.parametrize(
    "written", [date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000001Z"]
)
def test_dates_are_toml_or_text(written):
    signal = signal_of(calibration=[{"from": written}])
    assert signal.changes_ns()[0] in (T0, T0 + 1_000)
    assert "2026-01-01" in signal.model_dump()["calibration"][0]["from_"]


def test_dead_bands():
    assert signal_of().band is None
    assert signal_of(dead_band=0.5).band == (0.5, 300 * NS)
    assert signal_of(dead_band=0, heartbeat="1m").band == (0.0, 60 * NS)
    layout = Layout("i16", (Column("a", scale=-0.1), Column("b")))
    bands = DeadBands.of([SignalBand(0.5, NS), None], layout)
    assert (bands.change.tolist(), bands.heartbeat_ns.tolist()) == ([5.0, -1.0], [NS, 0])
    bands = DeadBands.of([SignalBand(0.3, NS), SignalBand(0.0, NS)], layout)
    assert bands.change.tolist() == [3.0, 0.0], "as they are written"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({"scale": 0}, "0 is not a scale"),
        ({"calibration": [{"from": "soon"}]}, "'soon' is not a date; write '2026-01-31'"),
        ({"calibration": [{"from": 5}]}, "5"),
        ({"calibration": [{"from": "2262-01-01"}]}, "2262-01-01 is not a date from 1970 to 2261"),
        ({"calibration": [{"from": date(1969, 12, 31)}]}, "is not a date from 1970"),
        ({"calibration": [{"scale": 2}]}, "is missing"),
        ({"dead_band": -1}, "-1"),
        ({"heartbeat": "1m"}, "a heartbeat belongs to a dead_band"),
        ({"convert_to": "kPa"}, "convert_to needs the unit of what is converted"),
    ],
)
def test_signals_that_cannot_be(written, why):
    with pytest.raises(InvalidConfig, match=why):
        signal_of(**written)


class Poll(Section):
    every: DurationNs
    what: PathPattern = "**"


def test_durations_are_written_back_as_they_are_read():
    poll = validate_section(Poll, {"every": "90s"}, "poll")
    assert poll.every == 90_000_000_000
    assert poll.model_dump() == {"every": "90s", "what": "**"}


def test_types_are_taken_as_written():
    with pytest.raises(InvalidConfig, match=r"poll\.what: 5 is not text"):
        validate_section(Poll, {"every": "1s", "what": 5}, "poll")
