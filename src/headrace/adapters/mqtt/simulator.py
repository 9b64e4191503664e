"""A device that publishes to a broker; the broker is `headrace.adapters.broker.simulator`."""

from __future__ import annotations

from gmqtt.mqtt.constants import MQTTv311

from headrace.adapters.broker.client import SingleConnection
from headrace.core.clock import SystemClock

_IN_FLIGHT_MAX = 10


class PublishingDevice:
    """A device that publishes to a broker.

    Parameters
    ----------
    device_id : its client id.
    """

    def __init__(self, device_id: str, host: str, port: int) -> None:
        self._client = SingleConnection(device_id)
        self._clock = SystemClock()
        self._address = host, port

    async def start(self) -> None:
        """Connect."""
        await self._client.connect(*self._address, version=MQTTv311)

    async def publish(
        self, topic: str, payload: bytes | str, qos: int = 1, is_retained: bool = False
    ) -> None:
        """Send one message; waits while ten are on their way."""
        while len(self._client._persistent_storage.get_all()) >= _IN_FLIGHT_MAX:
            await self._clock.sleep(0.001)
        self._client.publish(topic, payload, qos=qos, retain=is_retained)

    async def delivered(self) -> None:
        """Wait until the broker has acknowledged everything that was sent at QoS 1. Raises NotConnected after 30 s."""
        await self._client.delivered()

    async def stop(self) -> None:
        """Disconnect."""
        await self._client.disconnect()
