"""``headrace codecs explain``: of files and of sensors of a store, as a table, as JSON, as a picture."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS
from headrace.runtime import sensor_series
from headrace.testing.tables import import_table, long_table

NS = 1_000_000_000
TIMES = 1_772_431_200 * NS + np.arange(2_000) * NS
WALK = np.round(50 + np.cumsum(np.random.default_rng(0).normal(0, 0.2, 2_000)), 2)
SENSOR = "leon/paint/line1/oven0/temperature"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"t_ns": TIMES, "value": WALK}), "walk.parquet")
    pq.write_table(pa.table({"t_ns": TIMES, "value": np.arange(2_000) // 500}), "states.parquet")
    return tmp_path


def run(capfd, *arguments):
    code = run_command(["codecs", "explain", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def document(capfd, *arguments):
    code, out, err = run(capfd, *arguments, "--json")
    assert code == Exit.DONE, err
    return json.loads(out)


def test_a_file_as_a_table(folder, capfd):
    code, out, err = run(capfd, "walk.parquet", "--block", "1000")
    assert (code, err) == (Exit.DONE, "")
    head, values, times = out.split("\n\n")
    facts = dict(line.split("  ", 1) for line in head.splitlines())
    assert "2,000 x float64" in facts["series"]
    assert "2 decimals" in facts["values"]
    assert "every 1 s, 100 % exactly so" in facts["times"]
    assert facts["bound"].strip() == "none: lossless"
    rows = [line.split() for line in values.splitlines()[1:-1]]
    assert rows[0][-1] == "won"
    assert rows[0][0] in facts["why"]
    sizes = [int(row[1].replace(",", "")) for row in rows if row[1] != "-"]
    assert sizes[1:] == sorted(sizes[1:])
    assert sizes[0] < 1.1 * sizes[1]  # a shorter trial may pass over one that is a little smaller
    assert values.splitlines()[-1].startswith("with --bound also: ")
    assert times.splitlines()[1].split()[0] == "regular"


def test_every_codec_is_there_and_the_sums_are_those_of_the_chunks(folder, capfd):
    found = document(capfd, "walk.parquet")
    assert {t["name"] for t in found["values"]} == set(VALUE_CODECS.names())
    assert {t["name"] for t in found["times"]} == set(TIME_CODECS.names()) - {"jitter"}
    assert found["ratio"] == pytest.approx(16 * 2_000 / found["size_bytes"])
    won = {t["name"]: t for part in ("values", "times") for t in found[part] if t["n_won"]}
    assert len(won) == 2
    assert (
        sum(t["size_bytes"] for t in won.values())
        < found["size_bytes"]
        < sum(t["size_bytes"] for t in won.values()) + 20
    )  # a checksum and two lengths
    raw = next(t for t in found["values"] if t["name"] == "raw")
    assert raw["size_bytes"] == 16_000
    assert raw["encode_ns"] > 0
    assert raw["outcome"].endswith("larger")
    assert found["features"]["digits"] == 2


def test_a_bound_is_kept_and_told(folder, capfd):
    found = document(capfd, "walk.parquet", "--bound", "1%range")
    eps = 0.01 * float(np.ptp(WALK))
    assert found["eps"] == pytest.approx(eps)
    winner = found["values"][0]
    assert 0 < winner["max_error"] <= eps
    assert winner["size_bytes"] < next(t["size_bytes"] for t in found["values"] if t["name"] == "origin")
    shares = document(capfd, "walk.parquet", "--bound", "1%value")
    assert shares["bound"] == {"value": 0.01}
    assert next(t for t in shares["values"] if t["name"] == "relative")["n_fit"] == 1
    _, out, _ = run(capfd, "walk.parquet", "--bound", "0.25")
    assert "0.25 in the values' unit" in out


def test_states_are_never_lossy(folder, capfd):
    found = document(capfd, "states.parquet", "--bound", "5")
    assert found["values"][0]["max_error"] == 0
    assert next(t for t in found["values"] if t["name"] == "hold")["outcome"] == "keeps no such bound"


def test_what_was_asked_for_wins(folder, capfd):
    found = document(capfd, "walk.parquet", "--use", "gorilla")
    assert (found["values"][0]["name"], found["values"][0]["outcome"]) == ("gorilla", "won")
    assert "asks for" in found["why"]
    assert any("smaller; another was asked for" in t["outcome"] for t in found["values"])
    free = document(capfd, "walk.parquet")["values"][0]["name"]
    found = document(capfd, "walk.parquet", "--forbid", free)
    assert next(t for t in found["values"] if t["name"] == free)["outcome"] == "forbidden"
    found = document(capfd, "walk.parquet", "--weight", "1")
    assert found["values"][0]["name"] == "raw"
    assert "decoding time^1" in found["why"]


def test_few_chunks_of_many(folder, capfd):
    found = document(capfd, "walk.parquet", "--block", "100", "--chunks", "3")
    assert (found["chunks"], found["chunks_tried"], found["samples_tried"]) == (20, 3, 300)


@pytest.mark.parametrize("arguments", [[], ["--bound", "0.3"], ["--bound", "2%value"]])
def test_a_picture(folder, capfd, arguments):
    code, _, err = run(capfd, "walk.parquet", "--plot", "walk.svg", *arguments)
    assert code == Exit.DONE, err
    root = ElementTree.parse(folder / "walk.svg").getroot()
    texts = [node.text or "" for node in root.iter() if node.tag.endswith("text")]
    assert {"bound", "RMSE", "lossless", "original", "decoded", "bytes a sample"} <= set(texts)
    charts = [node for node in root if node.tag.endswith("svg")]
    assert [float(chart.get("y")) for chart in charts] == [0.0, float(charts[0].get("height"))]


def test_a_picture_of_states_has_no_curve(folder, capfd):
    code, _, err = run(capfd, "states.parquet", "--plot", "states.svg")
    assert code == Exit.DONE, err
    texts = [n.text for n in ElementTree.parse(folder / "states.svg").iter() if n.tag.endswith("text")]
    assert "RMSE" not in texts
    assert "decoded" in texts


def test_a_sensor_of_a_store(folder, capfd):
    import_table(folder, long_table(0, 1_500))
    (folder / "plant.toml").write_text('version = 1\n[codecs.ovens]\nmatch = "**/oven0/*"\nuse = "pco"\n')
    found = document(capfd, SENSOR)
    assert found["what"] == SENSOR
    assert found["samples_tried"] == 1_500
    assert found["values"][0]["name"] == "pco"  # as the plant file says
    other = document(capfd, SENSOR.replace("oven0", "oven1"), "-t", "store")
    assert other["values"][0]["name"] != "pco"
    short = document(capfd, SENSOR, "--last", "15m")
    assert 0 < short["samples_tried"] < 1_500


def test_a_sensor_whose_device_got_more_sensors_is_there_as_a_whole(folder, capfd):
    table = long_table(0, 600)
    import_table(folder, table, "one")
    import_table(folder, _renamed(long_table(600, 60), "pressure"), "two")
    found = document(capfd, SENSOR, "-t", "store")
    assert (found["samples_tried"], found["left_out"]) == (600, {})
    import_table(folder, long_table(700, 60), "three")
    found = document(capfd, SENSOR, "-t", "store")
    assert (found["samples_tried"], found["left_out"]) == (660, {})


def _renamed(table, name):
    paths = [path.replace("temperature", name) for path in table["path"].to_pylist()]
    return table.set_column(table.column_names.index("path"), "path", pa.array(paths))


def test_what_was_left_out_is_told(folder, capfd, monkeypatch):
    import_table(folder, long_table(0, 100))
    real = sensor_series.read_sensor
    some = {"f32": 1_000, "u16 x 0.1": 20}
    monkeypatch.setattr(
        sensor_series, "read_sensor", lambda *args: dataclasses.replace(real(*args), left_out=some)
    )
    _, out, _ = run(capfd, SENSOR, "-t", "store")
    assert "1,020 samples of other types or grids: 1,000 of f32, 20 of u16 x 0.1" in out


@pytest.mark.parametrize("place", [(), ("-t", "store")])
def test_a_file_of_another_kind_is_told(folder, capfd, place):
    import_table(folder, long_table(0, 5))
    (folder / "text.txt").write_text("5")
    code, _, err = run(capfd, "text.txt", *place)
    assert code == Exit.CONFIG
    assert "text.txt is neither .parquet nor .csv" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["none.parquet"], Exit.FAILED, "no file"),
        (["walk.parquet", "--bound", "much"], Exit.CONFIG, "is no bound"),
        (["walk.parquet", "--use", "pcoo"], Exit.CONFIG, "did you mean 'pco'"),
        (["walk.parquet", "--forbid", "raw"], Exit.CONFIG, "can't be forbidden"),
        (["walk.parquet", "--plot", "a.png"], Exit.CONFIG, "not named .svg"),
        (["empty.parquet"], Exit.CONFIG, "without samples"),
        ([SENSOR, "-t", "nowhere"], Exit.UNREACHABLE, "does not exist"),
        (["leon/**", "-t", "store"], Exit.CONFIG, "matches 2 sensors"),
        (["leon/none", "-t", "store"], Exit.FAILED, "no sensor"),
    ],
)
def test_what_can_not_be_explained(folder, capfd, arguments, code, text):
    if "store" in arguments:
        import_table(folder, long_table(0, 5))
    pq.write_table(pa.table({"t_ns": TIMES[:0], "value": WALK[:0]}), "empty.parquet")
    found, _, err = run(capfd, *arguments)
    assert text in err
    assert found == code
