"""Plants of real adapters, from the plant file on: onboarding, outages, malformed data; with crashes, by seed."""

from __future__ import annotations

import pytest

from headrace.adapters.registry import PAYLOADS
from headrace.cli.sim import SCENARIOS
from headrace.sim.payload_examples import OF_TOPICS
from headrace.sim.plants import PLANTS, run_plant

SEEDS = {"malformed": (1, 2, 3), "onboarding": (1, 2), "outages": (1, 2, 3)}


@pytest.mark.timeout(300)  # the first run compiles kernels
@pytest.mark.parametrize(("scenario", "seed"), [(name, seed) for name in PLANTS for seed in SEEDS[name]])
def test_a_plant_keeps_its_promises(scenario: str, seed: int) -> None:
    report = run_plant(seed, scenario)
    assert report.is_ok, str(report)
    assert all(report.figures[name] for name in ("samples", "lives"))


@pytest.mark.parametrize("name", PAYLOADS.built_in)
def test_every_kind_of_payload_has_an_example(name: str) -> None:
    assert name in OF_TOPICS, (
        f"write how devices write {name!r}, and a rule with a mistake, in payload_examples"
    )


def test_every_scenario_is_a_command() -> None:
    assert set(PLANTS) < set(SCENARIOS)


def test_a_plant_that_breaks_a_promise_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one that acknowledges what it has thrown away."""
    from headrace.ingest.intake_core import IntakeCore

    real = IntakeCore.accept

    def lossy(self, batch, ack=None):
        return real(self, batch.slice(0, batch.n_frames - (batch.n_frames > 1)), ack)

    monkeypatch.setattr(IntakeCore, "accept", lossy)
    report = run_plant(1, "outages")
    assert "are not there" in str(report)
    assert report.command == "uv run headrace sim outages --seed 1"
    assert report.command in str(report)
    assert report.to_dict()["problems"]
