"""Profiles that include others, and addresses with parameters."""

import tomllib
from pathlib import Path

import pytest

from headrace.core.config import parse_plant
from headrace.core.errors import ConfigError
from headrace.core.problems import InvalidConfig
from headrace.core.profiles import Profile, bind, resolve_profiles
from headrace.core.settings import SignalSettings

TEXT = """
[profiles.base]
parameters = { unit = 1, base = 0 }
running = { address = "coil:{base}", kind = "discrete" }
hours = { address = "input:{base+10}" }
[profiles.motor]
include = ["base"]
parameters = { base = 100 }
hours = { address = "holding:{base-1}" }
speed = { address = "holding:{ base + 2 };scale={step}" }
[profiles.drive]
include = ["motor", "base"]
"""


def plant(text):
    return parse_plant({"version": 1, **tomllib.loads(text)}, Path())


def test_a_profile_has_what_it_includes_and_its_own_counts_more():
    found = resolve_profiles(plant(TEXT).profiles)
    assert list(found["base"]) == ["running", "hours"]
    assert {name: signal.address for name, signal in found["motor"].items()} == {
        "running": "coil:{base}", "hours": "holding:{base-1}", "speed": "holding:{ base + 2 };scale={step}",
    }  # fmt: skip
    assert found["drive"] == found["motor"]
    assert found["drive"].parameters == {"unit": 1, "base": 100}


def test_a_device_gives_values():
    motor = resolve_profiles(plant(TEXT).profiles)["motor"]
    assert {name: s.address for name, s in bind(motor, {"step": "0.5"}).items()} == {
        "running": "coil:100", "hours": "holding:99", "speed": "holding:102;scale=0.5",
    }  # fmt: skip
    assert bind(motor, {"step": 2, "base": "7"})["hours"].address == "holding:6"
    plain = {"t": SignalSettings(address="holding:1")}
    assert bind(plain, {}) == plain


@pytest.mark.parametrize(
    ("address", "given", "why"),
    [
        ("holding:{base}", {}, r"the device gives no value for \{base\}; write parameters = \{ base"),
        ("holding:{base}", {"bas": 1, "base": 1}, "the profile has no parameter 'bas'; did you mean 'base'"),
        ("holding:{base+x}", {"base": 1}, r"\{base\+x\} is no parameter; write \{base\} or"),
        ("holding:{}", {}, "is no parameter"),
        ("holding:{base+1}", {"base": "a"}, "base is 'a', to which nothing can be added"),
    ],
)
def test_values_that_are_missing_or_wrong(address, given, why):
    with pytest.raises(ConfigError, match=why):
        bind(Profile({"t": SignalSettings(address=address)}, {}), given)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("[profiles.a]\ninclude = ['b']\n[profiles.b]\ninclude = ['a']", "profiles.a.include", "include each other: a → b → a"),
        ("[profiles.oven]\n[profiles.b]\ninclude = ['ovn']", "profiles.b.include", "no profile 'ovn'; did you mean 'oven'"),
        ("[profiles.a]\ninclude = 'b'", "profiles.a.include", "'b' is not a list"),
        ("[profiles.a.t]\nadress = 'x'", "profiles.a.t.adress", "unknown key; did you mean 'address'"),
        ("[profiles.a]\nparameters = { base = 1.5 }", "profiles.a.parameters.base", "1.5 is not"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_their_key(text, where, why):
    with pytest.raises(InvalidConfig) as caught:
        plant(text)
    problems = [(p.where, p.message) for p in caught.value.problems]
    assert any(at == where and why in message for at, message in problems), problems
