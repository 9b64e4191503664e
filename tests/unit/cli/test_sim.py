"""``headrace sim`` and ``headrace warmup``."""

import json

from headrace.cli.exits import Exit
from headrace.cli.main import run_command


def test_a_seed_that_is_well_says_so(capsys):
    assert run_command(["sim", "steady", "--seed", "5", "--sensors", "4"]) == Exit.DONE
    assert "seed 5, steady: all is well" in capsys.readouterr().out


def test_several_seeds_as_json_are_a_line_each(capsys):
    assert run_command(["sim", "idle", "--count", "2", "--sensors", "2", "--json"]) == Exit.DONE
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["seed"] for r in reports] == [1, 2]
    assert all(r["problems"] == [] for r in reports)


def test_several_seeds_are_summed_up_for_people(capsys):
    assert run_command(["sim", "burst", "--count", "2", "--sensors", "2"]) == Exit.DONE
    assert capsys.readouterr().out == "2 of 2 seeds are well\n"


def test_a_plant_of_real_adapters_is_a_scenario_too(capsys):
    assert run_command(["sim", "outages", "--seed", "4"]) == Exit.DONE
    assert "seed 4, outages: all is well" in capsys.readouterr().out
    assert run_command(["sim", "outages", "--sensors", "4"]) == Exit.CONFIG
    assert "leave --sensors out" in capsys.readouterr().err


def test_warming_up_says_what_it_took(capsys):
    assert run_command(["warmup"]) == Exit.DONE
    assert "kernels are ready after" in capsys.readouterr().out
