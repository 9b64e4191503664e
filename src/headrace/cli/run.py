"""``headrace run FILE``: the user's own plant."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace run                                   # ./plant.toml",
        "headrace run plant.toml --set api.listen=127.0.0.1:0",
        "headrace run plant.toml 2>> plant.log          # a line every ten seconds",
        "headrace run --skip-damaged                    # after a disk has damaged what was stored",
    ),
)
@click.argument("file", default="plant.toml", type=click.Path())
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; may be repeated."
)
@click.option(
    "--skip-damaged",
    is_flag=True,
    help="Go on without records and state that can't be read; the journal's are kept aside.",
)
@click.option(
    "--no-web",
    is_flag=True,
    help="Without page, queries and API: no process for them; health and status stay.",
)
def run(file: str, overrides: tuple[str, ...], skip_damaged: bool, no_web: bool) -> int:
    """Run a plant: collect, make durable, compute, store, and answer on its HTTP port.

    Devices that are away are no error: they are retried, and the line of their adapter says why. SIGINT
    (Ctrl-C) or SIGTERM ends it: what was received is written first, within ten seconds. Restarted, it goes on
    where it stopped, also after a crash or a power cut. SIGHUP loads what has changed on the disk: the plant file, and
    the code of adapters.
    """
    from headrace.cli.doors import Doors, Web, installed_web
    from headrace.cli.live import Screen
    from headrace.cli.session import Session
    from headrace.core.clock import SystemClock
    from headrace.core.config import load_plant
    from headrace.ingest.journal import DamagePolicy
    from headrace.runtime.assemble import build_plant, host_settings
    from headrace.runtime.warm import warm_kernels
    from headrace.sim.faults import VARIABLE, fault_points

    # Others ask from other folders where the store is.
    config = load_plant(Path(file).absolute(), overrides)
    clock = SystemClock()
    # Faults for tests of recovery: none unless the environment names them.
    faults = fault_points(os.environ.get(VARIABLE))
    settings = host_settings(config, DamagePolicy.SKIP if skip_damaged else DamagePolicy.STOP)
    plant = build_plant(config, clock=clock, faults=faults, settings=settings)
    doors = Doors(plant, clock, Web.ENGINE if no_web else installed_web())
    doors.bind()
    # Compiling them (the first time) while data come in would hold up everything, the end too.
    warm_kernels(specs=plant.flows, protocols=[one.protocol for one in config.adapters.values()])
    screen = Screen(plant, clock, f"headrace run {file}")
    try:
        asyncio.run(Session(plant, doors, screen).run())
    finally:
        screen.close()
    return Exit.DONE
