"""Golden bytes: what version 1 wrote, every later release reads."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from headrace.codecs import registry
from headrace.codecs.base import same_bits
from headrace.codecs.block import decode_block
from headrace.codecs.wave import decode_wave

HERE = Path(__file__).parent
GOLDEN = {
    name: bytes.fromhex(text) for name, text in json.loads((HERE / "golden/v1.json").read_text()).items()
}
_spec = importlib.util.spec_from_file_location("golden_inputs", HERE / "golden_inputs.py")
assert _spec is not None
assert _spec.loader is not None
inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(inputs)


@pytest.mark.parametrize("name", [n for n in GOLDEN if n.startswith("block")])
def test_blocks_of_version_1_are_read(name):
    values, ts_ns, quality, order, starts = inputs.block_arguments(name.split()[1])
    at = 0
    for g in range(starts.size - 1):
        rows = order[starts[g] : starts[g + 1]]
        size = len(GOLDEN[name]) - at if g else block_size(GOLDEN[name], values.dtype)
        got_ts, got_values, got_quality = decode_block(GOLDEN[name][at : at + size], values.dtype)
        at += size
        assert same_bits(got_ts, ts_ns[rows])
        assert same_bits(got_values, values[rows])
        assert (got_quality is None) == (not quality[rows].any())
        assert got_quality is None or same_bits(got_quality, quality[rows])


def block_size(data: bytes, dtype: np.dtype) -> int:
    """Bytes of the first block, by its own table."""

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    at = 6
    varint()
    sections = varint() + 1 + (data[1] >> 4)
    return sum(varint() for _ in range(sections)) + at


def test_the_wave_of_version_1_is_read():
    runs, values, quality = inputs.wave_arguments()
    got, got_values, got_quality = decode_wave(GOLDEN["wave i16"], values.dtype)
    assert same_bits(got.ts_ns(), runs.ts_ns())
    assert same_bits(got_values, values)
    assert got_quality is not None
    assert same_bits(got_quality, quality)


@pytest.mark.parametrize("name", [n for n in GOLDEN if n.startswith("values")])
def test_values_of_version_1_are_read(name):
    codec = name.split()[1]
    values = inputs.series_values(codec)
    assert same_bits(
        registry.value_codec({"name": codec}).decode(GOLDEN[name], values.size, values.dtype), values
    )


@pytest.mark.parametrize("name", [n for n in GOLDEN if n.startswith("times")])
def test_times_of_version_1_are_read(name):
    codec = name.split()[1]
    ts_ns = inputs.series_times(codec)
    assert same_bits(registry.time_codec({"name": codec}).decode(GOLDEN[name], ts_ns.size), ts_ns)


def test_the_writer_is_the_one_that_made_the_golden_bytes():
    """Where this fails and the tests above do not, the writer changed within the format: add a file, keep v1."""
    made = dict(inputs.encoded())
    assert made.keys() == GOLDEN.keys()
    changed = [name for name in made if made[name] != GOLDEN[name] and "pco" not in name]
    assert changed == []
