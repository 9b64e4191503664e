"""``headrace codecs``: metrics of two files, and a bound for one."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.codecs import registry
from headrace.codecs.loss import measure
from headrace.codecs.rice_delta import RiceDeltaCodec
from headrace.core.errors import ConfigError

NS = 1_000_000_000
TIMES = 1_772_431_200 * NS + np.arange(4_000) * NS // 1_000
WAVE = 3 * np.sin(2 * np.pi * 40 * np.arange(4_000) / 1_000) + np.arange(4_000) / 1_000


@pytest.fixture
def series(tmp_path, monkeypatch):
    """Writes series into the folder that commands run in."""
    monkeypatch.chdir(tmp_path)

    def write(name, values, times=TIMES):
        pq.write_table(pa.table({"t_ns": times, "value": values}), tmp_path / name)
        return name

    write("a.parquet", WAVE)
    write("b.parquet", np.round(WAVE, 1))
    return write


def run(capfd, *arguments):
    code = run_command(["codecs", *arguments])
    out, err = capfd.readouterr()
    return code, out, err


def test_compare_as_a_table(series, capfd):
    code, out, err = run(capfd, "compare", "a.parquet", "b.parquet")
    assert (code, err) == (Exit.DONE, "")
    lines = {line[:17].strip(): line[17:].split()[0] for line in out.splitlines()}
    assert lines["samples"] == "4,000"
    assert float(lines["RMSE"]) == pytest.approx(measure(WAVE, np.round(WAVE, 1)).rmse, rel=1e-5)
    assert {"PSNR, dB", "bias", "error of integral", "autocorrelation"} <= set(lines)
    assert "band" not in out


def test_compare_as_json(series, capfd):
    code, out, _ = run(capfd, "compare", "a.parquet", "b.parquet", "--json", "--lags", "5")
    assert code == Exit.DONE
    document = json.loads(out)
    assert (document.pop("original"), document.pop("decoded")) == ("a.parquet", "b.parquet")
    assert document.pop("bands") == []
    assert document == measure(WAVE, np.round(WAVE, 1), TIMES, 5).to_dict()


def test_what_is_not_finite_is_null_in_json(series, capfd):
    code, out, _ = run(capfd, "compare", "a.parquet", "a.parquet", "--json")
    assert code == Exit.DONE
    assert json.loads(out)["psnr_db"] is None
    assert json.loads(out)["max_abs"] == 0.0


def test_octaves(series, capfd):
    code, out, _ = run(capfd, "compare", "a.parquet", "b.parquet", "--band", "octaves", "--json")
    assert code == Exit.DONE
    bands = json.loads(out)["bands"]
    assert (bands[0]["low_hz"], bands[0]["high_hz"]) == pytest.approx((250.0, 500.0))
    assert [b["original"] for b in bands if b["low_hz"] < 40 < b["high_hz"]] == pytest.approx([4.5], rel=0.02)
    code, out, _ = run(
        capfd, "compare", "a.parquet", "b.parquet", "--rate", "2000"
    )  # octaves too, twice as high
    assert code == Exit.DONE
    assert "500 to 1000" in out


def test_bands_of_ones_own(series, capfd):
    code, out, _ = run(
        capfd, "compare", "a.parquet", "b.parquet", "--band", "30:50", "--band", "100:400", "--json"
    )
    assert code == Exit.DONE
    assert [round(band["high_hz"], -1) for band in json.loads(out)["bands"]] == [50, 400]


def test_a_plot(series, capfd, tmp_path):
    code, out, _ = run(capfd, "compare", "a.parquet", "b.parquet", "--plot", "loss.svg")
    assert code == Exit.DONE
    assert "RMSE" in out
    texts = [
        t.text for t in ElementTree.parse(tmp_path / "loss.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "b.parquet against a.parquet" in texts
    assert any("ms since 2026-03-02T06:00:00" in t for t in texts)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a.parquet", "absent.parquet"], Exit.FAILED, "there is no file absent.parquet"),
        (
            ["a.parquet", "short.parquet"],
            Exit.FAILED,
            "3,900 of 4,000 times of a.parquet are not in short.parquet",
        ),
        (["a.parquet", "b.parquet", "--plot", "x.png"], Exit.CONFIG, "x.png is not named .svg"),
        (["a.parquet", "b.parquet", "--plot", "no/x.svg"], Exit.FAILED, "no/x.svg can't be written"),
        (["a.parquet", "b.parquet", "--band", "low"], Exit.CONFIG, "'low' is not written LOW:HIGH"),
        (["a.parquet", "b.parquet", "--band", "1:2:3"], Exit.CONFIG, "'1:2:3' is not written LOW:HIGH"),
        (["a.parquet", "b.parquet", "--band", "50:9999"], Exit.CONFIG, "no band from 50 to 9999 Hz"),
        (["a.parquet", "b.parquet", "--rate", "nan"], Exit.CONFIG, "not a finite number"),
        (
            ["gap.parquet", "gap.parquet", "--band", "octaves"],
            Exit.CONFIG,
            "--rate HZ takes the samples as even",
        ),
        (["short.parquet", "short.parquet", "--plot", "a.svg", "--band", "octaves"], Exit.DONE, ""),
        (["none.parquet", "none.parquet"], Exit.DONE, ""),
        (["none.parquet", "none.parquet", "--plot", "a.svg"], Exit.FAILED, "nothing to draw"),
        (["none.parquet", "none.parquet", "--rate", "5"], Exit.CONFIG, "0 values make no spectrum"),
    ],
)
def test_errors_are_sentences(series, capfd, arguments, code, text):
    series("short.parquet", WAVE[:100], TIMES[:100])
    series("gap.parquet", np.delete(WAVE, 7), np.delete(TIMES, 7))
    series("none.parquet", WAVE[:0], TIMES[:0])
    found, _, err = run(capfd, "compare", *arguments)
    assert found == code, err
    assert text in err
    assert "Traceback" not in err
    assert "defect" not in err


def test_the_group_says_what_it_has(capfd):
    code, out, _ = run(capfd)
    assert code == Exit.DONE
    assert "compare" in out
    assert "suggest" in out


# --- suggest -------------------------------------------------------------------------------------------


class Rounding:
    """The least that a codec with a bound must have."""

    name = "rounding"

    def __init__(self, eps):
        self.eps = eps

    def pack(self, values):
        return RiceDeltaCodec().pack(np.rint(values / (1.99 * self.eps)).astype(np.int64))

    def unpack(self, body, n, dtype):
        return RiceDeltaCodec().unpack(body, n, np.dtype(np.int64)) * (1.99 * self.eps)


@pytest.fixture
def rounding(monkeypatch):
    def value_codec(spec):
        if spec["name"] != "rounding":
            raise ConfigError(f"unknown codec {spec['name']!r}")
        return Rounding(spec["eps"])

    monkeypatch.setattr(registry, "value_codec", value_codec)


def test_suggest_a_bound_for_a_ratio(series, rounding, capfd):
    arguments = ["suggest", "a.parquet", "--target-ratio", "20", "--codec", "rounding", "--block", "1000"]
    code, out, _ = run(capfd, *arguments, "--json")
    assert code == Exit.DONE
    document = json.loads(out)
    assert document["ratio"] >= 20 > document["ratio_lossless"]
    assert document["bytes"] == pytest.approx(16 * 4_000 / document["ratio"])
    assert (document["samples"], document["blocks"], document["blocks_lossless"]) == (4_000, 4, 0)
    assert document["loss"]["max_abs"] <= document["eps"]
    assert document["share_of_range"] == pytest.approx(document["eps"] / float(np.ptp(WAVE)))
    code, out, _ = run(capfd, *arguments)
    assert code == Exit.DONE
    assert f"{document['eps']:g}, " in out
    assert "% of the range" in out


def test_suggest_a_bound_for_an_error(series, rounding, capfd):
    code, out, _ = run(capfd, "suggest", "a.parquet", "--max-rmse", "0.05", "--codec", "rounding", "--json")
    assert code == Exit.DONE
    assert 0.048 < json.loads(out)["loss"]["rmse"] <= 0.05


def test_suggest_no_bound_where_none_is_needed(series, rounding, capfd):
    code, out, _ = run(capfd, "suggest", "b.parquet", "--target-ratio", "1.1", "--codec", "rounding")
    assert code == Exit.DONE
    assert "none: it is small enough" in out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a.parquet"], Exit.CONFIG, "give --target-ratio or --max-rmse"),
        (["a.parquet", "--target-ratio", "9", "--max-rmse", "1"], Exit.CONFIG, "and not both"),
        (["a.parquet", "--max-rmse", "0"], Exit.CONFIG, "--max-rmse"),
        (["a.parquet", "--max-rmse", "inf"], Exit.CONFIG, "not a finite number"),
        (["a.parquet", "--max-rmse", "1", "--codec", "other"], Exit.CONFIG, "unknown codec 'other'"),
        (
            ["a.parquet", "--target-ratio", "1e9", "--codec", "rounding"],
            Exit.FAILED,
            "no bound reaches a ratio",
        ),
        (["ints.parquet", "--max-rmse", "1", "--codec", "rounding"], Exit.CONFIG, "only floats have a bound"),
        (["none.parquet", "--max-rmse", "1", "--codec", "rounding"], Exit.CONFIG, "without samples"),
    ],
)
def test_suggestions_that_can_not_be_made(series, rounding, capfd, arguments, code, text):
    series("ints.parquet", np.arange(4_000))
    series("none.parquet", WAVE[:0], TIMES[:0])
    found, _, err = run(capfd, "suggest", *arguments)
    assert found == code, err
    assert text in err


@pytest.mark.parametrize("name", ["pco", "origin", "relative"])
def test_codecs_without_a_bound_are_told(series, capfd, name):
    code, _, err = run(capfd, "suggest", "a.parquet", "--max-rmse", "1", "--codec", name)
    assert code == Exit.CONFIG
    assert f"codec {name!r} has no bound in the values' unit; those that have one: " in err
    known = err.split("have one: ")[1].strip().split(", ")
    assert {"quantise", "swinging_door"} <= set(known)
    assert not {"pco", "origin", "relative"} & set(known)


def test_values_that_are_not_finite_are_the_reason_where_they_are(series, capfd):
    series("gap.parquet", np.where(np.arange(4_000) == 1_500, np.nan, WAVE))
    code, _, err = run(capfd, "suggest", "gap.parquet", "--target-ratio", "20")
    assert code == Exit.FAILED
    assert "values that are not finite keep 1 of 1 blocks lossless" in err
    assert "all but gone" not in err
    _, out, _ = run(capfd, "suggest", "gap.parquet", "--max-rmse", "0.05")
    assert "none: values that are not finite keep 1 of 1 blocks lossless" in out
    assert "small enough" not in out
    _, out, _ = run(capfd, "suggest", "gap.parquet", "--max-rmse", "0.05", "--block", "1000")
    assert "4, of them 1 lossless, 1 for values that are not finite" in out
