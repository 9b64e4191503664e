"""The simulated devices over real sockets: other people's clients read exactly what the fleet measures."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import psutil
import pytest
from asyncua import Client, ua
from pymodbus.client import AsyncModbusTcpClient

from headrace.adapters.base import PlantFacts
from headrace.adapters.modbus.config import ModbusConfig, device_plans
from headrace.adapters.opcua.config import OpcuaConfig, opcua_plans
from headrace.adapters.opcua.simulator import NAMESPACE
from headrace.adapters.payloads.sparkplug import SparkplugPayload, read_payload
from headrace.adapters.sparkplug.adapter import SparkplugAdapter
from headrace.adapters.sparkplug.config import SparkplugConfig
from headrace.core.clock import NS, ScaledClock, SystemClock, VirtualClock, monotonic_ns
from headrace.core.config import load_plant
from headrace.core.errors import Unreachable
from headrace.core.profiles import resolve_profiles
from headrace.sim.calendars import CONTINUOUS, DAY_SHIFT
from headrace.sim.devices.broker import Broker, BrokerProgram, find_mosquitto
from headrace.sim.devices.modbus import ModbusGateways
from headrace.sim.devices.mqtt import PayloadStyle, Publisher, messages
from headrace.sim.devices.opcua import OpcuaCell
from headrace.sim.devices.sparkplug import DeviceReport, EdgeNodes, metrics, reports
from headrace.sim.fleet import Fleet
from headrace.sim.plant import MODBUS_PROFILES, MQTT_PROFILES, OPCUA_PROFILES, demo_plant, plant_clock
from headrace.sim.plant_file import STYLES
from headrace.sim.profiles import PROBE, ROBOT, Rest

MONDAY_NS = 1_795_424_400 * NS
PROGRAMS = [
    pytest.param(p, marks=pytest.mark.skipif(p == "mosquitto" and not find_mosquitto(), reason="no mosquitto here"))
    for p in BrokerProgram
]  # fmt: skip


async def until(met: object, what: str) -> None:
    """Wait until a condition is met, at most ten seconds."""
    deadline = monotonic_ns() + 10 * NS
    while not met():  # type: ignore[operator]
        assert monotonic_ns() < deadline, what
        await SystemClock().sleep(0.01)


def address(url: str) -> tuple[str, int, int]:
    host, _, rest = url.removeprefix("modbus+tcp://").partition(":")
    port, _, unit = rest.partition("?unit=")
    return host, int(port), int(unit)


# --- Modbus ------------------------------------------------------------------------------------------


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(448, seed=1, profiles=MODBUS_PROFILES, plans=(CONTINUOUS,))


@pytest.fixture
async def gateways(fleet: Fleet) -> AsyncIterator[ModbusGateways]:
    clock = VirtualClock(MONDAY_NS + 123_456_789)
    gateways = ModbusGateways(fleet, clock, [[0, 1, 2], [3, 4], [5, 6, 7]])
    await gateways.start()
    yield gateways
    await gateways.stop()


async def test_a_client_reads_exactly_what_the_fleet_measures(fleet: Fleet, gateways: ModbusGateways) -> None:
    assert len({address(url)[1] for url in gateways.urls.values()}) == 3
    for device, path in enumerate(fleet.paths(np.arange(8))):
        host, port, unit = address(gateways.urls[path])
        client = AsyncModbusTcpClient(host, port=port)
        await client.connect()
        plan = gateways.tables.plans[device % 3]
        holding = await client.read_holding_registers(0, count=plan.n_registers, device_id=unit)
        coils = await client.read_coils(0, count=plan.n_coils, device_id=unit)
        client.close()
        registers, words = plan.tables(fleet.all_values(np.array([device]), np.array([MONDAY_NS])))
        assert holding.registers == registers[0].tolist()
        expected = np.unpackbits(words[0].astype("<u2").view(np.uint8), bitorder="little")
        assert coils.bits[: plan.n_coils] == expected[: plan.n_coils].astype(bool).tolist()


async def test_a_raw_socket_gets_the_frame_of_the_standard(fleet: Fleet, gateways: ModbusGateways) -> None:
    host, port, unit = address(gateways.urls[fleet.paths(np.array([0]))[0]])
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(struct.pack(">HHHBBHH", 7, 0, 6, unit, 3, 2, 4))
    answer = await reader.readexactly(9 + 8)
    assert struct.unpack(">HHHBBB", answer[:9]) == (7, 0, 11, unit, 3, 8)
    values = fleet.values(np.array([0]), np.array([MONDAY_NS]))
    assert struct.unpack(">4H", answer[9:]) == tuple(values[0, 2:6].tolist())
    writer.close()
    await writer.wait_closed()


async def test_what_a_device_does_not_have_is_answered_with_an_error(
    fleet: Fleet, gateways: ModbusGateways
) -> None:
    host, port, unit = address(gateways.urls[fleet.paths(np.array([0]))[0]])
    client = AsyncModbusTcpClient(host, port=port)
    await client.connect()
    beyond = await client.read_holding_registers(
        gateways.tables.plans[0].n_registers - 1, count=2, device_id=unit
    )
    inputs = await client.read_input_registers(0, count=1, device_id=unit)
    written = await client.write_register(0, 1, device_id=unit)
    other = await client.read_holding_registers(0, count=1, device_id=9)
    client.close()
    assert [r.exception_code for r in (beyond, inputs, written, other)] == [2, 2, 1, 11]


async def test_closed_gateways_leave_nothing(fleet: Fleet) -> None:
    before = asyncio.all_tasks()
    gateways = ModbusGateways(fleet, VirtualClock(MONDAY_NS), [[0], [1]])
    await gateways.start()
    host, port, _ = address(next(iter(gateways.urls.values())))
    reader, writer = await asyncio.open_connection(host, port)
    await gateways.stop()
    await gateways.stop()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(OSError, match=str(port)):
        await asyncio.open_connection(host, port)
    await until(lambda: asyncio.all_tasks() == before, "tasks are left")


async def test_an_address_that_can_not_be_had_is_said(fleet: Fleet) -> None:
    gateways = ModbusGateways(fleet, VirtualClock(MONDAY_NS), [[0]], host="203.0.113.1")
    with pytest.raises(Unreachable, match=r"203\.0\.113\.1"):
        await gateways.start()


# --- MQTT --------------------------------------------------------------------------------------------


class Subscriber:
    """A paho client that keeps what it gets."""

    def __init__(self, port: int, client_id: str = "reader") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=False)
        self._client.username_pw_set("reader")
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(params=PROGRAMS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "broker", request.param)
    await broker.start()
    yield broker
    await broker.stop()


async def test_a_subscriber_gets_exactly_what_the_fleet_reports(broker: Broker) -> None:
    fleet = Fleet(300, seed=1, dtype="f64", profiles=MQTT_PROFILES, plans=(CONTINUOUS,))
    expected = [
        (m.topic, m.payload)
        for frames in fleet.frames(MONDAY_NS, MONDAY_NS + 30 * NS)
        for m in messages(fleet, frames, STYLES.get(frames.type.profile.name, PayloadStyle.JSON))
    ]
    assert {topic.partition("/")[0] for topic, _ in expected} == {"plant", "rows", "values"}
    subscriber = Subscriber(broker.port)
    publisher = Publisher(fleet, VirtualClock(MONDAY_NS), (broker.host, broker.port), STYLES)
    try:
        await until(subscriber.subscribed.is_set, "not subscribed")
        await publisher.start()
        await publisher.publish(MONDAY_NS, MONDAY_NS + 30 * NS)
        await publisher.drained()
        await until(lambda: len(subscriber.messages) >= len(expected), "messages are missing")
        assert subscriber.messages == expected
        assert publisher.n_published == publisher.n_acknowledged == len(expected)
        samples = sum(f.values.size for f in fleet.frames(MONDAY_NS, MONDAY_NS + 30 * NS))
        assert publisher.n_samples == samples
    finally:
        await publisher.stop()
        subscriber.close()


async def test_the_publisher_follows_the_clock_without_gap_or_overlap(broker: Broker) -> None:
    fleet = Fleet(100, seed=1, dtype="f64", profiles=MQTT_PROFILES[:2], plans=(CONTINUOUS,))
    clock = VirtualClock(MONDAY_NS)
    subscriber = Subscriber(broker.port)
    publisher = Publisher(fleet, clock, (broker.host, broker.port), {}, step_s=0.25)
    try:
        await until(subscriber.subscribed.is_set, "not subscribed")
        await publisher.start()
        for seconds in (0.25, 1.0, 90.0, 0.3, 9.7):
            clock.advance(seconds)
            await SystemClock().sleep(0.05)
        expected = {
            (m.topic, m.payload)
            for frames in fleet.frames(MONDAY_NS, MONDAY_NS + 100 * NS)
            for m in messages(fleet, frames, PayloadStyle.JSON)
        }

        def caught_up() -> bool:
            clock.advance(0.25)
            return expected <= set(subscriber.messages)

        await until(caught_up, "messages are missing")
        assert len(subscriber.messages) == len(set(subscriber.messages))
    finally:
        await publisher.stop()
        await publisher.stop()
        subscriber.close()


async def test_the_broker_keeps_messages_for_a_reader_that_is_away(broker: Broker) -> None:
    fleet = Fleet(50, seed=1, dtype="f64", profiles=MQTT_PROFILES, plans=(CONTINUOUS,))
    first = Subscriber(broker.port)
    await until(first.subscribed.is_set, "not subscribed")
    first.close()
    publisher = Publisher(fleet, VirtualClock(MONDAY_NS), (broker.host, broker.port), {})
    await publisher.start()
    await publisher.publish(MONDAY_NS, MONDAY_NS + 60 * NS)
    await publisher.drained()
    await publisher.stop()
    again = Subscriber(broker.port)
    try:
        await until(lambda: len(again.messages) == publisher.n_published, "kept messages are missing")
    finally:
        again.close()


@pytest.mark.skipif(not find_mosquitto(), reason="no mosquitto here")
async def test_a_publisher_survives_its_broker(tmp_path: Path) -> None:
    fleet = Fleet(50, seed=1, dtype="f64", profiles=MQTT_PROFILES, plans=(CONTINUOUS,))
    broker = Broker(tmp_path, BrokerProgram.MOSQUITTO)
    await broker.start()
    port = broker.port
    publisher = Publisher(fleet, VirtualClock(MONDAY_NS), (broker.host, port), {})
    await publisher.start()
    await publisher.publish(MONDAY_NS, MONDAY_NS + 5 * NS)
    await publisher.drained()
    await broker.stop()
    await broker.start()
    assert broker.port == port
    await publisher.publish(MONDAY_NS + 5 * NS, MONDAY_NS + 10 * NS)
    await publisher.drained()
    assert publisher.n_acknowledged + publisher.n_forgotten == publisher.n_published
    await publisher.stop()
    await broker.stop()


async def test_a_broker_ends_and_says_why_it_does_not_start(tmp_path: Path, broker: Broker) -> None:
    clash = Broker(tmp_path / "clash", broker.program)
    clash.port = broker.port
    clash.host = "203.0.113.1"
    with pytest.raises(Unreachable, match=f"{broker.program} does not start"):
        await clash.start()
    await clash.stop()
    await broker.stop()
    await broker.stop()
    with socket.socket() as probe:
        assert probe.connect_ex((broker.host, broker.port)) != 0


async def test_without_a_broker_there_is_no_publisher() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    publisher = Publisher(
        Fleet(10, profiles=MQTT_PROFILES[:1]), VirtualClock(MONDAY_NS), ("127.0.0.1", port), {}
    )
    with pytest.raises(OSError, match=str(port)):
        await publisher.start()
    await publisher.stop()


async def test_a_publisher_that_fails_says_so(broker: Broker) -> None:
    # A waveform has no payload: the publisher can't go on.
    fleet = Fleet(3, seed=1, profiles=(replace(PROBE, period_ns=NS, n_values=8),), plans=(CONTINUOUS,))
    clock = VirtualClock(MONDAY_NS)
    publisher = Publisher(fleet, clock, (broker.host, broker.port), {})
    await publisher.start()
    failing = asyncio.create_task(publisher.ended())

    def failed() -> bool:
        clock.advance(1.0)
        return failing.done()

    await until(failed, "it goes on")
    with pytest.raises(ValueError, match="waveforms"):
        await failing
    with pytest.raises(ValueError, match="waveforms"):
        await publisher.stop()
    await publisher.stop()


# --- OPC UA ------------------------------------------------------------------------------------------


class Told:
    """What a subscription of asyncua's client is told: (name, value, time) each."""

    def __init__(self) -> None:
        self.values: list[tuple[str, object, int]] = []

    def datachange_notification(self, node: object, value: object, data: object) -> None:
        found = data.monitored_item.Value  # type: ignore[attr-defined]
        source_ns = round(found.SourceTimestamp.timestamp() * 10) * NS // 10
        self.values.append((node.nodeid.Identifier, value, source_ns))  # type: ignore[attr-defined]


async def test_a_client_of_opc_ua_is_told_exactly_what_changes() -> None:
    fleet = Fleet(96, seed=1, profiles=OPCUA_PROFILES, plans=(CONTINUOUS,))
    clock = VirtualClock(MONDAY_NS + 200_000_000)
    cell = OpcuaCell(fleet, clock)
    await cell.start()

    def measured(at_ns: int) -> dict[str, object]:
        devices = np.arange(2)
        values = fleet.all_values(devices, np.full(2, at_ns))
        return {
            f"line1.press{row + 1}.{column.name}": one[row, i].item()
            for part, one in zip(fleet.types[0].parts, values, strict=True)
            for i, column in enumerate(part.layout.columns)
            for row in range(2)
        }

    before, after = measured(MONDAY_NS), measured(MONDAY_NS + NS)
    changed = {name: value for name, value in after.items() if value != before[name]}
    assert 20 < len(changed) < 96
    urls = cell.urls
    assert [url.partition("node=")[2] for url in urls.values()] == ["line1.press1", "line1.press2"]
    told = Told()
    try:
        async with Client(urls["leon/paint/line1/press1"].partition("?")[0], 10.0) as client:
            index = await client.get_namespace_index(NAMESPACE)
            nodes = [client.get_node(ua.NodeId(name, index)) for name in before]
            subscription = await client.create_subscription(20, told)
            await subscription.subscribe_data_change(nodes)
            await until(lambda: len(told.values) == 96, "first values are missing")
            assert {name: (value, at) for name, value, at in told.values} == {
                name: (value, MONDAY_NS) for name, value in before.items()
            }
            kinds = {
                name: (
                    await client.get_node(ua.NodeId(f"line1.press1.{name}", index)).read_data_value()
                ).Value
                for name in ("pressure", "parts", "mode", "running")
            }
            assert [kind.VariantType.name for kind in kinds.values()] == [
                "Double",
                "UInt32",
                "UInt16",
                "Boolean",
            ]
            clock.advance(0.8)
            await until(lambda: len(told.values) == 96 + len(changed), "changes are missing")
            assert {name: (value, at) for name, value, at in told.values[96:]} == {
                name: (value, MONDAY_NS + NS) for name, value in changed.items()
            }
        assert cell.n_changes == len(changed)
    finally:
        before_stop = monotonic_ns()
        await cell.stop()
        assert monotonic_ns() - before_stop < 2 * NS
        await cell.stop()


async def test_an_address_for_opc_ua_that_can_not_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(48, seed=1, profiles=OPCUA_PROFILES)
    with pytest.raises(Unreachable, match=r"203\.0\.113\.1"):
        await OpcuaCell(fleet, VirtualClock(MONDAY_NS), host="203.0.113.1").start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("headrace.sim.devices.opcua.free_port", lambda host: taken.getsockname()[1])
        cell = OpcuaCell(fleet, VirtualClock(MONDAY_NS))
        with pytest.raises(Unreachable, match="can't listen"):
            await cell.start()
        await cell.stop()


# --- Sparkplug ---------------------------------------------------------------------------------------


class Host(Subscriber):
    """A primary host: it says whether it is there, and understands what it hears."""

    def state(self, is_online: bool, time_ms: int) -> None:
        payload = json.dumps({"online": is_online, "timestamp": time_ms})
        self._client.publish("spBv1.0/STATE/headrace", payload, qos=1, retain=True)

    @property
    def heard(self) -> list[tuple[str, SparkplugPayload]]:
        """Kind and device of each message, with its payload."""
        split = [(topic.split("/"), payload) for topic, payload in self.messages if "/STATE/" not in topic]
        return [(" ".join(levels[2:3] + levels[4:]), read_payload(payload)) for levels, payload in split]

    def kinds(self, first: int = 0) -> list[str]:
        return [kind for kind, _ in self.heard[first:]]


async def test_robots_are_born_report_by_exception_and_die_with_their_shift(broker: Broker) -> None:
    fleet = Fleet(60, seed=1, profiles=(ROBOT,), plans=(DAY_SHIFT,), line_offset_s=0)
    end_ns = MONDAY_NS + 6 * 3_600 * NS
    begin_ns = end_ns - 30 * NS
    known = metrics(fleet.types[0])
    host = Host(broker.port)
    nodes = EdgeNodes(fleet, VirtualClock(begin_ns), (broker.host, broker.port))
    (node,) = nodes.nodes
    try:
        await until(host.subscribed.is_set, "not subscribed")
        await nodes.start()
        nodes.report(begin_ns - 10 * NS, begin_ns)
        host.state(True, 5)
        await until(lambda: node.has_host, "the host is not heard")
        for second in range(0, 50, 10):
            nodes.report(begin_ns + second * NS, begin_ns + (second + 10) * NS)
        wanted = reports(fleet, begin_ns, end_ns)
        await until(lambda: len(host.heard) >= 1 + 3 + len(wanted) + 3, "messages are missing")
        told = host.heard
        assert host.kinds()[:1] == ["NBIRTH"]
        assert sorted(host.kinds()[1:4]) == [f"DBIRTH robot{n}" for n in (1, 2, 3)]
        assert sorted(host.kinds()[-3:]) == [f"DDEATH robot{n}" for n in (1, 2, 3)]
        assert [payload.seq for _, payload in told] == [i % 256 for i in range(len(told))]
        names: dict[int | None, str] = {}
        for kind, payload in told[1:4]:
            device = int(kind[-1]) - 1
            now = fleet.all_values(np.array([device]), np.array([begin_ns]))
            assert [(one.name, one.value) for one in payload.metrics] == [
                (metric.name, metric.value(raw))
                for metric, raw in zip(known, (raw for part in now for raw in part[0].tolist()), strict=True)
            ]
            assert {one.time_ms for one in payload.metrics} == {begin_ns // 10**6}
            names |= {one.alias: one.name for one in payload.metrics}
        assert len(names) == 60
        said = [
            (kind, one.time_ms, names[one.alias], one.value)
            for kind, payload in told[4:-3]
            for one in payload.metrics
        ]
        assert said == [
            (f"DDATA robot{one.device + 1}", one.ts_ns // 10**6, known[i].name, known[i].value(raw))
            for one in wanted
            for i, raw in one.values
        ]
        assert 0.1 < len(said) / (len(wanted) * len(known)) < 0.9
        assert nodes.counts() == {"births": 1, "deaths": 3, "samples": 60 + len(said)}
    finally:
        await nodes.stop()
        await nodes.stop()
        host.close()


async def test_an_edge_node_heeds_its_host_and_comes_back_after_its_broker(broker: Broker) -> None:
    fleet = Fleet(20, seed=1, profiles=(replace(ROBOT, rest=Rest.REPORTS),), plans=(DAY_SHIFT,))
    clock = VirtualClock(MONDAY_NS)
    host = Host(broker.port)
    nodes = EdgeNodes(fleet, clock, (broker.host, broker.port))
    (node,) = nodes.nodes
    try:
        await until(host.subscribed.is_set, "not subscribed")
        await nodes.start()
        host.state(True, 5)
        await until(lambda: node.has_host, "the host is not heard")
        host.state(False, 4)  # the will of an older connection
        host.state(True, 5)
        host.state(False, 6)
        await until(lambda: not node.has_host, "the host has gone")
        nodes.report(MONDAY_NS, MONDAY_NS + 5 * NS)
        host.state(True, 7)
        await until(lambda: node.has_host, "the host is back")
        await until(lambda: host.kinds() == ["NBIRTH"] * 2, f"two births: {host.kinds()}")
        nodes.report(MONDAY_NS + 5 * NS, MONDAY_NS + 5 * NS + 1)
        assert node.n_samples == 20
        node.report(
            DeviceReport(MONDAY_NS + 5 * NS + 999_999, 0, [(0, 1.0)])
        )  # its birth has told of that millisecond
        assert node.n_samples == 20
        n_before = len(host.heard)
        await node.kill()
        await until(lambda: not node.is_connected, "it is still connected")

        def is_back() -> bool:
            clock.advance(0.5)
            return set(host.kinds(n_before)) >= {"NDEATH", "NBIRTH", "DBIRTH robot1", "DDATA robot1"}

        address, node._address = node._address, ("127.0.0.1", 1)
        clock.advance(0.5)
        await SystemClock().sleep(0.01)
        assert not node.is_connected
        node._address = address
        await until(is_back, "it is not born again")
        assert node.bdseq > 0
        await nodes.stop()
        await until(lambda: host.kinds()[-1] == "NDEATH", "it goes without a word")
    finally:
        await nodes.stop()
        host.close()


# --- the plant ---------------------------------------------------------------------------------------


async def test_the_plant_file_connects_to_the_plant(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    plant = demo_plant(3, ScaledClock(20.0, MONDAY_NS), tmp_path, speed=20.0)
    config = load_plant(await plant.start())
    facts = PlantFacts(config.plant.levels, config.plant.timezone)
    profiles = resolve_profiles(config.profiles)
    n_sensors = 0
    for name, section in config.adapters.items():
        if section.protocol == "modbus":
            plans = device_plans(name, ModbusConfig.model_validate(section.options), profiles, facts)
            assert len(plans) == 8
            n_sensors += sum(p.read_map.width for p in plans)
            assert {p.path: (p.endpoint.host, p.endpoint.port, p.url.unit) for p in plans} == {
                p.path: address(plant.gateways.urls[p.path]) for p in plans
            }
    assert n_sensors == plant.fleets.modbus.n_sensors
    ua_plans = opcua_plans(
        "press", OpcuaConfig.model_validate(config.adapters["press"].options), profiles, facts
    )
    assert plant.cell is not None
    assert plant.fleets.opcua is not None
    assert sum(one.n_sensors for one in ua_plans) == plant.fleets.opcua.n_sensors
    assert {one.path for one in ua_plans} == set(plant.cell.urls)
    broker, edge = config.adapters["broker"], config.adapters["edge"]
    assert broker.url == edge.url == plant.broker.url
    SparkplugAdapter.from_config("edge", SparkplugConfig.model_validate(edge.options), {}, facts)
    assert set(broker.topics) == {
        "plant/{area}/{line}/{device}",
        "rows/{area}/{line}/{device}",
        "values/{area}/{line}/{device}/{signal}",
    }
    await until(lambda: plant.counts()["acknowledged"] > 100, "nothing is published")
    began = monotonic_ns()
    await plant.stop()
    assert monotonic_ns() - began < 2 * NS
    await plant.stop()
    counts = plant.counts()
    assert counts["published"] == counts["acknowledged"]
    await until(lambda: asyncio.all_tasks() == before, "tasks are left")


async def test_a_plant_that_can_not_start_stops_what_it_started(tmp_path: Path) -> None:
    plant = demo_plant(1, VirtualClock(MONDAY_NS), tmp_path)
    plant.broker.host = "203.0.113.1"
    before = asyncio.all_tasks()
    with pytest.raises(Unreachable):
        await plant.start()
    assert not plant.file.exists()
    host, port, _ = address(next(iter(plant.gateways.urls.values())))
    with pytest.raises(OSError, match=str(port)):
        await asyncio.open_connection(host, port)
    await until(lambda: asyncio.all_tasks() == before, "tasks are left")


def test_two_processes_can_share_a_plant_clock() -> None:
    assert isinstance(plant_clock(1.0, 5), SystemClock)
    anchor_ns = SystemClock().now_ns() - 10 * NS
    one, other = plant_clock(60.0, anchor_ns), plant_clock(60.0, anchor_ns)
    assert abs(one.now_ns() - other.now_ns()) < NS
    assert abs(one.now_ns() - anchor_ns - 600 * NS) < 10 * NS


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "headrace.sim.plant",
        "--folder",
        str(tmp_path),
        "--until-eof",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def ready(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    found: dict[str, object] = json.loads(process.stdout.readline())
    return found


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_as_a_process_it_says_when_it_is_ready_and_stops_on_a_signal(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    said = ready(process)
    assert said["plant"] == str(tmp_path / "plant.toml")
    assert said["sensors"] == 2_568
    assert said["pid"] == process.pid
    brokers = psutil.Process(process.pid).children()
    assert len(brokers) == 1
    began = monotonic_ns()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert monotonic_ns() - began < 2 * NS
    assert process.returncode == 0
    assert err == b""
    counts = json.loads(out)
    assert counts["published"] == counts["acknowledged"]
    assert gone(brokers[0].pid)


async def test_as_a_process_it_ends_with_its_reader(process: subprocess.Popen[bytes]) -> None:
    ready(process)
    process.communicate(b"", timeout=10)
    assert process.returncode == 0


async def test_its_broker_ends_with_it_even_when_it_is_killed(process: subprocess.Popen[bytes]) -> None:
    ready(process)
    (broker,) = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    await until(lambda: gone(broker.pid), "the broker is left behind")
