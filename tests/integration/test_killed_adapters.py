"""Every adapter whose peer is told: killed between the durable write and the acknowledgement, nothing lost or twice.

The files adapter's contract has the check, too; there is nothing to hold back there.
"""

from __future__ import annotations

import pytest
from tests.contract.test_adapter_faults import HttpRig, MqttRig
from tests.contract.test_kafka_adapter import KafkaRig
from tests.contract.test_opcua_adapter import OpcuaRig, emptied
from tests.contract.test_sparkplug_adapter import SparkplugRig

from headrace.adapters.broker.simulator import find_mosquitto, free_port
from headrace.adapters.opcua.simulator import OpcuaSimulator
from headrace.testing import adapter_process
from headrace.testing.adapter_contract import contract
from headrace.testing.adapter_process import check_stored_once

(CHECK,) = (one.values[0] for one in contract(lambda rig: rig, checks=adapter_process.CHECKS))
needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")


@pytest.mark.parametrize(
    "make",
    [
        HttpRig,
        pytest.param(MqttRig, marks=needs_mosquitto),
        pytest.param(SparkplugRig, marks=needs_mosquitto),
    ],
)
async def test_what_was_durable_and_not_acknowledged_is_stored_once(make, tmp_path):
    await CHECK(make(tmp_path))


async def test_messages_of_a_cluster(tmp_path):
    rig = KafkaRig(tmp_path)
    try:
        await CHECK(rig)
    finally:
        await rig.close()


async def test_values_of_a_subscription(tmp_path):
    simulator = OpcuaSimulator(free_port())
    await emptied(simulator)
    await CHECK(OpcuaRig(simulator, "subscribe", tmp_path))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([("a", 1), ("a", 2)], "1 of 3 were lost"),
        ([("a", 1), ("a", 2), ("b", 1), ("a", 1)], "stored twice"),
        ([("a", 1), ("a", 2), ("b", 1), ("b", 2)], "4 samples are stored, 3 were sent"),
    ],
)
def test_what_is_lost_or_there_twice_is_noticed(stored, said):
    with pytest.raises(AssertionError, match=said):
        check_stored_once(stored, 3)
    check_stored_once([("a", 1), ("a", 2), ("b", 1)], 3)
