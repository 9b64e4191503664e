"""Modbus devices at every kind of link, for the kit and for others: an adapter and its peer."""

from __future__ import annotations

import shutil
import ssl
import struct
import subprocess
from types import MappingProxyType

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.broker.simulator import free_port
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.endpoints import ModbusLink
from headrace.adapters.modbus.framing import crc16
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedLine, SimulatedUnit
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings

PROFILE = {
    "temperature": SignalSettings(address="holding:0:F32"),
    "level": SignalSettings(address="holding:2"),
    "running": SignalSettings(address="coil:0"),
}


def make_certificates(folder):
    """``cert.pem`` and ``key.pem`` for 127.0.0.1, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = ("-subj", "/CN=plc", "-addext", "subjectAltName=IP:127.0.0.1,DNS:plc")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    subprocess.run(
        [openssl, "req", "-x509", *key, *files, *names], cwd=folder, check=True, capture_output=True
    )


def server_context(folder, asks=True):
    """A server with that certificate, which asks clients for theirs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    if asks:
        context.load_verify_locations(folder / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class LinkRig:
    """A device of 3 sensors behind pymodbus's server, polled every 20 ms."""

    acknowledges = False
    can_lose = True
    is_pushed_to = False
    link = ModbusLink.TCP
    cannot = MappingProxyType({
        "wire": "it is a line: what a line does to frames is shown through a device server",
        "fleet": "shown over TCP", "registers": "shown over TCP",
        "times": "a register has no time of its own", "types": "what a register holds is what the profile says",
        "order": "an answer is asked for", "process": "a polled device is told nothing",
    })  # fmt: skip

    def __init__(self, folder):
        self.folder = folder
        self.options = {}
        tls = None
        if self.link is ModbusLink.TLS:
            make_certificates(folder)
            tls = server_context(folder)
            self.options = {"ca_file": "cert.pem", "cert_file": "cert.pem", "key_file": "key.pem"}
        link = ModbusLink.RTU_TCP if self.link.is_rtu else self.link
        self.simulator = ModbusSimulator({1: SimulatedUnit()}, port=free_port(), link=link, tls=tls)
        self.device = self.simulator
        if self.link is ModbusLink.RTU:
            self.device = SimulatedLine(folder / "ttyS0", self.simulator, has_echo=True)

    @property
    def url(self):
        return self.device.url()

    def make(self):
        config = {
            "protocol": "modbus", "profile": "tank", "interval": "20ms", "devices": {"leon/a/tank": self.url},
            "reconnect_first": "50ms", "reconnect_most": "200ms", **self.options,
        }  # fmt: skip
        settings = validate_section(ModbusAdapter.Config, config, "adapters.tanks")
        facts = PlantFacts(("site", "area", "device", "signal"), "UTC", self.folder)
        return ModbusAdapter.from_config("tanks", settings, {"tank": PROFILE}, facts)

    async def up(self):
        await self.device.start()

    async def down(self):
        self.simulator.corrupt = None
        await self.device.stop()

    async def send(self):
        self.simulator.corrupt = None
        self.simulator.units[1].holding[:3] += 1
        return 3

    async def send_garbage(self):
        # A byte less than was asked for, in a frame that is whole.
        self.simulator.corrupt = self.shorter

    def shorter(self, data):
        if not self.link.is_rtu:
            return data[:5] + bytes([data[5] - 1]) + data[6:-1]
        frame = data[:2] + bytes([data[2] - 1]) + data[3:-3]
        return frame + crc16(frame).to_bytes(2, "little")

    def n_acknowledged(self):
        raise AssertionError("a polled device is told nothing")


class WireRig(LinkRig):
    """The same where bytes go by TCP, so that a proxy may stand between."""

    deadline_s = 0.15
    cannot = MappingProxyType({name: why for name, why in LinkRig.cannot.items() if name != "wire"})

    def __init__(self, folder):
        super().__init__(folder)
        self.address = self.peer()

    @property
    def url(self):
        host, port = self.address
        return f"modbus+{self.link}://{host}:{port}?timeout={self.deadline_s}s"

    def peer(self):
        return self.simulator.host, self.simulator.port

    def talk_to(self, host, port):
        self.address = host, port

    async def send(self):
        self.simulator.units[1].coil[0] ^= True
        return await super().send()

    def offered(self):
        unit = self.simulator.units[1]
        (temperature,) = struct.unpack(">f", unit.holding[:2].astype(">u2").tobytes())
        return {
            ("leon/a/tank/temperature", temperature),
            ("leon/a/tank/level", float(unit.holding[2])),
            ("leon/a/tank/running", float(unit.coil[0])),
        }


class TlsRig(WireRig):
    link = ModbusLink.TLS
    deadline_s = 0.3  # a handshake, byte by byte

    def absurd(self, data):
        return data[:3] + b"\xff\xff" + data[5:]  # of a record


class RtuRig(LinkRig):
    link = ModbusLink.RTU


class RtuTcpRig(WireRig):
    link = ModbusLink.RTU_TCP

    def absurd(self, data):
        return data[:2] + b"\xff" + data[3:]
