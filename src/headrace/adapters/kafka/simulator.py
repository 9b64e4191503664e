"""A Kafka cluster for tests and trials, and a device that produces into it.

The cluster is the one that librdkafka brings for tests: real brokers on loopback ports, with groups, commits and
rebalances, in memory. It is driven by the library's own C functions, so that its brokers can go away and come back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Producer

from headrace.core.errors import NotConnected

OFFSET_COMMIT = 8
"""Number of the request by which a member commits, as in the protocol."""
_PRODUCER, _REPLY_BYTES, _TEXT_BYTES = 0, 65_536, 512
_FLUSH_S = 10.0
_PATTERNS = ("../confluent_kafka.libs/librdkafka*", ".dylibs/librdkafka*")


def _library() -> Any:
    """The C library that the Python package has loaded."""
    home = Path(confluent_kafka.__file__).parent
    found = next(path for pattern in _PATTERNS for path in sorted(home.glob(pattern)))
    library = ctypes.CDLL(str(found))
    pointers = (
        "rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new", "rd_kafka_mock_get_requests",
    )  # fmt: skip
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_request_api_key.restype = ctypes.c_int16
    return library


class SimulatedCluster:
    """Brokers of our own on loopback ports; they stay the same while it lasts.

    Parameters
    ----------
    join_ms : how long the first member of a group waits for others.
    """

    def __init__(self, n_brokers: int = 1, join_ms: int = 0) -> None:
        self._library = _library()
        self._n_brokers = n_brokers
        self._handle, self._cluster = self._made(n_brokers)
        self._call("group_initial_rebalance_delay_ms", ctypes.c_int32(join_ms))
        self._call("start_request_tracking")
        self.brokers = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().split(",")

    def _made(self, n_brokers: int) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
        library = self._library
        settings = ctypes.c_void_p(library.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        library.rd_kafka_conf_set(settings, b"log_level", b"0", text, ctypes.c_size_t(_TEXT_BYTES))
        handle = ctypes.c_void_p(
            library.rd_kafka_new(_PRODUCER, settings, text, ctypes.c_size_t(_TEXT_BYTES))
        )
        return handle, ctypes.c_void_p(library.rd_kafka_mock_cluster_new(handle, ctypes.c_int(n_brokers)))

    def _call(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *arguments))

    def create(self, topic: str, n_partitions: int = 1) -> None:
        """Make a topic."""
        self._call("topic_create", topic.encode(), ctypes.c_int(n_partitions), ctypes.c_int(1))

    def down(self) -> None:
        """Take all brokers away; what they hold stays."""
        for number in range(1, self._n_brokers + 1):
            self._call("broker_set_down", ctypes.c_int32(number))

    def up(self) -> None:
        """Let them come back."""
        for number in range(1, self._n_brokers + 1):
            self._call("broker_set_up", ctypes.c_int32(number))

    def refuse(self, request: int, error: int, n: int = 1) -> None:
        """Answer the next `n` requests of a kind (its number in the protocol) with an error."""
        self._call(
            "push_request_errors", ctypes.c_int16(request), ctypes.c_size_t(n), *[ctypes.c_int(error)] * n
        )

    def n_requests(self, request: int) -> int:
        """How many requests of a kind have come so far."""
        count = ctypes.c_size_t()
        library = self._library
        some = ctypes.c_void_p(library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count)))
        each = ctypes.cast(some, ctypes.POINTER(ctypes.c_void_p))
        keys = [library.rd_kafka_mock_request_api_key(ctypes.c_void_p(each[i])) for i in range(count.value)]
        library.rd_kafka_mock_request_destroy_array(some, count)
        return keys.count(request)

    def close(self) -> None:
        """End it; what it held is gone."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)


class ProducingDevice:
    """A device, or a gateway, that produces messages into a cluster."""

    def __init__(self, brokers: Sequence[str], **settings: Any) -> None:
        self._producer = Producer({"bootstrap.servers": ",".join(brokers), "log_level": 0, **settings})

    def send(
        self, topic: str, payload: bytes | str | None, key: bytes | str | None = None, **place: int
    ) -> None:
        """Send one message; `place` is ``partition`` or ``timestamp`` (milliseconds)."""
        self._producer.produce(topic, payload, key, **place)
        self._producer.poll(0)

    def delivered(self) -> None:
        """Wait until the cluster has everything.

        Raises
        ------
        NotConnected : it has not within 10 s.
        """
        left = self._producer.flush(_FLUSH_S)
        if left:
            raise NotConnected(f"{left:,} messages were not delivered")
