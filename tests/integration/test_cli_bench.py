"""The benchmarks as commands: short forms, for their output; what they measure is tested beside them."""

import json

import pytest

from headrace.cli.exits import Exit
from headrace.cli.main import run_command

pytestmark = pytest.mark.timeout(240)


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


def test_bench_alone_lists_what_there_is(capsys):
    assert run_command(["bench"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "throughput" in out
    assert "recovery" in out
