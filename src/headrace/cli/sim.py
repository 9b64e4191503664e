"""``headrace sim NAME``: the whole pipeline in one thread, by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand

if TYPE_CHECKING:
    from headrace.sim.plant_report import PlantReport
    from headrace.sim.scenarios import SimReport

PLANTS = ("malformed", "onboarding", "outages")
SCENARIOS = ("spine", "steady", "shift", "burst", "idle", "churn", *PLANTS)


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace sim spine --seed 17             # replay one seed",
        "headrace sim spine --seed 1 --count 200  # two hundred of them",
        "headrace sim churn --sensors 5000 --json",
        "headrace sim outages --seed 3            # real adapters, whose devices are away for a while",
    ),
)
@click.argument("scenario", type=click.Choice(SCENARIOS))
@click.option("--seed", type=int, default=1, show_default=True, help="Everything follows from it.")
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, help="How many seeds from it on."
)
@click.option("--sensors", type=click.IntRange(1), help="How many; default: the scenario's own.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a seed.")
def sim(scenario: str, seed: int, count: int, sensors: int | None, as_json: bool) -> int:
    """Simulate devices, links, disk and pipeline in virtual time, crashes among it, and audit what is stored.

    A scenario is `spine` (everything at once, with crashes and a disk that forgets what was not synced) or one way
    in which devices report. Others run a plant with real adapters: `malformed` (damaged payloads of every kind, rules
    that are put right, replay of what was refused), `onboarding` (thousands of sensors by a tag table, beside devices
    that run) and `outages` (networks that are down for a while, then upload what they kept). A seed that goes wrong prints
    the command that replays it; exit code 1.
    """
    if sensors is not None and scenario in PLANTS:
        raise click.UsageError(f"{scenario} has as many sensors as it has; leave --sensors out")
    wrong = 0
    for number in range(seed, seed + count):
        report = _run(number, scenario, sensors)
        wrong += not report.is_ok
        if as_json:
            output.emit_json(report.to_dict())
        elif not report.is_ok or count == 1:
            click.echo(str(report))
    if count > 1 and not as_json:
        click.echo(f"{count - wrong} of {count} seeds are well")
    return Exit.FAILED if wrong else Exit.DONE


def _run(seed: int, scenario: str, sensors: int | None) -> PlantReport | SimReport:
    if scenario in PLANTS:
        from headrace.sim.plants import run_plant

        return run_plant(seed, scenario)
    from headrace.sim.system import run_seed

    return run_seed(seed, scenario, sensors)
