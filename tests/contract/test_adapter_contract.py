"""One call gives a third party all checks; and every built-in adapter's folder passes its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.test_adapter_faults import RIGS

from headrace.adapters.registry import ADAPTERS
from headrace.testing import adapter_contract, adapter_faults, adapters
from headrace.testing.adapter_contract import FOLDER_CHECKS, check_rules_are_shown, contract

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("check", FOLDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ADAPTERS.names())
def test_folder(name, check):
    check(name)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_rules_are_shown(name):
    check_rules_are_shown(name, ROOT)


def ids(rig, *name):
    return [one.id for one in contract(rig, *name)]


def test_a_rig_gets_the_checks_that_it_can_take():
    plain, faults = len(adapters.CHECKS), len(adapter_faults.CHECKS)
    assert len(ids(RIGS["modbus"], "modbus")) == plain + faults - 2 + len(FOLDER_CHECKS)
    found = ids(RIGS["replay"])
    assert len(found) == plain + 3
    assert "check_clock_jumps" in found
    assert not [one for one in found if "storm" in one or "cut" in one]
    assert len(ids(lambda folder: RIGS["replay"](folder))) == plain + faults


async def test_a_rig_that_forgets_to_say_something_is_noticed(tmp_path):
    """Checks pass over a rig that is not all that they need: it must not look as if they had passed."""

    class Forgetful(RIGS["modbus"]):
        deadline_s = connects_per_s = property()

    (check, *_) = (one for one in contract(Forgetful) if one.id == "check_cut_in_a_frame")
    with pytest.raises(AssertionError, match="does not say: deadline_s, connects_per_s"):
        await check.values[0](tmp_path)


@pytest.mark.parametrize("check", contract(RIGS["http"], "http")[:2])
async def test_it_is_used_as_it_says(check, tmp_path):
    await check(tmp_path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "has no manifest.toml"),
        ({"name": "x"}, "does not say: title, stability"),
        ({"name": "x", "stability": "done"}, "'done' is none of alpha"),
        ({"rules": {"logs-once": "tests/x.py"}}, "where it is shown: start-returns-at-once"),
        ({"rules": "none"}, "has no \\[rules\\]"),
    ],
)
def test_a_manifest_that_says_too_little_is_noticed(facts, said, monkeypatch):
    whole = dict.fromkeys(adapter_contract.FIELDS, "x") | {"name": "modbus", "stability": "beta"}
    filled = facts if "does not say: " in said or not facts else {**whole, **facts, "name": "modbus"}
    monkeypatch.setattr(adapter_contract, "manifest_of", lambda registry, name: filled)
    with pytest.raises(AssertionError, match=said):
        adapter_contract.check_manifest("modbus")


@pytest.mark.parametrize(
    ("library", "is_fine"),
    [
        ("c104 2.2, GPL-3.0", False), ("x, AGPL", False), ("cpppo, GPLv3 or proprietary", False),
        ("asyncua 2.1, LGPL-3.0", True), ("gmqtt, MIT", True), ("none (own framing)", True),
    ],
)  # fmt: skip
def test_licences(library, is_fine, monkeypatch):
    monkeypatch.setattr(adapter_contract, "manifest_of", lambda registry, name: {"library": library})
    if is_fine:
        adapter_contract.check_licence("x")
        return
    with pytest.raises(AssertionError, match="a package of its own"):
        adapter_contract.check_licence("x")


def test_a_rule_that_is_shown_nowhere_is_noticed(monkeypatch):
    facts = {"rules": {"logs-once": "tests/nowhere.py (server)"}}
    monkeypatch.setattr(adapter_contract, "manifest_of", lambda registry, name: facts)
    with pytest.raises(AssertionError, match=r"tests/nowhere\.py, which is not there"):
        check_rules_are_shown("modbus", ROOT)
