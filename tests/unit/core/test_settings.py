import pytest

from headrace.core.errors import ConfigError
from headrace.core.layouts import Kind
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
