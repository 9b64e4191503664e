"""One example of every kind of payload: how devices write it, the rule that reads it, and a rule that is wrong.

Each instant has two values, ``n`` (a whole number from 10, that goes up by one) and ``x``; a payload that holds only one value has
``n``. Messages of topics have an entry for every name of `headrace.adapters.registry.PAYLOADS`; bodies that are pushed
one for every way to write them.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.adapters.payloads.sparkplug import DataType
from headrace.adapters.payloads.sparkplug_writer import SparkplugValue, write_payload
from headrace.adapters.payloads.wire import FIXED64, varint, whole, wrap

_MS = 1_000_000


class Instant(NamedTuple):
    """What a device measured at one time."""

    ts_ns: int
    n: int
    x: float


Encode = Callable[[str, Sequence[Instant]], bytes]
"""(name of the device, instants) → payload."""


@dataclass(frozen=True)
class PayloadExample:
    """One kind of payload.

    Parameters
    ----------
    rule : TOML; keys of the topic rule, or of the adapter's section for pushed bodies.
    wrong : the same with a mistake, so that of no message that is written well all is taken.
    signals : what it holds. has_time : whether it says when.
    kind, form : of a pushed body: its content type, and the parameter ``form``; empty for messages of topics.
    """

    encode: Encode
    rule: str
    wrong: tuple[str, ...]
    signals: tuple[str, ...] = ("n", "x")
    has_time: bool = True
    kind: str = ""
    form: str = ""

    def samples(self, path: str, instants: Sequence[Instant]) -> dict[tuple[str, int], float]:
        """Values by (path of the sensor, ts_ns), where the payload says when; `path` is that of the device."""
        return {
            (f"{path}/{signal}", one.ts_ns): float(value)
            for one in instants
            for signal, value in zip(self.signals, (one.n, one.x), strict=False)
        }


def _fields(device: str, some: Sequence[Instant]) -> bytes:
    rows = [{"ts": one.ts_ns // _MS, "n": one.n, "x": one.x} for one in some]
    return json.dumps(rows if len(rows) > 1 else rows[0]).encode()


def _csv(device: str, some: Sequence[Instant]) -> bytes:
    return "\n".join(f"{one.ts_ns // _MS},{one.n},{one.x!r}" for one in some).encode()


def _number(device: str, some: Sequence[Instant]) -> bytes:
    return str(some[-1].n).encode()


def _registers(device: str, some: Sequence[Instant]) -> bytes:
    return struct.pack(">ff", some[-1].n, some[-1].x)


def _sparkplug(device: str, some: Sequence[Instant]) -> bytes:
    values = [
        SparkplugValue(float(value), DataType.DOUBLE, name, time_ms=one.ts_ns // _MS)
        for one in some
        for name, value in (("n", one.n), ("x", one.x))
    ]
    return write_payload(some[-1].ts_ns // _MS, some[-1].n % 256, values)


def _arrow(device: str, some: Sequence[Instant]) -> bytes:
    import pyarrow as pa

    ts = pa.array([one.ts_ns for one in some], pa.timestamp("ns"))
    table = pa.table({"ts": ts, "n": [float(one.n) for one in some], "x": [one.x for one in some]})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def _lines(device: str, some: Sequence[Instant]) -> bytes:
    return "\n".join(f"m,host={device} n={one.n},x={one.x!r} {one.ts_ns}" for one in some).encode()


def _lines_of_topic(device: str, some: Sequence[Instant]) -> bytes:
    return "\n".join(f"m n={one.n},x={one.x!r} {one.ts_ns // _MS}" for one in some).encode()


def _documents(device: str, some: Sequence[Instant]) -> bytes:
    rows = [
        {"device": f"plant/json/{device}", "ts": one.ts_ns // _MS, "n": one.n, "x": one.x} for one in some
    ]
    return "\n".join(map(json.dumps, rows)).encode()


def _double(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def _fixed(number: int, value: int) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<Q", value)


def _series(some: Sequence[Instant]) -> dict[str, bytes]:
    """Samples of remote write, by the name of their metric."""
    return {
        name: b"".join(
            wrap(2, _double(1, float(getattr(one, name))) + whole(2, one.ts_ns // _MS))
            for one in sorted(some)
        )
        for name in ("n", "x")
    }


def _write_1(device: str, some: Sequence[Instant]) -> bytes:
    def label(name: str, value: str) -> bytes:
        return wrap(1, wrap(1, name.encode()) + wrap(2, value.encode()))

    return b"".join(
        wrap(1, label("__name__", name) + label("host", device) + samples)
        for name, samples in _series(some).items()
    )


def _write_2(device: str, some: Sequence[Instant]) -> bytes:
    symbols = ["", "__name__", "n", "x", "host", device]
    out = b"".join(wrap(4, text.encode()) for text in symbols)
    for name, samples in _series(some).items():
        labels = bytes([1, symbols.index(name), 4, 5])
        out += wrap(5, wrap(1, labels) + samples)
    return out


def _otlp(device: str, some: Sequence[Instant]) -> bytes:
    host = wrap(1, wrap(1, b"host") + wrap(2, wrap(1, device.encode())))
    metrics = b""
    for name in ("n", "x"):
        points = b"".join(
            wrap(1, _fixed(3, one.ts_ns) + _double(4, float(getattr(one, name)))) for one in some
        )
        metrics += wrap(2, wrap(1, name.encode()) + wrap(5, points))
    return wrap(1, wrap(1, host) + wrap(2, metrics))


def _otlp_json(device: str, some: Sequence[Instant]) -> bytes:
    metrics = [
        {
            "name": name,
            "gauge": {
                "dataPoints": [
                    {"timeUnixNano": str(one.ts_ns), "asDouble": float(getattr(one, name))} for one in some
                ]
            },
        }
        for name in ("n", "x")
    ]
    host = [{"key": "host", "value": {"stringValue": device}}]
    scope = {"resource": {"attributes": host}, "scopeMetrics": [{"metrics": metrics}]}
    return json.dumps({"resourceMetrics": [scope]}).encode()


_IMAGE = 'values = "registers"\nregisters = { n = "holding:0:F32", x = "holding:%d:F32" }'
_CSV = 'values = "csv"\ntime = "ts"\ncolumns = ["ts", "n"%s]'
_NO_NUMBER = '\ntypes = { n = "bool" }'

OF_TOPICS: dict[str, PayloadExample] = {
    "fields": PayloadExample(
        _fields, 'time = "ts"', ('time = "ts"\ntime_unit = "s"', f'time = "ts"{_NO_NUMBER}')
    ),
    "number": PayloadExample(
        _number, 'values = "number"', ('values = "number"\nmax_payload = "1B"',), ("n",), has_time=False
    ),
    "csv": PayloadExample(_csv, _CSV % ', "x"', (_CSV % "", _CSV % ', "x"' + _NO_NUMBER)),
    "registers": PayloadExample(_registers, _IMAGE % 2, (_IMAGE % 20,), has_time=False),
    "sparkplug": PayloadExample(
        _sparkplug, 'values = "sparkplug"', (_CSV % "", f'values = "sparkplug"{_NO_NUMBER}')
    ),
    "line": PayloadExample(
        _lines_of_topic,
        'values = "line"\ntime_unit = "ms"',
        ('values = "line"\ntime_unit = "s"', f'values = "line"\ntime_unit = "ms"{_NO_NUMBER}'),
    ),
    "arrow": PayloadExample(
        _arrow,
        'values = "arrow"\ntime = "ts"',
        ('values = "arrow"\ntime = "when"', f'values = "arrow"\ntime = "ts"{_NO_NUMBER}'),
    ),
}
"""By name, as in ``values`` of a topic rule."""

_MISTAKES = ("max_devices = 1", 'types = { n = "bool" }')
_JSON_LINES, _PROTOBUF = "application/x-ndjson", "application/x-protobuf"

PUSHED: dict[str, PayloadExample] = {
    "lines": PayloadExample(_lines, "", _MISTAKES, kind="text/plain"),
    "json": PayloadExample(_documents, "", _MISTAKES, kind=_JSON_LINES),
    "write1": PayloadExample(_write_1, "", _MISTAKES, kind=_PROTOBUF),
    "write2": PayloadExample(
        _write_2, "", _MISTAKES, kind=f"{_PROTOBUF};proto=io.prometheus.write.v2.Request"
    ),
    "otlp": PayloadExample(_otlp, "", _MISTAKES, kind=_PROTOBUF, form="otlp"),
    "otlpjson": PayloadExample(_otlp_json, "", _MISTAKES, kind="application/json", form="otlp"),
}
"""Bodies of the HTTP API, by a name that is also that of the adapter that takes them."""


LEVELS = ("site", "kind", "device", "signal")
"""Of the paths of all examples."""
HEAD = f"version = 1\n[plant]\nlevels = {list(LEVELS)}\n"
"""Begins a plant file of examples."""


def device_path(name: str, device: str) -> str:
    """The path of a device that writes payloads of a kind; lines have the measurement behind the device."""
    return f"{name}/{device}/m" if name in ("line", "lines") else f"plant/{name}/{device}"


def pushed_section(adapter: str, name: str, more: str = "") -> str:
    """The section of an adapter that takes bodies of a kind.

    It has an hour to answer: that is real time, and the simulation must not depend on how busy the computer is.
    """
    return (
        f'[adapters.{adapter}]\nprotocol = "http"\npath = "{name}/{{host}}/{{measurement}}/{{field}}"\n'
        f'metrics = "plant/{name}/{{host}}/{{field}}"\nanswer_within = "1h"\n{more}\n'
    )


def _topic_path(name: str, device: str) -> str:
    if name == "line":
        return f"line/{device}/{{measurement}}/{{key}}"
    return f"plant/{name}/{device}/{'n' if name == 'number' else '{key}'}"


def topics_section(name: str, rule: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """The section of the adapter that takes messages of a kind, from a broker of the same name.

    Parameters
    ----------
    more : topics, and the rules of their own that they have.
    """
    text = f'[adapters.{name}]\nprotocol = "mqtt"\nurl = "mqtt://{name}"\n'
    for topic, keys in (("+device", rule), *more):
        pattern, device = ("plant/{device}", "{device}") if topic == "+device" else (topic, topic)
        text += f'[adapters.{name}.topics."{pattern}"]\npath = "{_topic_path(name, device)}"\n{keys}\n'
    return text
