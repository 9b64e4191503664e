"""The Modbus adapter over TLS, on a serial line and through a device server, against pymodbus's servers."""

import asyncio
import logging

import numpy as np
import pytest
from tests.contract.modbus_rigs import make_certificates, server_context

from headrace.adapters.base import AdapterState, PlantFacts
from headrace.adapters.modbus.adapter import ModbusAdapter
from headrace.adapters.modbus.endpoints import ModbusLink
from headrace.adapters.modbus.simulator import ModbusSimulator, SimulatedLine, SimulatedUnit
from headrace.adapters.payloads.register_addresses import Area
from headrace.core.clock import SystemClock
from headrace.core.errors import ConfigError, NotConnected
from headrace.core.frames import FrameBatch
from headrace.core.problems import validate_section
from headrace.core.profiles import Profile
from headrace.core.quality import Quality
from headrace.core.settings import SignalSettings
from headrace.testing.adapters import RecordingSink, until

PROFILE = {
    "temperature": SignalSettings(address="holding:0:F32;order=CDAB"),
    "name": SignalSettings(address="holding:10:STR[8]"),
    "phases": SignalSettings(address="holding:20:I16[3];scale=0.1"),
    "total": SignalSettings(address="input:0:BCD32"),
    "pumps": SignalSettings(address="coil:3:BIT[2]"),
}


def adapter_of(devices, folder=None, profile=PROFILE, **config):
    config = {"profile": "p", "devices": devices, "interval": "20ms", "reconnect_first": "20ms", **config}
    settings = validate_section(ModbusAdapter.Config, config, "adapters.x")
    facts = PlantFacts() if folder is None else PlantFacts(folder=folder)
    return ModbusAdapter.from_config("x", settings, {"p": profile}, facts)


def unit_of(temperature=20.0):
    unit = SimulatedUnit()
    unit.holding[:2] = np.array([temperature], ">f4").view(">u2")[::-1]
    unit.holding[10:14] = np.frombuffer(b"OVEN 1\0\0", ">u2")
    unit.holding[20:23] = np.array([2301, -5, 0], np.int16).view(np.uint16)
    unit.input[:2] = 0x1234, 0x5678
    unit.coil[4] = True
    return unit


VALUES = {
    "temperature": 20.0, "name": "OVEN 1", "phases_0": 2301, "phases_1": -5, "phases_2": 0, "total": 12_345_678,
    "pumps_0": 0, "pumps_1": 1,
}  # fmt: skip


def latest(sink, path):
    found = {}
    for batch in sink.batches:
        for frame, slot in enumerate(batch.slot.tolist()):
            if sink.directory.paths[slot] != path:
                continue
            names = [c.name for c in sink.directory.layout(slot).columns]
            row = batch.values[frame].tolist()
            if batch.dictionary is not None:
                row = [batch.dictionary[code] for code in row]
            marks = [0] * len(row) if batch.quality is None else batch.quality[frame].tolist()
            found.update((n, v if not m else Quality(m)) for n, v, m in zip(names, row, marks, strict=True))
    return found


# --- TLS ---------------------------------------------------------------------------------------------


async def reason_of(adapter, state):
    """Why it does not come up; what it says once it has the state."""
    sink = RecordingSink()
    await adapter.start(sink)
    try:
        await until(lambda: adapter.diagnostics().state is state, f"it is {state}")
        return adapter.diagnostics().reason
    finally:
        await adapter.stop()


async def test_tls(tmp_path):
    make_certificates(tmp_path)
    plant = ModbusSimulator({1: unit_of()}, link=ModbusLink.TLS, tls=server_context(tmp_path))
    await plant.start()
    devices = {"l/d": plant.url()}
    ours = {"cert_file": "cert.pem", "key_file": "key.pem"}
    try:
        adapter, sink = adapter_of(devices, tmp_path, ca_file="cert.pem", **ours), RecordingSink()
        await adapter.start(sink)
        await until(lambda: len(latest(sink, "l/d")) == len(VALUES), "values arrive")
        assert latest(sink, "l/d") == VALUES
        found = await adapter.probe({"address": "holding:10:STR[8]"}, SystemClock())
        assert found["configured"]["value"] == "OVEN 1"
        await adapter.stop()
        wary = adapter_of(devices, tmp_path, **ours)
        reason = await reason_of(wary, AdapterState.FAILED)
        assert "its certificate is not trusted: self-signed certificate; see ca_file" in reason
        assert wary.diagnostics().devices[0].next_retry_ns > 0
        stranger = adapter_of(devices, tmp_path, ca_file="cert.pem")
        reason = await reason_of(stranger, AdapterState.BACKOFF)
        assert "closed by the device; it may ask for a certificate, see cert_file" in reason
        other = {"l/d": f"{plant.url()}&name=plc"}
        named = adapter_of(other, tmp_path, ca_file="cert.pem", **ours)
        await reason_of(named, AdapterState.CONNECTED)
        wrong = adapter_of({"l/d": f"{plant.url()}&name=oven"}, tmp_path, ca_file="cert.pem", **ours)
        assert "not trusted" in await reason_of(wrong, AdapterState.FAILED)
        (tmp_path / "key.pem").write_text("no key")
        broken = adapter_of(devices, tmp_path, ca_file="cert.pem", **ours)
        assert "TLS files can't be used" in await reason_of(broken, AdapterState.FAILED)
    finally:
        await plant.stop()


async def test_a_plain_device_where_tls_is_expected(tmp_path):
    plant = ModbusSimulator({1: SimulatedUnit()})
    await plant.start()
    try:
        adapter = adapter_of({"l/d": plant.url(timeout="100ms").replace("tcp", "tls")}, tmp_path)
        assert await reason_of(adapter, AdapterState.BACKOFF)
    finally:
        await plant.stop()


# --- serial lines ------------------------------------------------------------------------------------


@pytest.fixture(params=["line", "line with echo", "device server"])
async def line(request, tmp_path):
    simulator = ModbusSimulator({n: unit_of(20.0 + n) for n in (1, 2, 3)}, link=ModbusLink.RTU_TCP)
    if request.param == "device server":
        peer = simulator
    else:
        peer = SimulatedLine(tmp_path / "ttyS0", simulator, has_echo="echo" in request.param)
    await peer.start()
    yield simulator, peer
    await peer.stop()


async def test_many_units_on_one_line_and_a_dead_one_takes_nothing_from_the_others(line):
    simulator, peer = line
    # Those that answer have time to, on a machine that is busy, too.
    devices = {
        f"l/d{n}": peer.url(n, timeout) for n, timeout in ((1, "2s"), (2, "500ms"), (3, "2s"), (9, "150ms"))
    }
    adapter, sink = adapter_of(devices, interval="200ms", max_requests_per_s=1_000.0), RecordingSink()
    await adapter.start(sink)
    try:
        await until(lambda: all(len(latest(sink, f"l/d{n}")) == len(VALUES) for n in (1, 2, 3)), "all answer")
        for n in (1, 2, 3):
            assert latest(sink, f"l/d{n}") == {**VALUES, "temperature": 20.0 + n}
        await until(lambda: adapter.diagnostics().devices[3].state is AdapterState.BACKOFF, "one is dead")
        assert adapter.diagnostics().devices[3].reason == "no answer within 0.15 s"
        simulator.units[2].hang()
        await until(lambda: adapter.diagnostics().devices[1].state is AdapterState.BACKOFF, "one hangs")
        n = sink.n_samples
        await until(lambda: sink.n_samples > n + 4 * len(VALUES), "the others go on")
        states = [device.state for device in adapter.diagnostics().devices]
        assert states == [
            AdapterState.CONNECTED,
            AdapterState.BACKOFF,
            AdapterState.CONNECTED,
            AdapterState.BACKOFF,
        ]
        simulator.units[2].resume()
        await until(lambda: adapter.diagnostics().devices[1].state is AdapterState.CONNECTED, "it is back")
    finally:
        await adapter.stop()
    assert not sink.rejects


async def test_units_of_a_line_are_found(line):
    _, peer = line
    adapter = adapter_of({"l/d": peer.url(1, "30ms")}, interval="50ms", max_requests_per_s=1_000.0)
    sink = RecordingSink()
    await adapter.start(sink)
    try:
        await until(lambda: sink.n_samples > 0, "it is connected")
        found = await adapter.scan({"units": "1-4"}, SystemClock())
    finally:
        await adapter.stop()
    assert [(tag.name, tag.address, tag.dtype) for tag in found] == [
        (f"unit {n}", "holding:0:U16", "u16") for n in (1, 2, 3)
    ]
    assert all(f"unit={n}" in tag.device for n, tag in enumerate(found, 1))


async def test_a_garbled_answer_is_kept_and_the_device_waits(line, caplog):
    simulator, peer = line
    adapter, sink = adapter_of({"l/d": peer.url(1, "30ms")}), RecordingSink()
    simulator.corrupt = lambda data: data[:-1] + bytes((data[-1] ^ 1,))
    await adapter.start(sink)
    try:
        await until(lambda: bool(sink.rejects), "what came is kept")
        reject = sink.rejects[0]
        assert "no frame with the right checksum: 01" in reject.detail
        assert reject.raw[:1] == b"\x01"
        assert "garbled" in adapter.diagnostics().reason
        simulator.corrupt = None
        await until(lambda: len(latest(sink, "l/d")) == len(VALUES), "it is well again")
    finally:
        await adapter.stop()


async def test_a_simulated_line_can_be_stopped_at_any_time(tmp_path):
    line = SimulatedLine(tmp_path / "ttyS0", ModbusSimulator({1: SimulatedUnit()}, link=ModbusLink.RTU_TCP))
    await line.stop()
    await line.start()
    await line.stop()
    await line.stop()
    assert not line.path.exists()


async def test_a_peer_that_takes_connections_and_says_nothing_costs_the_others_nothing(plant):
    async def serve(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()

    mute = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    devices = {"l/d": plant.url(), "l/mute": f"modbus+tcp://127.0.0.1:{port}?timeout=50ms"}
    profile = {"t": SignalSettings(address="holding:0")}
    adapter, sink = adapter_of(devices, profile=profile), RecordingSink()
    peer = ModbusSimulator({1: SimulatedUnit()})
    await peer.start()
    alone, heard = adapter_of({"l/d": peer.url()}, profile=profile), RecordingSink()

    def counts():
        found = [one.diagnostics().devices[0] for one in (adapter, alone)]
        return np.array([(device.n_requests, device.n_polls_skipped) for device in found])

    await adapter.start(sink)
    await alone.start(heard)
    try:
        await until(lambda: bool(latest(sink, "l/d")) and bool(latest(heard, "l/d")), "they answer")
        before = counts()
        await until(
            lambda: "3 requests were not answered" in adapter.diagnostics().devices[1].reason, "it is told"
        )
        n, skipped = (counts() - before).T
    finally:
        await adapter.stop()
        await alone.stop()
        await peer.stop()
        mute.close()
        await mute.wait_closed()
    kept, kept_alone = n / (n + skipped)
    assert kept >= 0.7 * kept_alone, "but for what a busy machine does"
    assert adapter.diagnostics().devices[1].n_timeouts >= 3


async def test_one_line_is_set_in_one_way():
    with pytest.raises(ConfigError, match="set otherwise for 'l/a'; all devices of one line"):
        adapter_of(
            {"l/a": "modbus+rtu:///dev/ttyS0?unit=1", "l/b": "modbus+rtu:///dev/ttyS0?unit=2&baud=9600"}
        )


# --- registers that are missing, values that are tuned ------------------------------------------------


@pytest.fixture
async def plant():
    simulator = ModbusSimulator({1: unit_of()})
    await simulator.start()
    yield simulator
    await simulator.stop()


async def test_a_missing_register_is_told_once_and_takes_no_other_value_with_it(plant, caplog):
    plant.units[1].missing.add((Area.HOLDING, 33))
    profile = {f"r{i}": SignalSettings(address=f"holding:{30 + i}") for i in range(8)}
    adapter, sink = (
        adapter_of({"l/d": plant.url()}, profile=profile, max_requests_per_s=10_000.0),
        RecordingSink(),
    )
    with caplog.at_level(logging.INFO, "headrace.adapters.modbus"):
        await adapter.start(sink)
        try:
            await until(
                lambda: adapter.diagnostics().devices[0].reason.startswith("exception 2"), "it is found"
            )
            n = sink.n_samples
            await until(lambda: sink.n_samples > n + 16, "polls go on")
            device = adapter.diagnostics().devices[0]
        finally:
            await adapter.stop()
    assert device.problems == (("r3", "exception 2 (illegal data address)"),)
    assert device.state is AdapterState.DEGRADED
    marks = sink.batches[-1].quality
    assert (marks[-1] == [0, 0, 0, Quality.BAD_DEVICE, 0, 0, 0, 0]).all()
    assert [r.getMessage() for r in caplog.records] == [
        "adapter=x device=l/d exception 2 (illegal data address) reading holding:33..33"
    ]


async def test_what_was_heard_becomes_the_same_frames_again(plant):
    plant.units[1].missing.add((Area.HOLDING, 20))
    adapter, sink, heard = adapter_of({"l/d": plant.url()}, max_requests_per_s=10_000.0), RecordingSink(), []
    adapter.listen(heard.append)
    await adapter.start(sink)
    adapter.listen(None)
    adapter.listen(heard.append)
    try:
        await until(lambda: adapter.diagnostics().devices[0].problems == (
            ("phases_0", "exception 2 (illegal data address)"),), "it is found")  # fmt: skip
        n = sink.n_samples
        await until(lambda: sink.n_samples > n + 16, "polls go on")
    finally:
        await adapter.stop()
    batches, rejects = adapter_of({"l/d": plant.url()}).decode_captured(heard, sink.directory)
    assert not rejects
    for batch in batches:
        live = FrameBatch.concat([one for one in sink.batches if one.kind_key == batch.kind_key])
        n = live.n_frames  # the last answers may have come when it was stopped
        assert (batch.slot[:n] == live.slot).all()
        assert (batch.ts_ns[:n] - live.ts_ns <= 1_000_000).all()
        assert (batch.values[:n] == live.values).all()
        if live.quality is not None:
            assert (batch.quality[:n] == live.quality).all()
    assert len(batches) == len(adapter._plans[0].read_map.parts)


async def test_devices_of_one_type_share_a_profile_with_parameters(plant):
    plant.units[1].holding[100:102] = 7, 8
    plant.units[1].holding[200:202] = 70, 80
    signals = {
        "a": SignalSettings(address="holding:{base}", scale=0.5, add=1, unit="bar", convert_to="kPa"),
        "b": SignalSettings(address="holding:{base+1}", dead_band=2, heartbeat="1h"),
    }
    devices = {
        "l/d1": plant.url(),
        "l/d2": {"url": plant.url(), "parameters": {"base": 200}},
    }
    adapter = adapter_of(devices, profile=Profile(signals, {"base": 100}))
    sink = RecordingSink()
    await adapter.start(sink)
    try:
        await until(lambda: latest(sink, "l/d1") and latest(sink, "l/d2"), "both answer")
    finally:
        await adapter.stop()
    assert latest(sink, "l/d1") == {"a": 7, "b": 8}
    assert latest(sink, "l/d2") == {"a": 70, "b": 80}
    layout = sink.directory.layout(0)
    assert (layout.columns[0].unit, layout.columns[0].scale, layout.columns[0].offset) == ("kPa", 50.0, 100.0)
    assert layout.grid.values(np.array([[7, 8]])).tolist() == [[450.0, 8.0]]
    assert len({id(plan.read_map) for plan in adapter._plans}) == 2
    assert len({plan.read_map.parts for plan in adapter._plans}) == 1, "they are decoded together"
    assert sorted(sink.directory.dead_bands) == [0, 1]
    assert sink.directory.dead_bands[0].change.tolist() == [-1.0, 2.0]


# --- scans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_running", [True, False])
async def test_registers_are_found_and_guessed_at(plant, is_running):
    unit = plant.units[1]
    unit.missing |= {(Area.HOLDING, i) for i in (*range(16, 20), *range(24, 2_000))}
    unit.refuse[Area.INPUT, None] = 1
    unit.refuse[Area.DISCRETE, None] = 2
    adapter, sink = adapter_of({"l/d": plant.url()}, max_requests_per_s=10_000.0), RecordingSink()
    if is_running:
        await adapter.start(sink)
        await until(lambda: sink.n_samples > 0, "it is connected")
    found = await adapter.scan({"count": "40", "device": "l/d"}, SystemClock())
    await adapter.stop()
    by_address = {tag.address: tag for tag in found}
    registers = [tag.address for tag in found if tag.dtype == "u16"]
    assert registers == [f"holding:{i}:U16" for i in (*range(16), *range(20, 24))]
    assert by_address["holding:0:F32;order=CDAB"].value == 20.0
    assert by_address["holding:10:STR[6];order=ABCD"].value == "OVEN 1"
    assert [tag.address for tag in found if tag.dtype == "u8"] == [f"coil:{i}" for i in range(40)]
    assert by_address["coil:3"].kind == "discrete"
    assert not [tag for tag in found if tag.problem]


async def test_a_scan_by_url_that_has_few_requests_says_what_it_left(plant):
    plant.units[1].missing.add((Area.HOLDING, 5))
    wanted = {"url": plant.url(), "areas": "holding", "count": "16", "requests": "3"}
    found = await ModbusAdapter.scan_url(wanted, SystemClock())
    assert [tag.address for tag in found if tag.dtype == "u16"] == [f"holding:{i}:U16" for i in range(8, 16)]
    left = [tag for tag in found if tag.problem]
    assert [tag.address for tag in left] == ["holding:0..3", "holding:4..7"]
    assert "allow more requests" in left[0].problem
    adapter = adapter_of({"l/d": plant.url()})
    assert len(await adapter.scan({**wanted, "requests": "100"}, SystemClock())) >= 15


async def test_a_scan_of_a_device_that_is_away(plant):
    plant.units[1].hang()
    # Time enough to connect on a machine that is busy.
    adapter = adapter_of({"l/d": plant.url(timeout="150ms")}, max_requests_per_s=1_000.0)
    with pytest.raises(NotConnected, match="5 requests in a row were not answered"):
        await adapter.scan({}, SystemClock())
    await asyncio.sleep(0)
