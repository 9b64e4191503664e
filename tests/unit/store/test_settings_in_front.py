"""Settings of codecs that are numbers stand in front of the values: as float64 in older stores, shorter in newer ones."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.store.warm import codec_name, decode_chunk, encode_chunk, parts, sealed, values_of

VALUES = np.sin(np.arange(500) / 30.0) + 0.01 * np.random.default_rng(5).standard_normal(500)
TS_NS = np.arange(500) * 1_000_000_000


def test_a_bound_takes_four_bytes_and_one_of_eight_is_read_as_well():
    chunk = encode_chunk(TS_NS, VALUES, None, 0.01)
    assert chunk.value_codec == "quantise~eps"
    assert 0.01 * (1.0 - 1e-6) <= chunk.bound <= 0.01
    _, first, _ = parts(chunk.payload)
    eps = np.frombuffer(chunk.payload[first : first + 4], "<f4").astype("<f8")
    older = sealed(chunk.payload[4:first] + eps.tobytes() + chunk.payload[first + 4 :])
    of = VALUES.size, VALUES.dtype, (0, int(TS_NS[-1]))
    read = [
        decode_chunk(payload, (chunk.time_codec, name), *of)[1]
        for payload, name in ((chunk.payload, "quantise~eps"), (older, "quantise@eps"))
    ]
    assert np.array_equal(read[0], read[1])
    assert np.abs(read[0] - VALUES).max() <= 0.01
    assert values_of(older, "quantise@eps")[0] == values_of(chunk.payload, "quantise~eps")[0]


def test_a_bound_that_no_float32_is_near_takes_eight():
    chunk = encode_chunk(TS_NS, VALUES * 1e-60, None, 1e-62)
    assert chunk.value_codec == "quantise@eps"


@pytest.mark.parametrize(
    "text", ["quantise~eps", "quantise@eps", 'quantise {"eps": 0.1}', "=quantise", "quantise"]
)
def test_a_codec_has_its_name_whatever_its_settings_are(text):
    assert codec_name(text) == "quantise"
