"""``headrace bench throughput --with-api``: the load as intake of a plant, in real time, with its API beside it.

The plant is what ``headrace run`` makes of a plant file: intake on the event loop, journal, shards, committer,
compaction, control port, and the api process on a public port. Only its adapter is the benchmark's. Whoever wants to
see what clients can do to intake aims them at the address that is told on stderr; the result says for how long
nothing was acknowledged.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.bench.live import LoadAdapter, result
from headrace.bench.load import SERIES_FOLDER, LoadSpec
from headrace.bench.shapes import make_load
from headrace.bench.throughput import CHAIN, Progress, default_rounds
from headrace.cli.doors import Doors, Web, installed_web
from headrace.cli.session import Session
from headrace.core.clock import NS, SystemClock
from headrace.core.config import parse_plant
from headrace.core.errors import PluginError
from headrace.core.faults import FaultPoints
from headrace.runtime.assemble import Plant, check_plant, host_settings
from headrace.runtime.warm import warm_kernels


class _Told:
    """Says what a person, or who starts the clients, must know."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def started(self, address: str, has_page: bool = False) -> None:
        self._progress(f"feeding; the api answers at {address}")

    def beat(self) -> None:
        """Nothing to show."""

    def stopping(self) -> None:
        self._progress("writing what is left")


def run(
    spec: LoadSpec,
    rounds: int | None = None,
    data: Path = SERIES_FOLDER,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Feed and watch; a JSON-ready object. SIGINT and SIGTERM end it early, with what was measured until then.

    Parameters
    ----------
    rounds : seconds; default: 128, fewer where the input would pass 1.5 GB of memory.

    Raises
    ------
    PluginError : the api process can't be started here.
    HeadraceError : the settings make no sense, or the plant ended by itself.
    """
    if installed_web() is not Web.PROCESS:
        raise PluginError("--with-api needs fastapi; install it with: pip install 'headrace[web]'")
    progress("loading kernels")
    warm_kernels((spec.dtype,), (CHAIN,))
    load = make_load(spec, data)
    n_rounds = rounds or default_rounds(load)
    progress(f"making {n_rounds} s of {load.n_samples(0):,} samples")
    inputs = [load.input(i, SystemClock().now_ns() // NS * NS) for i in range(n_rounds)]
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    try:
        return asyncio.run(_feed(folder, lambda end: LoadAdapter(load, inputs, end), progress))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _feed(
    folder: Path, make: Callable[[Callable[[], None]], LoadAdapter], progress: Progress
) -> dict[str, Any]:
    """Run the plant until the load has ended; what was measured."""
    config = parse_plant({"version": 1, "api": {"listen": "127.0.0.1:0"}}, folder)
    ended = asyncio.Event()
    adapter, clock = make(ended.set), SystemClock()
    blueprint = replace(check_plant(config), adapters={adapter.name: adapter}, flows=(CHAIN,))
    plant = Plant(blueprint, clock=clock, faults=FaultPoints(), settings=host_settings(config))
    doors = Doors(plant, clock, Web.PROCESS)
    doors.bind()
    await Session(plant, doors, _Told(progress), until=ended).run()
    if adapter.failure is not None:
        raise adapter.failure
    progress("checking what is in the store")
    return await asyncio.to_thread(result, adapter, config.store_folder)
