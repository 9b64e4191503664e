"""``headrace demo``: a simulated factory and the pipeline, with nothing to install or configure."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand
from headrace.core.clock import NS, SystemClock, monotonic_ns
from headrace.core.errors import ConfigError, PluginError, StorageError

if TYPE_CHECKING:
    from headrace.cli.doors import Doors
    from headrace.core.clock import Clock
    from headrace.core.config import PlantConfig
    from headrace.runtime.assemble import Plant

_N_STORES = 9
_EXTRAS = "headrace[modbus,opcua,mqtt,sparkplug,broker]"
_PIPELINE = (
    'pipelines.demo={read = "**/temperature", steps = [{op = "window", every = "10s", agg = ["mean", "max"]}], '
    'write = "{parent}/{signal}_{agg}_10s"}'
)
"""What the demo computes as the data come in."""


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds of a duration such as ``30s``."""
    from headrace.core.paths import parse_duration_ns

    try:
        return None if value is None else parse_duration_ns(value) / NS
    except ConfigError as e:
        raise click.BadParameter(e.message, ctx, param) from e


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace demo                           # until Ctrl-C",
        "headrace demo --for 30s --json          # only the summary, as one JSON document",
        "headrace demo --store demo-store        # keep the store in a folder of your choice",
        "headrace demo --speed 60                # an hour of the factory in a minute",
    ),
)
@click.option(
    "--for", "for_s", callback=_seconds, metavar="DURATION", help="End by itself; default: on Ctrl-C."
)
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 1_000),
    default=1.0,
    show_default=True,
    help="Factory seconds a second.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Folder of the store; default: one in the cache, new each time.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another factory.")
@click.option("--no-web", is_flag=True, help="Without page, queries and API: no process for them is started.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON document.")
def demo(
    for_s: float | None, speed: float, store: Path | None, seed: int, no_web: bool, as_json: bool
) -> int:
    """Run a simulated factory and the pipeline, and watch.

    Four lines with thousands of sensors, shifts, breaks and a weekend speak Modbus TCP, OPC UA, MQTT and Sparkplug B
    over this machine's loopback. Headrace collects, journals, computes and stores, as it would with real devices. At
    the end there is a summary, and three commands to look at what was stored.
    """
    begun_ns = monotonic_ns()
    _check_installed()
    keeping = contextlib.nullcontext(store.absolute()) if store is not None else _cache_store()
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder, keeping as kept:
        try:
            summary = _run(_Wanted(Path(folder), kept, seed, speed, for_s, begun_ns, no_web))
        except KeyboardInterrupt:
            output.note("stopped before it began")
            return Exit.DONE
    summary["next"] = next_commands(kept, store)
    if as_json:
        output.emit_json(summary)
    else:
        click.echo(_page(summary))
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for. `begun_ns` is when the command was called."""

    folder: Path
    store: Path
    seed: int
    speed: float
    for_s: float | None
    begun_ns: int
    no_web: bool


def _run(wanted: _Wanted) -> dict[str, Any]:
    """Start the factory, run the plant, stop both; the plant's summary."""
    from headrace.cli.factory_process import FactoryProcess
    from headrace.sim.plant import plant_clock

    anchor_ns = SystemClock().now_ns()
    factory = FactoryProcess(wanted.seed, wanted.speed, anchor_ns, wanted.folder)
    try:
        output.note("starting the simulated factory ...")
        factory.start()
        _load_kernels()
        facts = factory.wait_ready()
        return _collect(wanted, Path(facts["plant"]), plant_clock(wanted.speed, anchor_ns))
    finally:
        factory.stop()


def _check_installed() -> None:
    """The protocols' libraries are extras; without that of OPC UA the factory does not speak it.

    Raises
    ------
    PluginError : another one is missing.
    """
    for module in ("pymodbus", "gmqtt", "msgspec"):
        if importlib.util.find_spec(module) is None:
            raise PluginError(f"the demo needs {module}; install it with: pip install '{_EXTRAS}'")
    if importlib.util.find_spec("asyncua") is None:
        output.note(f"OPC UA is left out, for asyncua is not installed: pip install '{_EXTRAS}'")


def _load_kernels() -> None:
    """Compile the kernels, or load them from the cache, before the first sample comes."""
    from headrace.runtime.warm import warm_kernels

    output.note("loading kernels (the first time they are compiled, which takes a minute or more) ...")
    # What the simulated devices send, and how.
    warm_kernels(("u8", "u16", "u32", "f32", "f64"), protocols=("modbus", "opcua", "mqtt", "sparkplug"))


def _collect(wanted: _Wanted, file: Path, clock: Clock) -> dict[str, Any]:
    """Run the plant of the factory's plant file; its summary."""
    from headrace.cli.factory_screen import FactoryScreen
    from headrace.cli.session import Session
    from headrace.core.config import load_plant
    from headrace.runtime.assemble import build_plant

    config = load_plant(file, [f"store.url={output.toml_text(str(wanted.store))}", _PIPELINE])
    plant = build_plant(config, clock=clock)
    doors = _bound_doors(wanted, plant, config, clock)
    screen = FactoryScreen(plant, clock, "headrace demo")
    try:
        asyncio.run(Session(plant, doors, screen, wanted.for_s).run())
    finally:
        screen.close()
    seen_ns = screen.first_stored_ns
    first_s = None if seen_ns is None else round((seen_ns - wanted.begun_ns) / NS, 1)
    return {**plant.summary(), "protocols": _by_protocol(plant), "first_stored_s": first_s}


def _by_protocol(plant: Plant) -> dict[str, int]:
    """Samples of each protocol."""
    counts: dict[str, int] = {}
    for adapter in plant.adapters():
        counts[adapter.protocol] = counts.get(adapter.protocol, 0) + adapter.n_samples
    return counts


def _bound_doors(wanted: _Wanted, plant: Plant, config: PlantConfig, clock: Clock) -> Doors:
    """The ports; another free one where the usual one is taken, for two demos may run at once."""
    from headrace.cli.doors import Doors, Web, installed_web

    doors = Doors(plant, clock, Web.ENGINE if wanted.no_web else installed_web())
    try:
        doors.bind()
    except ConfigError:
        output.note(f"port {config.api.port} is in use; taking another one")
        doors.bind(0)
    return doors


# --- the store ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _cache_store() -> Iterator[Path]:
    """A new store in the user's cache folder; what the last demo left there is removed first.

    It stays until the next demo, so that the commands of the summary have something to look at.
    """
    from headrace.core.disk import LocalDisk

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"
    for n in range(1, _N_STORES + 1):
        folder = cache / ("demo-store" if n == 1 else f"demo-store-{n}")
        disk = LocalDisk(folder)
        try:
            disk.lock()
        except StorageError:
            if not os.access(cache, os.W_OK):
                raise
            continue  # another demo runs on it
        try:
            _empty(folder)
        finally:
            disk.unlock()
        yield folder
        return
    raise StorageError(f"{_N_STORES} demos run already in {cache}; name a folder with --store")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


# --- the end -----------------------------------------------------------------------------------------


def next_commands(store: Path, named: Path | None) -> list[str]:
    """Three commands to try on the store; they work where the demo was started."""
    start = "uv run headrace" if "UV_RUN_RECURSION_DEPTH" in os.environ else "headrace"
    target = shlex.quote(str(named or store))
    return [
        f"{start} query '**/line1/**/temperature' -t {target} --last 10m --every 1m --agg mean,max",
        f"{start} query '**/running' -t {target} --last 10m --agg last --format csv",
        f"{start} status -t {target}",
    ]


def _page(summary: dict[str, Any]) -> str:
    cpu = summary["cpu_ns_per_sample"]
    stages = ", ".join(f"{name} {ns:,.0f}" for name, ns in cpu.items())
    pairs = [
        ("sensors", output.count(summary["sensors"])),
        *(
            (name, output.count(summary[name]))
            for name in ("received", "stored", "duplicates", "rejected", "thinned")
        ),
        ("protocols", ", ".join(f"{name} {output.count(n)}" for name, n in summary["protocols"].items())),
        (
            "on disk",
            f"{summary['bytes_per_sample']:.2f} bytes a sample, {summary['ratio']:.1f} times smaller than 16",
        ),
        ("cpu", f"{stages} ns a sample"),
        ("store", summary["store"]["url"]),
    ]
    return "\n".join([output.fields(pairs), "", "Try next:", *(f"  {line}" for line in summary["next"])])
