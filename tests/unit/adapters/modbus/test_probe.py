"""One look at a device: all types and orders, tables that end, devices that refuse."""

import asyncio
import struct

import pytest

from headrace.adapters.base import PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.probe import ProbeTarget, probe_block, probe_target, readings_of
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedUnit
from headrace.adapters.payloads.register_addresses import Area, Numbering, parse_address
from headrace.core.clock import SystemClock
from headrace.core.errors import ConfigError, NotConnected, Rejected
from headrace.core.problems import validate_section
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink, until

PROFILE = {
    "temperature": SignalSettings(address="holding:10:F32;order=CDAB"),
    "level": SignalSettings(address="holding:20:U16;scale=0.1;add=-40"),
}


@pytest.fixture
async def device():
    simulator = ModbusSimulator({1: SimulatedUnit(), 2: SimulatedUnit()})
    await simulator.start()
    words = struct.unpack(">HH", struct.pack(">f", 181.25))
    simulator.units[1].holding[10:12] = words[::-1]
    simulator.units[1].holding[20] = 1_000
    yield simulator
    await simulator.stop()


def adapter_of(simulator, n_devices=1):
    devices = {f"a/l/o{i}": simulator.url(unit=1 + i % 2) for i in range(n_devices)}
    config = {"profile": "p", "devices": devices, "interval": "50ms", "reconnect_first": "20ms"}
    settings = validate_section(ModbusAdapter.Config, config, "adapters.ovens")
    return ModbusAdapter.from_config("ovens", settings, {"p": PROFILE}, PlantFacts())


@pytest.mark.parametrize("name", ["U16", "I16", "U32", "I32", "U64", "I64", "F32", "F64"])
def test_every_type_in_every_order(name):
    code = {"U16": "H", "I16": "h", "U32": "I", "I32": "i", "U64": "Q", "I64": "q", "F32": "f", "F64": "d"}[
        name
    ]
    value = 0x1234 if name in ("U16", "I16") else (-2.5 if name[0] == "F" else 0x12345678)
    big = struct.pack(f">{code}", value)
    words = [big[i : i + 2] for i in range(0, len(big), 2)]
    sent = {
        "ABCD": big,
        "CDAB": b"".join(words[::-1]),
        "BADC": b"".join(w[::-1] for w in words),
        "DCBA": big[::-1],
    }
    for order, data in sent.items():
        found = readings_of(data)[name]
        if len(words) == 1 and order in ("CDAB", "DCBA"):
            assert set(found) == {"ABCD", "BADC"}
        else:
            assert found[order] == value


def test_types_that_need_more_bytes_are_left_out_and_what_is_no_number_is_none():
    assert set(readings_of(b"\x12\x34")) == {"U16", "I16"}
    assert set(readings_of(b"\x7f\xc0\x00\x00")) == {"U16", "I16", "U32", "I32", "F32"}
    assert readings_of(b"\x7f\xc0\x00\x00")["F32"]["ABCD"] is None


async def test_without_a_running_adapter_a_connection_is_made(device):
    found = await adapter_of(device).probe({"signal": "temperature"}, SystemClock())
    assert found["connection"] == "made for this"
    assert (found["device"], found["unit"], found["first"]) == ("a/l/o0", 1, 10)
    assert found["readings"]["F32"]["CDAB"] == 181.25
    assert found["configured"] == {"address": "holding:10:F32;order=CDAB", "value": 181.25}
    assert found["registers"][:2] == device.units[1].holding[10:12].tolist()
    assert len(found["registers"]) == 4
    assert found["protocol"] == "modbus"


async def test_a_running_adapter_uses_its_own_connection(device):
    adapter, sink = adapter_of(device), RecordingSink()
    await adapter.start(sink)
    try:
        await until(lambda: bool(sink.batches), "it polls")
        found = await asyncio.gather(
            *(
                adapter.probe({"address": "holding:20:U16;scale=0.1;add=-40"}, SystemClock())
                for _ in range(20)
            )
        )
        assert {f["connection"] for f in found} == {"the adapter's"}
        assert {f["configured"]["value"] for f in found} == {60.0}
        n = len(sink.batches)
        await until(lambda: len(sink.batches) > n, "polls go on")
        assert not sink.rejects
        assert len(device._server.active_connections) == 1
    finally:
        await adapter.stop()
    assert (await adapter.probe({"signal": "level"}, SystemClock()))["connection"] == "made for this"


async def test_asking_without_a_connection_says_so(device):
    adapter, sink = adapter_of(device), RecordingSink()
    await device.stop()
    await adapter.start(sink)
    try:
        await until(lambda: bool(adapter.diagnostics().reason), "it is away")
        with pytest.raises(NotConnected, match="not connected"):
            await adapter._running.pollers[0].ask(b"", 1, 1.0)
        with pytest.raises(NotConnected, match="refused"):
            await adapter.probe({"signal": "level"}, SystemClock())
    finally:
        await adapter.stop()


async def test_a_table_that_ends_is_read_as_far_as_it_goes(device):
    device.units[1].refuse[Area.HOLDING, 1_999] = 2
    asked = []

    async def ask(pdu):
        _, first, count = struct.unpack(">BHH", pdu)
        asked.append(count)
        return b"\x83\x02" if first + count > 2_000 else b"\x03" + bytes([2 * count]) + bytes(2 * count)

    probed = await probe_block(ask, parse_address("holding:1999"), None)
    assert (asked, probed.block.count) == ([4, 2, 1], 1)
    found = probed.to_dict(parse_address("holding:1999:F32"))
    assert set(found["readings"]) == {"U16", "I16"}
    assert found["configured"] == {"address": "holding:1999:F32;order=ABCD", "value": None}


async def test_the_last_register_of_a_table_is_asked_for_alone():
    async def ask(pdu):
        assert struct.unpack(">BHH", pdu)[1:] == (65_535, 1)
        return b"\x03\x02\x41\x42"

    found = (await probe_block(ask, parse_address("holding:65535"), None)).to_dict(
        parse_address("holding:65535")
    )
    assert (found["text"], found["hex"]) == ("AB", "4142")


async def test_coils_are_bits(device):
    device.units[1].coil[5:8] = (True, False, True)
    target = ProbeTarget.of_url({"url": device.url(), "address": "coil:5", "count": "3"})
    found = await probe_target(target)
    assert (found["bits"], found["area"]) == ([1, 0, 1], "coil")


async def test_counting_as_the_plant_does(device):
    wanted = {"url": device.url(), "address": "40021"}
    found = await probe_target(ProbeTarget.of_url(wanted, Numbering.MODICON))
    assert found["registers"][0] == 1_000
    assert (await adapter_of(device).probe({"url": device.url(), "address": "holding:20"}, SystemClock()))[
        "registers"
    ][0] == 1_000


async def test_a_device_that_refuses_or_babbles_or_hangs(device):
    device.units[1].refuse[Area.HOLDING, None] = 4
    adapter = adapter_of(device)
    with pytest.raises(Rejected, match=r"exception 4 \(device failure\) when holding:20..23"):
        await adapter.probe({"signal": "level"}, SystemClock())

    async def babble(pdu):
        return b"\x03\x04\x00"

    with pytest.raises(
        Rejected, match="expected function 3 with 2 data bytes for holding:1..1, got 03 04 00"
    ):
        await probe_block(babble, parse_address("holding:1"), 1)
    device.units[1].hang()
    target = ProbeTarget.of_url({"url": device.url(timeout="50ms"), "address": "holding:1"})
    with pytest.raises(NotConnected, match="unit 1 of .* did not answer within 0.05 s"):
        await probe_target(target)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "say which address"),
        ({"signal": "temprature"}, "did you mean 'temperature'"),
        ({"adress": "holding:1"}, "knows no 'adress'; did you mean 'address'"),
        ({"address": "holding:1", "count": "few"}, "'few' is not a number"),
        ({"address": "holding:1", "count": "126"}, "count 126 is not 1 to 125"),
        ({"address": "holding:65534", "count": "3"}, "count 3 is not 1 to 2"),
        ({"address": "register:1"}, "tag address"),
        ({"device": "a/l/o7", "address": "holding:1"}, "no device 'a/l/o7'; did you mean 'a/l/o0'"),
        ({"url": "http://x", "address": "holding:1"}, "is not modbus"),
        ({"url": "modbus+tcp://x"}, "say what to read"),
    ],
)
async def test_what_is_asked_for_must_make_sense(device, wanted, said):
    with pytest.raises(ConfigError, match=said):
        await adapter_of(device).probe(wanted, SystemClock())


async def test_with_many_devices_one_is_named(device):
    with pytest.raises(ConfigError, match="name one of the 60 devices of 'ovens': a/l/o0"):
        await adapter_of(device, 60).probe({"signal": "level"}, SystemClock())
    with pytest.raises(ConfigError, match="has no device 'nowhere'$"):
        await adapter_of(device, 60).probe({"device": "nowhere", "signal": "level"}, SystemClock())


async def test_a_device_that_no_adapter_has_is_looked_at_by_its_url(device):
    found = await ModbusAdapter.probe_url({"url": device.url(), "address": "holding:20"}, SystemClock())
    assert (found["device"], found["registers"][0]) == (device.url(), 1_000)
