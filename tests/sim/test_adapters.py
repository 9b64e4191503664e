"""Plants of real adapters, from the plant file on: onboarding, outages, malformed data; with crashes, by seed."""

from __future__ import annotations

import tomllib

import pytest

from headrace.adapters.registry import PAYLOADS
from headrace.cli.sim import SCENARIOS
from headrace.sim.malformed import is_plausible, plant_text
from headrace.sim.memory_broker import SentMessage
from headrace.sim.payload_damage import PayloadDamage, n_values_most
from headrace.sim.payload_examples import OF_TOPICS, PUSHED
from headrace.sim.plants import PLANTS, run_plant

SEEDS = {"malformed": (1, 2, 3), "onboarding": (1, 2), "outages": (1, 2, 3)}


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


def test_a_damaged_message_has_no_more_values_than_it_can_and_some() -> None:
    cut = SentMessage(b"1,2\n3,", n_most=n_values_most(4, PayloadDamage.CUT, b"1,2\n3,"))
    assert [n for n in range(20) if is_plausible("csv", cut, n)] == list(range(1, 13))
    noise = SentMessage(b"\xff\n\n", n_most=n_values_most(4, PayloadDamage.NOISE, b"\xff\n\n"))
    assert [n for n in range(20) if is_plausible("line", noise, n)] == [1, 2]
    assert [n for n in range(20) if is_plausible("otlp", noise, n)] == [0, 1, 2]


def test_no_client_is_sent_away_because_the_computer_is_busy() -> None:
    """How long an answer may take is real time: what is sent again then was taken all the same."""
    adapters = tomllib.loads(plant_text(1))["adapters"]
    pushed = [section for section in adapters.values() if section["protocol"] == "http"]
    assert len(pushed) == 2 * len(PUSHED)
    assert {section["answer_within"] for section in pushed} == {"1h"}


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
