"""That decoding has not become twice as dear: beside a parser, or a bare client, that takes turns with it.

CPU of this process, the best of five turns, so that neither a slow machine nor what else runs on it matters. Limits are
1.7 times what was measured: they find a cost that has doubled.
"""

import pytest

from headrace.bench import adapters
from headrace.bench.adapters import FLOORS, floor_of

MARGIN = 1.7
TO_ORJSON = {"modbus": 0.23, "http": 0.95, "sparkplug": 1.0, "mqtt": 0.6}
"""Decoding a sample in batches: ratio to `orjson.loads` of JSON messages of as many values."""
TO_PARSER = {
    ("kafka", True): 0.55, ("kafka", False): 3.0, ("modbus", True): 0.5, ("modbus", False): 0.8, ("mqtt", True): 0.85,
    ("mqtt", False): 3.3, ("sparkplug", True): 0.32, ("sparkplug", False): 1.25,
}  # fmt: skip
"""Gate B without its ns: decoding beside parsing, batched or not."""
TO_CLIENT = {
    ("mqtt", True): 0.55, ("mqtt", False): 0.4, ("sparkplug", True): 0.35, ("sparkplug", False): 0.5,
}  # fmt: skip
"""Gate A without sockets: from the bytes of a connection to frames in a sink, beside gmqtt and a parser."""


@pytest.fixture(autouse=True)
def few_turns(monkeypatch):
    monkeypatch.setattr(adapters, "_DECODES", 5)


@pytest.mark.parametrize("name", FLOORS)
def test_decoders_beside_orjson(name):
    found = floor_of(adapters._traffic(name), FLOORS[name])
    assert found["ratio"] <= MARGIN * TO_ORJSON[name], found


@pytest.mark.parametrize(("name", "is_batched"), TO_PARSER)
def test_decoding_beside_parsing(name, is_batched):
    ours_ns, parser_ns = adapters._decoding(adapters._traffic(name), is_batched)
    assert ours_ns / parser_ns <= MARGIN * TO_PARSER[name, is_batched], (ours_ns, parser_ns)


@pytest.mark.parametrize(("name", "is_batched"), TO_CLIENT)
async def test_the_whole_way_beside_a_bare_client(name, is_batched):
    ours_ns, bare_ns = adapters._ways(adapters._traffic(name), is_batched)
    assert ours_ns / bare_ns <= MARGIN * TO_CLIENT[name, is_batched], (ours_ns, bare_ns)
