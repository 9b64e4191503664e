"""``headrace check FILE``: what is wrong with a plant file, or what it will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand
from headrace.core.clock import NS
from headrace.core.errors import ConfigError

if TYPE_CHECKING:
    from headrace.core.config import PlantConfig
    from headrace.runtime.assemble import Blueprint

TYPICAL_BYTES = 2.0
"""What a sample of register data takes on disk; measured plants are between 1 and 3."""
_MONTH_S = 30 * 86_400


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace check plant.toml",
        "headrace check plant.toml --set store.url=/var/lib/leon",
        "headrace check plant.toml --json | jq '.problems[].where'",
    ),
)
@click.argument("file", default="plant.toml", type=click.Path())
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
def check(file: str, overrides: tuple[str, ...], as_json: bool) -> int:
    """Check a plant file before it runs; nothing is connected to and nothing is written.

    Every problem is told with its key, what was found and what is allowed (exit code 2). A file without problems
    is summed up: sensors, polls a second, and what a month will take on disk.
    """
    from headrace.core.config import load_plant
    from headrace.core.problems import InvalidConfig
    from headrace.runtime.assemble import check_plant

    try:
        blueprint = check_plant(load_plant(file, overrides))
    except InvalidConfig as e:
        return _tell(file, [{"where": p.where, "message": p.message} for p in e.problems], as_json)
    except ConfigError as e:
        return _tell(file, [{"where": e.where, "message": e.message}], as_json)
    expected = [expect(name, blueprint) for name in blueprint.adapters]
    if as_json:
        output.emit_json(
            {"file": file, "problems": [], **_totals(expected), "adapters": [e.to_dict() for e in expected]}
        )
    else:
        click.echo(_summary(file, blueprint.config, expected))
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an adapter will do. Rates are None where they show only when data come."""

    name: str
    protocol: str
    n_devices: int
    n_sensors: int
    polls_per_s: float | None

    @property
    def samples_per_s(self) -> float | None:
        """Samples a second, where polls give all sensors of a device."""
        if self.polls_per_s is None or not self.n_devices:
            return None
        return self.polls_per_s * self.n_sensors / self.n_devices

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name, "protocol": self.protocol, "devices": self.n_devices, "sensors": self.n_sensors,
            "polls_per_s": self.polls_per_s, "samples_per_s": self.samples_per_s,
        }  # fmt: skip


def expect(name: str, blueprint: Blueprint) -> Expectation:
    """What one adapter of a checked plant will do, from its devices and their intervals."""
    from headrace.adapters.device_tables import device_rows
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.problems import validate_section

    section = blueprint.config.adapters[name]
    n_sensors = blueprint.adapters[name].diagnostics().n_sensors
    settings = validate_section(ADAPTERS.load(section.protocol).Config, section.options, f"adapters.{name}")
    interval_ns, devices = getattr(settings, "interval", None), getattr(settings, "devices", None)
    if devices is None or interval_ns is None:
        return Expectation(name, section.protocol, 0, n_sensors, None)
    rows = device_rows(devices, blueprint.config.folder, blueprint.config.tables)
    each_ns = [_interval_ns(row.get("interval"), interval_ns) for _, row in rows]
    return Expectation(name, section.protocol, len(rows), n_sensors, sum(NS / ns for ns in each_ns))


def _interval_ns(written: Any, default_ns: int) -> int:
    """A device's own interval: text from a CSV file, ns from the plant file, or none."""
    from headrace.core.paths import parse_duration_ns

    if written is None:
        return default_ns
    return parse_duration_ns(written) if isinstance(written, str) else int(written)


def _tell(file: str, problems: list[dict[str, str]], as_json: bool) -> int:
    if as_json:
        output.emit_json({"file": file, "problems": problems})
    else:
        n = len(problems)
        output.note(f"{file} has {n} problem{'s' if n != 1 else ''}:")
        for one in problems:
            click.echo(f"  {one['where']}: {one['message']}" if one["where"] else f"  {one['message']}")
    return Exit.CONFIG


def _totals(expected: list[Expectation]) -> dict[str, Any]:
    rates = [e.samples_per_s for e in expected if e.samples_per_s is not None]
    per_s = sum(rates)
    return {
        "sensors": sum(e.n_sensors for e in expected),
        "polls_per_s": round(sum(e.polls_per_s or 0.0 for e in expected), 3),
        "samples_per_s": round(per_s, 3),
        "gb_per_month": round(per_s * _MONTH_S * TYPICAL_BYTES / 1e9, 3),
    }


def _summary(file: str, config: PlantConfig, expected: list[Expectation]) -> str:
    rows = [
        [
            e.name,
            e.protocol,
            output.count(e.n_devices) if e.n_devices else "-",
            output.count(e.n_sensors) if e.n_sensors else "as they come",
            f"{e.polls_per_s:,.1f}" if e.polls_per_s is not None else "as they come",
        ]
        for e in expected
    ]
    totals = _totals(expected)
    text = [f"{file} is fine."]
    if rows:
        text += ["", output.table(("adapter", "protocol", "devices", "sensors", "polls/s"), rows, (2, 3, 4))]
    else:
        text.append("It has no adapters yet, so nothing will come in: add [adapters.NAME] with a protocol.")
    text += [
        "",
        output.fields(
            [
                ("store", config.store.url if config.store.is_bucket else str(config.store_folder)),
                ("pipelines", ", ".join(config.pipelines) or "none"),
                ("polled", f"{totals['sensors']:,} sensors, {totals['samples_per_s']:,.0f} samples/s"),
                (
                    "disk",
                    f"about {totals['gb_per_month']:,.2g} GB a month at {TYPICAL_BYTES:.0f} bytes a sample",
                ),
            ]
        ),
    ]
    return "\n".join(text)
