"""An adapter in a gateway keeps the contract of adapters: the kit, over a link."""

import pytest
from tests.contract.test_adapters import ModbusRig, MqttRig
from tests.contract.test_files_adapter import FilesRig
from tests.gateway_pair import Pair

from headrace.runtime import gateway
from headrace.testing import adapters as kit

RIGS = {"files": (FilesRig, "logs"), "modbus": (ModbusRig, "tanks"), "mqtt": (MqttRig, "broker")}
POLLED = (kit.check_no_credit_slows, kit.check_sink_that_refuses)


@pytest.mark.parametrize(
    ("protocol", "check"),
    [("files", check) for check in kit.CHECKS]
    + [("modbus", check) for check in POLLED]
    + [("mqtt", kit.check_acknowledged_means_durable), ("mqtt", kit.check_no_credit_slows)],
    ids=lambda one: getattr(one, "__name__", one),
)
async def test_the_contract(protocol, check, tmp_path, monkeypatch):
    monkeypatch.setattr(gateway, "_STOP_S_MAX", 0.5)
    kind, name = RIGS[protocol]
    rig = kind(tmp_path)
    make = rig.make
    rig.make = lambda: Pair(make).adapter(name, protocol, make())
    await check(rig)
