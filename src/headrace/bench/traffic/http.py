"""Bodies of a thousand lines of line protocol; beside it Polars, which reads their known shape with an expression.

Both are handed bodies that HTTP has brought: the server in front of them, another process in a plant, is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from headrace.adapters.base import Adapter, PlantFacts, Pushed
from headrace.adapters.http.adapter import HttpAdapter
from headrace.adapters.http.formats import BodyDecoder
from headrace.adapters.payloads.json_lines import JsonLinesDecoder
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import LineDecoder
from headrace.adapters.payloads.metric_decoder import MetricDecoder
from headrace.adapters.payloads.tag_paths import compile_tag_path
from headrace.bench.traffic.base import Count
from headrace.core.clock import NS, SystemClock
from headrace.core.problems import validate_section
from headrace.core.sensors import SensorDirectory

_FIELDS, _LINES, _BODIES, _HOSTS = 5, 1_000, 120, 50
_PATH = "bench/{line}/{host}/{measurement}/{field}"


def body(start_ns: int, number: int, n_lines: int = _LINES, n_fields: int = _FIELDS) -> bytes:
    """Lines of hosts by turns, a second apart."""
    lines = []
    for i in range(n_lines):
        at = (number * n_lines + i) // _HOSTS
        fields = ",".join(f"t{k}={20 + k + at % 97 * 0.25}" for k in range(n_fields))
        lines.append(f"oven,line=line{i % 5},host=h{i % _HOSTS} {fields} {start_ns + at * 1_000_000_000}")
    return "\n".join(lines).encode()


class HttpTraffic:
    """See `headrace.bench.traffic.base.Traffic`."""

    name = "http"
    n_samples = _FIELDS * _LINES * _BODIES
    n_feeds = 10
    reference = "Polars, an expression of the lines' shape; the HTTP server is left out of both"
    libraries: ClassVar[Mapping[str, str]] = {"polars": "polars"}

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._start_ns = self._clock.now_ns() // NS * NS
        self._bodies: list[bytes] = []

    def _feeds(self, n: int) -> list[bytes]:
        self._bodies += [body(self._start_ns, i) for i in range(len(self._bodies), n * _BODIES)]
        return self._bodies[: n * _BODIES]

    async def up(self) -> None:
        """Clients need no peer: what they push is handed over. All of it is made before anything is measured."""
        self._feeds(self.n_feeds)

    async def down(self) -> None:
        """Nothing to end."""

    def adapter(self, n_feeds: int = 1) -> Adapter:
        settings = validate_section(HttpAdapter.Config, {"protocol": "http", "path": _PATH}, "adapters.http")
        return HttpAdapter.from_config("http", settings, {}, PlantFacts())

    async def send(self, adapter: Adapter | None, n_feeds: int = 1) -> None:
        if isinstance(adapter, HttpAdapter):
            for one in self._feeds(n_feeds):
                await adapter.receive(Pushed(one, "text/plain", arrival_ns=self._clock.now_ns()))

    async def bare(self, count: Count) -> None:
        parse = line_parser(_FIELDS)
        for one in self._feeds(1):
            count.add(len(parse(one)) * _FIELDS)

    def payloads(self, is_batched: bool) -> tuple[Sequence[Any], int]:
        if is_batched:
            return self._feeds(1)[:10], 10 * _LINES * _FIELDS
        return [body(self._start_ns, 0, _LINES, 1)], _LINES

    def decode(self, payloads: Sequence[Any], directory: SensorDirectory) -> Callable[[], Any]:
        rule = validate_section(HttpAdapter.Config, {"protocol": "http"}, "").rule
        naming = compile_tag_path(_PATH, (), {}, True)
        groups = DeviceGroups(directory)
        lines = LineDecoder("http", directory, groups, naming, rule)
        metrics = MetricDecoder("http", directory, groups, naming, rule)
        decoder = BodyDecoder(lines, JsonLinesDecoder("http", groups, (), rule), metrics, "UTC")
        arrival_ns = self._start_ns
        return lambda: [
            list(decoder.slices(Pushed(one, "text/plain", arrival_ns=arrival_ns))) for one in payloads
        ]

    def parse(self, payloads: Sequence[Any]) -> Callable[[], Any]:
        parse = line_parser(payloads[0].split(b"\n", 1)[0].count(b"=") - 2)
        return lambda: [parse(one) for one in payloads]


def line_parser(n_fields: int) -> Callable[[bytes], Any]:
    """Reads lines of so many fields, as `body` writes them."""
    import polars as pl

    fields = ",".join(f"t{k}=(?P<t{k}>[^, ]+)" for k in range(n_fields))
    shape = rf"^oven,line=(?P<line>[^,]+),host=(?P<host>[^ ]+) {fields} (?P<ts>\d+)$"
    types = {"ts": pl.Int64} | {f"t{k}": pl.Float64 for k in range(n_fields)}

    def parse(data: bytes) -> Any:
        lines = pl.Series("line", data.decode().split("\n"))
        return lines.str.extract_groups(shape).struct.unnest().cast(types)

    return parse
