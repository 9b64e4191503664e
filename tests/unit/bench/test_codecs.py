"""What series cost in the store: sums that are right, faults that are counted."""

from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bench import codec_peers, codecs
from headrace.codecs.base import same_bits
from headrace.core.errors import ConfigError
from headrace.store.warm import decode_chunk, encode_chunk

NS = 1_000_000_000
N = 600
RANDOM = np.random.default_rng(2)
VALUES = {
    "oven_temp": np.cumsum(RANDOM.integers(-3, 4, N)) / 10 + 200,
    "oven_noise": RANDOM.normal(0, 1, N),
    "syn_const": np.full(N, 3.5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("series")
    for name, values in VALUES.items():
        ts_ns = 1_767_225_600 * NS + np.arange(N) * NS
        pq.write_table(pa.table({"t_ns": ts_ns, "value": values}), out / f"{name}.parquet")
    return out


@pytest.fixture(scope="module")
def result(folder):
    return codecs.run(folder, (200, 600), (0.01,))


def test_the_object_has_what_it_promises(result):
    assert [(row["name"], row["block"]) for row in result["series"] if row["block"] == 200] == [
        ("oven_noise", 200), ("oven_temp", 200), ("syn_const", 200),
    ]  # fmt: skip
    grids = {row["name"]: row["grid"] for row in result["series"]}
    assert grids == {"oven_temp": "1 decimals", "oven_noise": "float64", "syn_const": ""}
    assert result["mismatches"] == result["bound_violations"] == 0
    assert 0 < result["worst_error_over_bound"] <= 1
    assert set(result["peers"]["600"]) == set(codec_peers.PEERS)
    for way in ("encode", "decode"):
        speeds = result[f"{way}_msps"], *result[f"peer_{way}_msps"].values()
        assert all(one > 0 for one in speeds)
        assert set(result[f"peer_{way}_msps"]) == set(codec_peers.PEERS)
    real = [row["ratio"] for row in result["series"] if row["kind"] == "oven" and row["block"] == 600]
    assert result["geomean"]["600"] == pytest.approx(np.sqrt(np.prod(real)), abs=2e-3)
    assert result["geomean_by_kind"]["oven"]["600"] == result["geomean"]["600"]


def test_a_ratio_is_payloads_and_headers(folder, result):
    (one,) = [s for s in codecs.load(folder) if s.name == "oven_temp"]
    payload = sum(len(encode_chunk(ts, v, None).payload) for ts, v in one.blocks(200))
    want = 16 * N / (payload + 3 * result["header_bytes_per_chunk"]["200"])
    (row,) = [r for r in result["series"] if r["name"] == "oven_temp" and r["block"] == 200]
    assert row["ratio"] == pytest.approx(want, rel=2e-3)
    assert row["bounds"]["0.01"]["max_error"] <= 0.01 * one.span
    lossy, headers = row["bounds"]["0.01"]["ratio"], result["header_bytes_per_chunk"]["200"]
    # Headers of bounds are three columns more, which nine rows pay for.
    assert 16 * N / lossy - 3 * (headers + 60) < 16 * N / row["ratio"] - 3 * headers


def test_what_comes_back_otherwise_is_counted(folder, monkeypatch):
    def lie(payload, names, n, dtype, span):
        ts_ns, values, quality = decode_chunk(payload, names, n, dtype, span)
        return ts_ns, np.where(np.arange(n) == 7, np.nextafter(values, 1e9), values), quality

    monkeypatch.setattr(codecs, "decode_chunk", lie)
    bench = codecs._Bench(codecs.load(folder), print)
    bench.measure(200, 0.0)
    assert bench.mismatches == 9


def test_a_folder_without_series_is_told(tmp_path):
    with pytest.raises(ConfigError, match="has no series"):
        codecs.run(tmp_path)


def test_gorilla_counts_the_bits_of_its_paper():
    assert codec_peers.gorilla_time_bits(np.array([0, 60, 120, 180, 240, 301])) == 64 + 14 + 3 * 1 + 9
    assert codec_peers.gorilla_time_bits(np.array([0, 60, 60_000, 60_060])) == 64 + 14 + 68 + 68
    block = np.array([0, 60, 120]) * 10**9, np.array([12.0, 12.0, 24.0])
    assert codec_peers.PEERS["gorilla"](block) == 10 + 10  # 64 + 14 + 1 bits of times, 64 + 1 + 14 of values


def test_peers_keep_what_they_encode(folder):
    for one in codecs.load(folder):
        block = next(one.blocks(N))
        encoded = codec_peers.encode_pcodec(block)
        from pcodec import standalone

        assert same_bits(standalone.simple_decompress(encoded[1]), block[1])
        for name, cost in codec_peers.PEERS.items():
            assert 0 < cost(block) < 3 * 16 * N, name


@pytest.mark.parametrize("name", codec_peers.SPEEDS)
def test_what_a_peer_decodes_is_what_it_encoded(folder, name):
    encode, decode = codec_peers.SPEEDS[name]
    odd = np.array([5, 10**18, 10**18 + 3, 10**18 + 4]), np.array([1.0, -0.0, np.inf, 2.5])
    for block in (odd, *(next(one.blocks(N)) for one in codecs.load(folder))):
        back = decode(encode(block), block)
        assert all(same_bits(np.asarray(x), y) for x, y in zip(back, block, strict=True))


def test_ratios_as_a_picture(folder):
    result = codecs.run(folder, [200], [0.01])
    drawing = ElementTree.fromstring(codecs.chart(result, 200))
    texts = [e.text for e in drawing.findall("{*}text")]
    assert {row["name"] for row in result["series"]} <= set(texts)
    assert len(drawing.findall("{*}circle")) == 2 * len(result["series"])
    assert result["geomean_without_headers"]["200"] > result["geomean"]["200"]
