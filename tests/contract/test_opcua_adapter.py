"""The OPC UA adapter passes the public kit against a real server, subscribing and reading."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker.simulator import free_port
from headrace.adapters.opcua import session, subscribing
from headrace.adapters.opcua.adapter import OpcuaAdapter
from headrace.adapters.opcua.simulator import OpcuaSimulator
from headrace.adapters.pacing import ConnectPacer
from headrace.core.clock import SystemClock
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing import adapter_process
from headrace.testing.adapter_contract import RIG_CHECKS, contract

# One server for all: to make one takes 2 s.
pytestmark = pytest.mark.asyncio(loop_scope="module")
FACTS = PlantFacts(("site", "area", "device", "signal"))
SIGNALS = ("temperature", "pressure", "level")
ODD = "odd"


PLANT = """
[adapters.tanks]
protocol = "opcua"
profile = "tank"
time = "source"
interval = "50ms"
reconnect_most = "1s"
[adapters.tanks.devices]
"leon/a/tank" = "opc.tcp://{host}:{port}/plant?timeout=2s"
[profiles.tank]
{signals}"""


class OpcuaRig:
    """A server with a device of 3 variables that change, and one that goes wrong."""

    can_lose = True
    is_pushed_to = False
    timeout_ms = 250
    deadline_s = 0.75  # three reads that are not answered
    acknowledges_by = "to_peer"
    forgets = True  # a subscription ends with its session
    cannot = MappingProxyType({
        "fleet": "shown of those that are read", "registers": "variables have types of their own",
    })  # fmt: skip

    def __init__(self, simulator, mode, folder=None):
        self.folder = folder
        self.simulator = simulator
        self.mode = mode
        self.acknowledges = mode == "subscribe"
        self.before = simulator.n_acknowledged
        self.n_sent = 0
        self.address = self.peer()

    def peer(self):
        return self.simulator.host, self.simulator.port

    def talk_to(self, host, port):
        self.address = host, port

    def absurd(self, data):
        return data[:4] + b"\xff\xff\xff\x7f" + data[8:]

    def offered(self):
        return {(f"leon/a/tank/{name}", self.value(name)) for name in SIGNALS}

    def value(self, name):
        return self.n_sent + len(name) / 10

    def make(self):
        return self.adapter({"leon/a/tank": self.address}, "20ms")

    def adapter(self, devices, interval, pacer=None):
        profile = {
            name: SignalSettings(address=self.simulator.address("tank." + name)) for name in (*SIGNALS, ODD)
        }
        urls = {
            path: f"opc.tcp://{host}:{port}/plant?timeout={self.timeout_ms}ms"
            for path, (host, port) in devices.items()
        }
        config = {
            "protocol": "opcua", "profile": "tank", "time": "source", "mode": self.mode, "interval": interval,
            "devices": urls, "reconnect_first": "50ms", "reconnect_most": "200ms",
        }  # fmt: skip
        settings = validate_section(OpcuaAdapter.Config, config, "adapters.tanks")
        facts = FACTS if pacer is None else replace(FACTS, pacer=pacer)
        return OpcuaAdapter.from_config("tanks", settings, {"tank": profile}, facts)

    async def up(self):
        await self.simulator.start()

    async def down(self):
        await self.simulator.stop()

    async def send(self):
        self.n_sent += 1
        for name in SIGNALS:
            await self.simulator.write("tank." + name, self.value(name))
        return 3

    async def send_at(self, ts_ns):
        self.n_sent += 1
        await self.simulator.write("tank.level", self.value("level"), source_ns=ts_ns)
        return 1

    async def send_swapped(self):
        self.n_sent += 2
        now_ns = SystemClock().now_ns()
        await self.simulator.write("tank.level", self.value("level"), source_ns=now_ns)
        await self.simulator.write("tank.level", self.value("level") - 1, source_ns=now_ns - 1_000_000)
        return 2

    def plant_section(self):
        host, port = self.address
        rows = "".join(
            f"{name} = {{ address = '{self.simulator.address('tank.' + name)}' }}\n" for name in SIGNALS
        )
        return PLANT.format(host=host, port=port, signals=rows)

    async def send_other_type(self):
        self.n_sent += 1
        await self.simulator.write("tank.level", "full", "String")
        await self.simulator.write("tank.pressure", self.value("pressure"))
        return 2

    async def send_garbage(self):
        await self.simulator.write("tank.odd", b"what is this?", "ByteString")

    def n_acknowledged(self):
        return self.simulator.n_acknowledged - self.before


class OpcuaFleetRig(OpcuaRig):
    """Many servers, each with a device."""

    connects_per_s = 1_000.0
    cannot = MappingProxyType({
        "registers": "variables have types of their own", "order": "only the present value is read",
        "process": "nobody is told what was read",
    })  # fmt: skip

    def make_fleet(self, addresses):
        devices = {f"leon/a/tank{number}": address for number, address in enumerate(addresses)}
        return self.adapter(devices, "100ms", ConnectPacer(self.connects_per_s, burst=50))


@pytest.fixture(scope="module")
def simulator():
    return OpcuaSimulator(free_port())


RIGS = {"subscribe": OpcuaRig, "read": OpcuaFleetRig}
CHECKS = [one for one in RIG_CHECKS if one not in adapter_process.CHECKS]


@pytest.mark.parametrize("mode", RIGS)
@pytest.mark.parametrize("check", contract(lambda rig: rig, checks=CHECKS))
async def test_opcua_adapter(mode, check, simulator, monkeypatch):
    monkeypatch.setattr(subscribing, "KEEP_ALIVE_NS", 100_000_000)
    monkeypatch.setattr(
        session, "PATIENCE_S", 0.02
    )  # a thousand that are silent are looked for in a second or two
    await emptied(simulator)
    await check(RIGS[mode](simulator, mode))


async def emptied(simulator):
    """What is there before is no sample."""
    await simulator.start()
    for name in (*SIGNALS, ODD):
        await simulator.set(f"tank.{name}", None, "Null")
    await simulator.stop()
