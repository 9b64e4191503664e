"""The whole pipeline, crashed at seeded moments: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import pytest

from headrace.sim.scenarios import Scenario
from headrace.sim.system import run_seed, run_seeds

CHUNK = 8
SEEDS = range(104)


@pytest.mark.parametrize("first", SEEDS[::CHUNK])
def test_no_seed_breaks_a_promise(first: int) -> None:
    wrong = run_seeds(range(first, first + CHUNK))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("n_sensors", [1, 50, 1_000])  # a thousand or more: few long steps
@pytest.mark.parametrize("scenario", [s for s in Scenario if s is not Scenario.SPINE])
def test_invariants_hold_in_any_size_and_way_to_report(scenario: Scenario, n_sensors: int) -> None:
    report = run_seed(1, scenario, n_sensors)
    assert report.is_ok, str(report)
    assert report.n_stored > 0
    assert report.n_stored <= report.n_samples


def test_a_seed_replays_itself() -> None:
    assert run_seed(3).to_dict() == run_seed(3).to_dict()


def test_a_failing_report_says_how_to_replay_it() -> None:
    report = run_seed(2)
    assert report.command == "uv run headrace sim spine --seed 2"
    assert report.command in str(report)
    assert "all is well" in str(report)
