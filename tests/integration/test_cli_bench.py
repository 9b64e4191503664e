"""The benchmarks as commands: short forms, for their output; what they measure is tested beside them."""

import json
from xml.etree import ElementTree

import pytest

from headrace.bench.load import LoadSpec, RegisterLoad
from headrace.bench.throughput import run
from headrace.cli.doors import Web
from headrace.cli.exits import Exit
from headrace.cli.main import run_command
from headrace.core.errors import HeadraceError


def test_throughput_as_one_json_object(capfd):
    arguments = ["bench", "throughput", "--sensors", "1000", "--group", "50", "--rounds", "16", "--json"]
    assert run_command(arguments) == Exit.DONE
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["sensors"] == 1_000
    assert result["lost"] == result["duplicated"] == 0
    assert result["cpu_ns_per_sample"] > 0
    assert {"decode", "normalise", "journal", "pipeline", "encode", "write"} <= set(result["stages"])
    assert result["reference"]["cpu_ns_per_sample"] > 0
    assert "loading kernels" in err


@pytest.mark.parametrize(
    ("shape", "sensors", "group", "n_samples"),
    [("mixed", 1_000, 50, None), ("sparse", 2_000, 1_000, 2 * 100 * 3 * 16), ("wave", 2, 1, 2 * 12_000 * 16)],
)
@pytest.mark.parametrize("dtype", ["u16", "f64"])
def test_every_shape_goes_through_and_comes_back_bit_for_bit(
    shape, sensors, group, n_samples, dtype, tmp_path
):
    result = run(LoadSpec(sensors, group, dtype, "shuffled", shape=shape), 16, tmp_path, with_reference=False)
    assert result["lost"] == result["duplicated"] == 0
    assert result["samples"] == result["stored"]
    assert n_samples is None or result["samples"] == n_samples
    assert result["compared"] > 0


def test_what_does_not_read_back_as_it_was_sent_is_no_result(tmp_path, monkeypatch):
    stored_of = RegisterLoad.stored_of

    def other(load, place, n_rounds):
        values, quality = stored_of(load, place, n_rounds)
        values[3, 1] += 1
        return values, quality

    monkeypatch.setattr(RegisterLoad, "stored_of", other)
    with pytest.raises(HeadraceError, match="2 of 2 groups do not read back"):
        run(LoadSpec(100, 50, "u16", "poll"), 16, tmp_path, with_reference=False)


def test_only_a_share_of_the_registered_sensors_sends(tmp_path):
    result = run(LoadSpec(5_000, 50, "u16", "poll", active=0.1), 16, tmp_path)
    assert (result["sensors"], result["samples"]) == (5_000, 500 * 16)
    assert result["reference"]["rows"] == 500 * 16
    assert result["register_cpu_s"] > 0


def test_a_sweep_draws_cost_against_sensors(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "headrace.bench.sweep._ROUNDS", 4
    )  # the largest has 12,000 values of 100 sensors in each
    chart = tmp_path / "sweep.svg"
    arguments = ["bench", "throughput", "--sweep", "--up-to", "100", "--chart", str(chart)]
    assert run_command([*arguments, "--json"]) == Exit.DONE
    result = json.loads(capfd.readouterr().out)
    points = result["points"]
    assert result["reference"]["rows"] == 100 * 4
    assert [(p["shape"], p["sensors"]) for p in points] == [
        (shape, n) for shape in ("dense", "mixed", "sparse", "wave") for n in (10, 100)
    ]
    assert all(p["lost"] == p["duplicated"] == 0 and p["cpu_ns_per_sample"] > 0 for p in points)
    drawing = ElementTree.parse(chart).getroot()
    assert len(drawing.findall("{*}polyline")) == 4
    assert len(drawing.findall("{*}circle")) == 8
    texts = [e.text for e in drawing.findall("{*}text")]
    assert {"dense", "mixed", "sparse", "wave", "sensors", "ns of CPU a sample"} <= set(texts)


def test_stages_as_a_picture(capfd, tmp_path):
    chart = tmp_path / "stages.svg"
    arguments = ["bench", "throughput", "--sensors", "100", "--rounds", "16", "--chart", str(chart), "--json"]
    assert run_command(arguments) == Exit.DONE
    result = json.loads(capfd.readouterr().out)
    stages = result["stages"]
    drawing = ElementTree.parse(chart).getroot()
    texts = [e.text for e in drawing.findall("{*}text")]
    assert set(stages) <= set(texts)
    # What no stage has is a part of its own, where there is any.
    (whole,) = (
        float(text.removesuffix(" ns"))
        for text in texts[: texts.index("Polars, windows only")]
        if text.endswith(" ns")
    )
    assert whole == pytest.approx(max(sum(stages.values()), result["cpu_ns_per_sample"]), abs=0.3)


def test_throughput_for_people(capfd):
    arguments = [
        "bench",
        "throughput",
        "--sensors",
        "100",
        "--group",
        "1",
        "--dtype",
        "f64",
        "--rounds",
        "16",
    ]
    assert run_command(arguments) == Exit.DONE
    out, _ = capfd.readouterr()
    assert "stages.journal" in out
    assert "reference.name" in out


def test_settings_that_make_no_sense(capsys):
    assert run_command(["bench", "throughput", "--sensors", "7", "--group", "50"]) == Exit.CONFIG
    assert "--sensors must be a multiple of --group" in capsys.readouterr().err
    assert run_command(["bench", "throughput", "--order", "sorted"]) == Exit.CONFIG
    assert "'sorted' is not one of" in capsys.readouterr().err
    for wrong in (["--group", "200"], ["--active", "0"], ["--shape", "wave", "--group", "2"]):
        assert run_command(["bench", "throughput", "--sensors", "1000", *wrong]) == Exit.CONFIG
        assert wrong[-2].lstrip("-") in capsys.readouterr().err


def test_bench_alone_lists_what_there_is(capsys):
    assert run_command(["bench"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "throughput" in out
    assert "recovery" in out


def test_queries_as_one_json_object(capfd):
    arguments = [
        "bench",
        "query",
        "--sensors",
        "1000",
        "--seconds",
        "300",
        "--chunks",
        "1000",
        "--repeats",
        "3",
        "--json",
    ]
    assert run_command(arguments) == Exit.DONE
    result = json.loads(capfd.readouterr().out)
    assert result["running"]["last_hour"]["rows"] == 300
    assert result["line"]["day"]["rows"] == 300
    assert result["headers"]["aggregate"]["rows"] == 1_000
    for one in (result["running"]["last_hour"], result["line"]["day"], result["headers"]["aggregate"]):
        assert 0 < one["p50_ms"] <= one["p95_ms"]
        assert one["cpu_ratio_to_duckdb"] > 0
    assert 0 < result["running"]["cached_bytes"] < 10_000_000


def test_a_store_of_half_a_line_is_refused(capfd):
    assert run_command(["bench", "query", "--sensors", "1500"]) != Exit.DONE
    assert "--sensors must be a multiple of 1,000" in capfd.readouterr().err


@pytest.mark.parametrize("group", ["50", "1"])
def test_a_killed_plant_is_opened_again(capfd, group):
    arguments = ["bench", "restart", "--sensors", "2000", "--group", group, "--seconds", "20", "--json"]
    assert run_command(arguments) == Exit.DONE
    result = json.loads(capfd.readouterr().out)
    assert result["filled"]["journal_bytes"] > 0
    assert result["replayed_records"] >= 40
    assert 0 < result["opened_s"] <= result["accepting_s"]
    assert result["opened_s"] < result["caught_up_s"]


@pytest.mark.parametrize("group", ["50", "1"])
def test_the_directory_as_one_json_object(capfd, group):
    assert run_command(["bench", "directory", "--sensors", "5000", "--group", group, "--json"]) == Exit.DONE
    result = json.loads(capfd.readouterr().out)
    assert result["found"]["all"] == 5_000
    assert result["found"]["one"] == 1
    assert result["define_cpu_s"] > 0
    assert result["rss_peak_bytes"] > 0


@pytest.mark.parametrize("name", ["restart", "directory"])
def test_groups_that_do_not_share_the_sensors_out_are_refused(capfd, name):
    assert run_command(["bench", name, "--sensors", "70", "--group", "50"]) != Exit.DONE
    assert "--sensors must be a multiple of --group 50, got 70" in capfd.readouterr().err


def test_a_plant_with_its_api_is_fed_in_real_time(capfd):
    arguments = ["bench", "throughput", "--with-api", "--sensors", "200", "--rounds", "2", "--json"]
    assert run_command(arguments) == Exit.DONE
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["acknowledged"] == result["stored"] == result["samples"] == 400
    assert result["lost"] == result["duplicated"] == 0
    assert 0 < result["worst_stall_ms"] < 5_000
    assert "the api answers at http://127.0.0.1:" in err


@pytest.mark.parametrize("more", [["--sweep"], ["--chart", "x.svg"]])
def test_a_plant_with_its_api_is_one_run(capfd, more):
    assert run_command(["bench", "throughput", "--with-api", *more]) == Exit.CONFIG
    assert "leave out --sweep and --chart" in capfd.readouterr().err


def test_a_plant_without_the_api_libraries_says_what_is_missing(capfd, monkeypatch):
    monkeypatch.setattr("headrace.cli.live_bench.installed_web", lambda: Web.ENGINE)
    assert run_command(["bench", "throughput", "--with-api"]) == Exit.CONFIG
    assert "pip install 'headrace[web]'" in capfd.readouterr().err
