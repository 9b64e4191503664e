"""Edge nodes with devices that speak to a broker: births, data by alias, deaths by will, rebirth when asked.

`SimulatedEdge` is what all nodes do. `SimulatedNode` measures at random and keeps what it sends, so that a test can compare it with
what arrives.
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import gmqtt
import numpy as np
from gmqtt.mqtt.constants import MQTTv311

from headrace.adapters.broker.client import SingleConnection
from headrace.adapters.payloads.base import PayloadError
from headrace.adapters.payloads.sparkplug import BDSEQ, TEXTS, DataType, read_payload
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.sparkplug.config import NAMESPACE
from headrace.adapters.sparkplug.topics import REBIRTH, state_topic
from headrace.core.clock import SystemClock

_IN_FLIGHT_MAX = 10
_WORDS = ("running", "stopped", "fault", "größer")
_START_MS = 1_795_446_000_000


@dataclass(frozen=True, slots=True)
class SimulatedMetric:
    """What a simulated device measures."""

    name: str
    datatype: int = DataType.DOUBLE
    unit: str | None = None


class SentSample(NamedTuple):
    """One value that was sent: who, what, when, and the value (None: null)."""

    device: str
    metric: str
    time_ms: int
    value: float | bool | str | None


TANK = (
    SimulatedMetric("Temperature", DataType.DOUBLE, "degC"),
    SimulatedMetric("Inlet/Flow", DataType.FLOAT, "m3/h"),
    SimulatedMetric("Level", DataType.INT32),
    SimulatedMetric("Running", DataType.BOOLEAN),
    SimulatedMetric("State", DataType.STRING),
)


class SimulatedEdge:
    """An edge node: its connection, its lives, and the order of its messages.

    Parameters
    ----------
    node_id : group and node. qos : of births and data. user : as whom it speaks to a broker that wants to know.
    host_id : its primary host, which it watches: it tells its births when that one is there; empty: to whom it may concern.

    Attributes
    ----------
    n_births : births of the node. n_commands : rebirths that were asked for. is_connected : until the connection ends.
    has_host : whether someone is there to be told. time_ms : of its messages.
    """

    def __init__(
        self,
        address: tuple[str, int],
        node_id: tuple[str, str],
        qos: int = 0,
        *,
        user: str | None = None,
        host_id: str = "",
    ) -> None:
        self.n_births = 0
        self.n_commands = 0
        self.bdseq = -1
        self.time_ms = _START_MS
        self.is_connected = False
        self.has_host = not host_id
        self._host = state_topic(host_id) if host_id else ""
        self._host_ms = 0
        self._address = address
        self._group, self._node = node_id
        self._qos = qos
        self._user = user
        self._seq = 0
        self._client: SingleConnection | None = None
        self._clock = SystemClock()

    @abstractmethod
    def born(self) -> Iterable[tuple[str, Sequence[SparkplugValue]]]:
        """What births say: the present metrics of the node itself (an empty name) and of each device that lives."""

    # --- life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, with a death for the broker to tell, and tell the births, or wait for the host.

        Raises
        ------
        OSError : no broker there.
        """
        self._host_ms, self.has_host = 0, not self._host
        self.bdseq = (self.bdseq + 1) % 256
        will = gmqtt.Message(self._topic("NDEATH"), self._death(), qos=1)
        client = SingleConnection(f"node-{self._group}-{self._node}", will_message=will)
        if self._user is not None:
            client.set_auth_credentials(self._user)
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        subscribed = asyncio.Event()
        client.on_subscribe = lambda *rest: subscribed.set()
        self._client = client
        await client.connect(*self._address, version=MQTTv311)
        topics = [self._topic("NCMD"), self._host] if self._host else [self._topic("NCMD")]
        client.subscribe([gmqtt.Subscription(topic, qos=1) for topic in topics])
        await subscribed.wait()
        self.is_connected = True
        if not self._host:
            self.tell_births()

    def tell_births(self) -> None:
        """The births of the node and of its devices."""
        self._seq = 0
        self.n_births += 1
        said = dict(self.born())
        own = [
            SparkplugValue(self.bdseq, DataType.INT64, BDSEQ, time_ms=self.time_ms),
            SparkplugValue(False, DataType.BOOLEAN, REBIRTH, time_ms=self.time_ms),
        ]
        self.tell("NBIRTH", "", [*own, *said.pop("", ())])
        for device, values in said.items():
            self.tell("DBIRTH", device, values)

    async def stop(self) -> None:
        """Tell our own death and go."""
        assert self._client is not None
        self._client.publish(self._topic("NDEATH"), self._death(), qos=1)
        await self.delivered()
        await self._client.disconnect()

    async def kill(self) -> None:
        """Go without a word: the broker tells our death."""
        assert self._client is not None
        self._client._connection._transport.abort()
        await self._client.disconnect()

    async def delivered(self) -> None:
        """Wait until the broker has acknowledged everything that was sent at QoS 1. Raises NotConnected after 30 s."""
        assert self._client is not None
        await self._client.delivered()

    # --- messages ------------------------------------------------------------------------------------

    def tell(self, kind: str, device: str, values: Sequence[SparkplugValue]) -> None:
        """Send the next message: ``DBIRTH``, ``DDATA``, ..."""
        self._publish(*self._message(device, values, kind))

    def tell_death(self, device: str) -> None:
        """A device has gone."""
        self.tell("DDEATH", device, [])

    def _message(
        self, device: str, values: Sequence[SparkplugValue], kind: str = "DDATA"
    ) -> tuple[str, bytes]:
        """Topic and payload of the next message."""
        payload = write_payload(self.time_ms, self._seq, values)
        self._seq = (self._seq + 1) % 256
        return self._topic(kind, device), payload

    def _death(self) -> bytes:
        return write_payload(self.time_ms, None, [SparkplugValue(self.bdseq, DataType.INT64, BDSEQ)])

    # --- the wire ------------------------------------------------------------------------------------

    def _topic(self, kind: str, device: str = "") -> str:
        return "/".join(filter(None, (NAMESPACE, self._group, kind, self._node, device)))

    def _publish(self, topic: str, payload: bytes) -> None:
        assert self._client is not None
        self._client.publish(topic, payload, qos=self._qos)

    async def _has_window(self) -> None:
        assert self._client is not None
        while len(self._client._persistent_storage.get_all()) >= _IN_FLIGHT_MAX:
            await self._clock.sleep(0.001)

    def _on_message(
        self, client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: dict[str, object]
    ) -> int:
        if topic == self._host:
            self._heed_host(bytes(payload))
            return 0
        try:
            commands = read_payload(bytes(payload)).metrics
        except PayloadError:
            commands = ()
        if any(one.name == REBIRTH and one.value is True for one in commands):
            self.n_commands += 1
            self.tell_births()
        return 0

    def _heed_host(self, payload: bytes) -> None:
        """The host comes or goes; its will of an older connection, which comes late, has an older time."""
        state = json.loads(payload)
        if state["timestamp"] < self._host_ms:
            return
        self._host_ms = state["timestamp"]
        came, self.has_host = state["online"] and not self.has_host, state["online"]
        if came:
            self.tell_births()

    def _on_disconnect(self, client: gmqtt.Client, *rest: object) -> None:
        self.is_connected = False


class SimulatedNode(SimulatedEdge):
    """A node whose devices measure at random.

    Parameters
    ----------
    devices : metrics by device; those of the node itself under an empty name.
    seed : of values. has_aliases : whether data name metrics by alias.

    Attributes
    ----------
    sent : every value so far.
    """

    def __init__(
        self,
        address: tuple[str, int],
        node_id: tuple[str, str],
        devices: Mapping[str, Sequence[SimulatedMetric]],
        seed: int = 0,
        has_aliases: bool = True,
        qos: int = 0,
    ) -> None:
        super().__init__(address, node_id, qos)
        self.sent: list[SentSample] = []
        self.time_ms += 1_000_000 * seed
        self._devices = devices
        self._has_aliases = has_aliases
        self._rng = np.random.default_rng(seed)
        names = [(device, metric.name) for device, metrics in devices.items() for metric in metrics]
        self._alias = {name: number for number, name in enumerate(names)}

    def born(self) -> Iterable[tuple[str, Sequence[SparkplugValue]]]:
        """New values of everything."""
        return [(one, self._values(one, metrics, is_birth=True)) for one, metrics in self._devices.items()]

    async def report(self, device: str = "", names: Sequence[str] | None = None) -> int:
        """Send new values of a device, or of some of its metrics; how many."""
        values = self._next(device, names)
        await self._has_window()
        self.tell("DDATA" if device else "NDATA", device, values)
        return len(values)

    async def report_swapped(self, device: str) -> int:
        """Send two messages of a device, the later one first; how many values."""
        first, second = (self._message(device, self._next(device, None)) for _ in range(2))
        for topic, payload in (second, first):
            await self._has_window()
            self._publish(topic, payload)
        return 2 * len(self._devices[device])

    def lose(self, device: str) -> None:
        """Number a message that nobody gets."""
        kept = list(self.sent)
        self._message(device, self._next(device, None))
        self.sent = kept

    async def say(self, kind: str, device: str, payload: bytes) -> None:
        """Send a message as it is, outside of all order."""
        await self._has_window()
        self._publish(self._topic(kind, device), payload)

    def _next(self, device: str, names: Sequence[str] | None) -> list[SparkplugValue]:
        self.time_ms += 1_000
        metrics = [m for m in self._devices[device] if names is None or m.name in names]
        return self._values(device, metrics, is_birth=False)

    def _values(
        self, device: str, metrics: Sequence[SimulatedMetric], is_birth: bool
    ) -> list[SparkplugValue]:
        out = []
        for metric in metrics:
            value = self._value(metric.datatype)
            name = metric.name if is_birth or not self._has_aliases else None
            alias = self._alias[device, metric.name] if self._has_aliases else None
            out.append(
                SparkplugValue(
                    value, metric.datatype, name, alias, self.time_ms, names_type=is_birth,
                    unit=metric.unit if is_birth else None,
                )
            )  # fmt: skip
            self.sent.append(SentSample(device, metric.name, self.time_ms, value))
        return out

    def _value(self, datatype: int) -> float | bool | str:
        if datatype in TEXTS:
            return _WORDS[int(self._rng.integers(len(_WORDS)))]
        if datatype == DataType.BOOLEAN:
            return bool(self._rng.integers(2))
        if datatype in (DataType.FLOAT, DataType.DOUBLE):
            return float(np.float32(self._rng.normal()))
        return int(self._rng.integers(100))
