"""One call gives a third party all checks; and every built-in adapter's folder passes its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from unittest import SkipTest

import pytest
from tests.contract import test_adapters as plain
from tests.contract.test_adapter_faults import RIGS

from headrace.adapters.http.adapter import HttpAdapter
from headrace.adapters.http.simulator import PushAnswer
from headrace.adapters.registry import ADAPTERS
from headrace.core.events import RejectCode
from headrace.testing import adapter_contract, adapter_faults, adapter_inputs, adapters
from headrace.testing.adapter_contract import (
    FOLDER_CHECKS,
    NEEDS,
    RIG_CHECKS,
    check_rules_are_shown,
    contract,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("check", FOLDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ADAPTERS.names())
def test_folder(name, check):
    check(name)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_rules_are_shown(name):
    check_rules_are_shown(name, ROOT)


def test_a_rig_gets_every_check_and_the_one_of_its_peer_first():
    found = [one.id for one in contract(RIGS["modbus"], "modbus")]
    assert found == [check.__name__ for check in (*RIG_CHECKS, *FOLDER_CHECKS)]
    assert found[0] == "check_sent_is_received"
    assert len(set(found)) == len(found)
    assert set(NEEDS) <= set(RIG_CHECKS)
    (one,) = contract(RIGS["replay"], checks=[adapters.check_logs_once])
    assert one.id == "check_logs_once"


async def the(check, make, folder):
    """A check as a third party calls it."""
    (one,) = contract(make, checks=[check])
    await one.values[0](folder)


async def test_what_a_rig_can_not_is_skipped_only_where_it_says_so(tmp_path):
    """What was not checked must not look as if it had passed."""
    cut = adapter_faults.check_cut_in_a_frame
    with pytest.raises(SkipTest, match="it reads files"):
        await the(cut, RIGS["replay"], tmp_path)

    class Silent(RIGS["replay"]):
        cannot = MappingProxyType({})

    with pytest.raises(AssertionError, match=r"has no peer, talk_to, .* say why .* cannot = {\"wire\": "):
        await the(cut, Silent, tmp_path)

    class Forgetful(RIGS["modbus"]):
        deadline_s = property()

    with pytest.raises(AssertionError, match="has no deadline_s"):
        await the(cut, Forgetful, tmp_path)

    class Wrong(RIGS["replay"]):
        cannot = MappingProxyType({"cable": "it has none"})

    with pytest.raises(AssertionError, match="there is no cable, only wire, fleet"):
        await the(adapters.check_logs_once, Wrong, tmp_path)


# --- each check notices an adapter, or a peer, that breaks its promise ------------------------------------


async def test_a_peer_that_sends_something_else_than_it_says(tmp_path):
    class TooFew(plain.HttpRig):
        async def send(self):
            return await super().send() - 1

    class Twice(plain.HttpRig):
        def push(self, body):
            super().push(body)
            super().push(body)

        async def send(self):
            return 2 * await super().send()

    class Other(RIGS["modbus"]):
        def offered(self):
            return {("leon/a/tank/level", -1.0)}

    for make, said in (
        (TooFew, "60 samples came of 57"), (Twice, "120 samples were sent, and 60 of them"), (Other, "nobody has sent"),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=said):
            await the(adapters.check_sent_is_received, make, tmp_path)


async def test_what_gets_lost_between_two_instances(tmp_path, monkeypatch):
    class Careless(plain.HttpRig):
        async def post(self, body, key):
            answer = await super().post(body, key)
            return PushAnswer(204) if answer.status == 503 else answer  # told, and nobody has it

    monkeypatch.setattr(adapters, "WAIT_S", 0.5)
    with pytest.raises(AssertionError, match="still not: what came between"):
        await the(adapters.check_reload_loses_nothing, Careless, tmp_path)


@pytest.mark.parametrize(
    ("broken", "error", "said"),
    [
        (lambda batches, rejects: (batches, []), AssertionError, "of 20 inputs vanished"),
        (
            lambda batches, rejects: (batches, [one for one in rejects if 1 / 0]),
            ZeroDivisionError,
            "division by zero",
        ),
        (
            lambda batches, rejects: (batches, [replace(one, code=RejectCode.INTERNAL) for one in rejects]),
            AssertionError,
            "a defect",
        ),
    ],
)
async def test_a_decoder_that_swallows_or_raises(broken, error, said, tmp_path, monkeypatch):
    decode = HttpAdapter.decode_captured
    monkeypatch.setattr(adapter_inputs, "N_FUZZED", 20)
    monkeypatch.setattr(HttpAdapter, "decode_captured", lambda *given: broken(*decode(*given)))
    with pytest.raises(error, match=said):
        await the(adapter_inputs.check_fuzzed_input_is_accounted, plain.HttpRig, tmp_path)


async def test_an_order_that_is_taken_for_another(tmp_path, monkeypatch):
    class Swapped(RIGS["modbus"]):
        def make_registers(self, addresses):
            return super().make_registers([one.replace("CDAB", "ABCD") for one in addresses])

    monkeypatch.setattr(adapters, "WAIT_S", 0.5)
    with pytest.raises(AssertionError, match=r"order=CDAB is .*, and should be "):
        await the(adapter_inputs.check_every_order_of_every_type, Swapped, tmp_path)


async def test_late_samples_that_are_dropped_and_times_that_are_made_up(tmp_path, monkeypatch):
    class OnlyNewer(adapters.RecordingSink):
        newest_ns = 0

        async def emit(self, batch, ack=None):
            times = batch.value_times()
            self.newest_ns, is_late = max(self.newest_ns, times.max()), times.min() < self.newest_ns
            await super().emit(batch.slice(0, 0) if is_late else batch, ack)

    class Fresh(RIGS["http"]):
        n_times = 0

        async def send_at(self, ts_ns):
            self.n_times += 1
            return await super().send_at(ts_ns + (self.n_times == 2))

    with pytest.raises(AssertionError, match="the same sample has two identities"):
        await the(adapter_inputs.check_same_again_is_one_sample, Fresh, tmp_path)
    monkeypatch.setattr(adapters, "WAIT_S", 0.5)
    monkeypatch.setattr(adapter_inputs, "RecordingSink", OnlyNewer)
    with pytest.raises(AssertionError, match="still not: all of them come"):
        await the(adapter_inputs.check_messages_out_of_order, RIGS["http"], tmp_path)


async def test_values_that_nobody_has_sent(tmp_path, monkeypatch):
    class Mixing(adapters.RecordingSink):
        async def emit(self, batch, ack=None):
            await super().emit(batch)
            await super().emit(batch.with_(values=batch.values + 100), ack)

    monkeypatch.setattr(adapter_faults, "RecordingSink", Mixing)
    with pytest.raises(AssertionError, match="nobody has sent"):
        await the(adapter_faults.check_reordered_on_the_wire, RIGS["modbus"], tmp_path)


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
