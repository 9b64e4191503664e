from typing import Annotated, Literal

import pytest
from pydantic import Field

from headrace.core.problems import InvalidConfig, Problem, dotted, known_keys, validate_section
from headrace.core.settings import Section


class Tap(Section):
    name: str
    flow: float | None = None
    api_token: int = 0
    side: Literal["left", "right"] = "left"
    at: Annotated[int, Field(ge=1)] = 1
    old: int = Field(0, alias="since")


class Tank(Section):
    taps: Annotated[tuple[Tap, ...], Field(strict=False)] = ()
    named: dict[str, Tap] = {}
    main: Tap | None = None
    free: dict[str, int] = {}
    either: str | dict[str, str | Annotated[Tap, Field(description="a tap")]] = ""


def told(data):
    with pytest.raises(InvalidConfig) as caught:
        validate_section(Tank, data, "adapters.tank")
    return [str(p) for p in caught.value.problems]


def test_a_section_that_is_right():
    tank = validate_section(Tank, {"taps": [{"name": "a"}], "main": {"name": "b", "since": 3}}, "x")
    assert (tank.taps[0].name, tank.main.old) == ("a", 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "adapters.tank: [] is not a table"),
        ({"tabs": 1}, "adapters.tank.tabs: unknown key; did you mean 'taps'?"),
        ({"taps": [{"name": "a", "sid": 1}]}, "adapters.tank.taps[0].sid: unknown key; did you mean 'side'?"),
        ({"main": {"name": "a", "sid": 1}}, "adapters.tank.main.sid: unknown key; did you mean 'side'?"),
        (
            {"named": {"b c": {"name": "a", "zz": 1}}},
            'adapters.tank.named."b c".zz: unknown key; known: name, flow, api_token, side, at, since',
        ),
        (
            {"main": {"name": "a", "free": {}}},
            "adapters.tank.main.free: unknown key; 'free' belongs to the top of the file: in TOML a key below a [table] "
            "line is part of that table, so move it above the line [main]",
        ),
        ({"taps": [{}]}, "adapters.tank.taps[0].name: is missing"),
        ({"taps": [{"name": 5}]}, "adapters.tank.taps[0].name: 5 is not text"),
        ({"main": {"name": "a", "flow": "x"}}, "adapters.tank.main.flow: 'x' is not a number"),
        ({"main": {"name": "a", "side": "up"}}, "adapters.tank.main.side: 'up' is not one of 'left' or 'right'"),
        ({"main": {"name": "a", "api_token": "abc"}}, "adapters.tank.main.api_token: the value is not a whole number"),
        ({"main": {"name": "a", "at": 0}}, "adapters.tank.main.at: 0 should be greater than or equal to 1"),
        ({"free": {"a": "x" * 99}}, f"adapters.tank.free.a: '{'x' * 56}... is not a whole number"),
        ({"either": 5}, "adapters.tank.either: 5 is not text or a table"),
        ({"either": {"a": 5}}, "adapters.tank.either.a: 5 is not text or a table"),
        ({"either": {"a": {"name": 5}}}, "adapters.tank.either.a.name: 5 is not text"),
        ({"either": {"a": {}}}, "adapters.tank.either.a.name: is missing"),
        ({"either": {"a": {"name": "a", "sid": 1}}}, "adapters.tank.either.a.sid: unknown key; did you mean 'side'?"),
        ({"free": {"a": True}}, "adapters.tank.free.a: True is not a whole number"),
    ],
)  # fmt: skip
def test_problems_are_worded(data, says):
    assert told(data) == [says]


def test_several_problems_at_one_key_are_told_each():
    class Odd(Section):
        at: Annotated[int, Field(gt=5)] | Annotated[int, Field(lt=0)] = 9

    with pytest.raises(InvalidConfig) as caught:
        validate_section(Odd, {"at": 3}, "")
    assert str(caught.value).splitlines() == ["at: 3 should be greater than 5", "at: 3 should be less than 0"]


def test_keys_that_a_table_takes():
    assert known_keys(Tank, ()) == ["taps", "named", "main", "free", "either"]
    assert known_keys(Tank, ("taps", 3)) == known_keys(Tank, ("named", "x")) == known_keys(Tank, ("main",))
    assert (
        known_keys(Tank, ("free",))
        == known_keys(Tank, ("nothing",))
        == known_keys(Tank, ("free", "a", "b"))
        == []
    )


def test_dotted_keys():
    assert dotted(("a", "b c", 2, "d-e")) == 'a."b c"[2].d-e'


def test_a_single_problem_reads_as_itself():
    error = InvalidConfig([Problem("a.b", "is missing")])
    assert (str(error), error.where, error.message) == ("a.b: is missing", "a.b", "is missing")
    assert str(Problem("", "odd")) == "odd"
