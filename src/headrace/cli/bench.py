"""``headrace bench NAME``: measure this machine on the path that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.cli import output
from headrace.cli.teaching import TaughtCommand


@click.group(invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure this machine: throughput, recovery, queries, restarts, the directory.

    The benchmarks run the parts that a plant runs, on data made here. They need no plant and leave nothing behind.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench throughput                               # a million sensors in groups of 50",
        "headrace bench throughput --order shuffled --json",
        "headrace bench throughput --group 1 --dtype f64 --order random",
        "headrace bench throughput --sensors 50000 --rounds 32   # a quick look",
        "headrace bench throughput --sensors 10000000 --active 0.01",
        "headrace bench throughput --shape wave --sensors 1000 --group 1",
        "headrace bench throughput --sweep --up-to 100000 --chart sweep.svg",
        "headrace bench throughput --with-api --rounds 60        # what do clients of the API do to intake?",
    ),
)
@click.option(
    "--sensors", type=click.IntRange(1), default=1_000_000, show_default=True, help="How many, at 1 Hz."
)
@click.option(
    "--group", type=click.IntRange(1), default=50, show_default=True, help="Sensors of each device."
)
@click.option(
    "--dtype", type=click.Choice(["u16", "f64"]), default="u16", show_default=True, help="Value type."
)
@click.option(
    "--order",
    type=click.Choice(["poll", "shuffled", "random"]),
    default="poll",
    show_default=True,
    help="How devices follow each other in a round.",
)
@click.option(
    "--shape",
    type=click.Choice(["dense", "mixed", "sparse", "wave"]),
    default="dense",
    show_default=True,
    help="Registers; values with qualities; 3 changes a frame; a second of 12 kHz a frame.",
)
@click.option(
    "--active", type=float, default=1.0, show_default=True, help="Share of the devices that send anything."
)
@click.option("--rounds", type=click.IntRange(1), help="Seconds of plant time; default: as memory allows.")
@click.option("--sweep", is_flag=True, help="All shapes, from ten sensors to ten million.")
@click.option("--up-to", type=click.IntRange(10), help="Sensors of the largest plant of a sweep.")
@click.option(
    "--chart", "chart_file", type=click.Path(dir_okay=False, writable=True), help="A picture too, as SVG."
)
@click.option(
    "--with-api",
    is_flag=True,
    help="Feed in real time, as an adapter of a running plant; its API's address is on stderr.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def throughput(
    as_json: bool,
    rounds: int | None,
    sweep: bool,
    up_to: int | None,
    chart_file: str | None,
    with_api: bool,
    **settings: Any,
) -> None:
    """CPU time of a sample from its payload bytes to the committed segment, by stage.

    In the same run Polars computes the same windows in memory, without journal or store, as a reference. CPU
    time holds on a shared machine; wall-clock figures are marked invalid where others used the cores.

    With --with-api the result says instead for how long nothing was acknowledged (worst_stall_ms), whatever the
    clients of the API did meanwhile.
    """
    if with_api:
        if sweep or chart_file is not None:
            raise click.UsageError("--with-api is one run without a picture: leave out --sweep and --chart")
        _with_api(rounds, settings, as_json)
        return
    if sweep:
        _sweep(up_to, settings["dtype"], chart_file, as_json)
        return
    from headrace.bench.load import LoadSpec
    from headrace.bench.throughput import chart, run

    result = run(LoadSpec(**settings), rounds, progress=output.note)
    if chart_file is not None:
        Path(chart_file).write_text(chart({f"{result['sensors']:,} sensors": result}))
    _show(result, as_json)


def _with_api(rounds: int | None, settings: dict[str, Any], as_json: bool) -> None:
    from headrace.bench.load import LoadSpec
    from headrace.cli.live_bench import run

    _show(run(LoadSpec(**settings), rounds, progress=output.note), as_json)


def _sweep(up_to: int | None, dtype: str, chart_file: str | None, as_json: bool) -> None:
    from headrace.bench import sweep

    result = sweep.sweep(up_to or sweep.SENSORS_MAX, dtype, progress=output.note)
    if chart_file is not None:
        Path(chart_file).write_text(sweep.chart(result))
    if as_json:
        output.emit_json(result)
        return
    header = ("shape", "sensors", "samples", "ns of CPU", "stored bytes")
    rows = [
        [
            one["shape"],
            output.count(one["sensors"]),
            output.count(one["samples"]),
            f"{one['cpu_ns_per_sample']:,.1f}",
            f"{one['bytes_per_sample']:.2f}",
        ]
        for one in result["points"]
    ]
    click.echo(output.table(header, rows, (1, 2, 3, 4)))


@bench.command(
    cls=TaughtCommand,
    examples=("headrace bench recovery              # 20 kills", "headrace bench recovery --kills 3 --json"),
)
@click.option(
    "--kills", type=click.IntRange(1), default=20, show_default=True, help="How often it is killed."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides when.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def recovery(as_json: bool, **settings: Any) -> None:
    """Kill the pipeline under load, again and again, and count: nothing acknowledged is lost, nothing twice.

    The pipeline is a process of its own under MQTT QoS 1 load; SIGKILL comes at random moments, the writing of
    journal, segment, commit and snapshot among them.
    """
    from headrace.bench.recovery import run

    _show(run(**settings, progress=output.note), as_json)


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench query --json",
        "headrace bench query --sensors 2000 --seconds 2000 --chunks 2000   # a quick look",
    ),
)
@click.option(
    "--sensors", type=click.IntRange(1), default=10_000, show_default=True, help="Of the running plant."
)
@click.option(
    "--seconds", type=click.IntRange(1), default=10_000, show_default=True, help="How long it ran, at 1 Hz."
)
@click.option(
    "--chunks",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    help="Warm chunks that are aggregated.",
)
@click.option("--repeats", type=click.IntRange(1), default=41, show_default=True, help="Asked so often each.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def query(as_json: bool, **settings: Any) -> None:
    """How long questions take: a sensor's last hour while the engine runs, a day, windows, aggregates of everything.

    In the same run DuckDB answers the same from the same rows as a Parquet file, sorted by sensor and time.
    """
    from headrace.bench.query import run

    _show(run(**settings, progress=output.note), as_json)


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench restart --json",
        "headrace bench restart --sensors 1000000 --group 1      # lone sensors",
        "headrace bench restart --sensors 50000 --seconds 30     # a quick look",
    ),
)
@click.option(
    "--sensors", type=click.IntRange(1), default=10_000_000, show_default=True, help="How many, at 1 Hz."
)
@click.option(
    "--group", type=click.IntRange(1), default=50, show_default=True, help="Sensors of each device."
)
@click.option(
    "--seconds", type=click.IntRange(1), default=150, show_default=True, help="How long the plant ran."
)
@click.option(
    "--pipeline/--no-pipeline",
    default=True,
    show_default=True,
    help="Compute windows of a minute: state to restore.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def restart(as_json: bool, **settings: Any) -> None:
    """How soon a killed plant accepts again, and when it has caught up with its journal."""
    from headrace.bench.restart import run

    _show(run(**settings, progress=output.note), as_json)


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench directory --json",
        "headrace bench directory --group 1                      # lone sensors",
    ),
)
@click.option("--sensors", type=click.IntRange(1), default=10_000_000, show_default=True, help="How many.")
@click.option(
    "--group", type=click.IntRange(1), default=50, show_default=True, help="Sensors of each device."
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def directory(as_json: bool, **settings: Any) -> None:
    """What it costs to know many sensors: defining, saving, loading, finding, memory."""
    from headrace.bench.directory import run

    _show(run(**settings, progress=output.note), as_json)


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"numbers separated by commas expected, got {text!r}") from None
    if any(number <= 0 for number in numbers):
        raise click.BadParameter(f"numbers above 0 expected, got {text!r}")
    return numbers


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench codecs --data my-series                  # a folder of Parquet or CSV files, one a sensor",
        "headrace bench codecs --data my-series --blocks 1024 --bounds 0.001 --json",
        "headrace bench codecs --data my-series --chart ratios.svg",
    ),
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of series files: times and a column 'value'.",
)
@click.option(
    "--blocks", default="256,1024,8192", show_default=True, callback=_numbers, help="Samples of a chunk."
)
@click.option(
    "--bounds",
    default="0.001,0.005,0.01",
    show_default=True,
    callback=_numbers,
    help="Error bounds, as shares of each series' range.",
)
@click.option(
    "--chart",
    "chart_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="A picture too, as SVG: of 1,024 samples a chunk, or the first length.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def codecs(
    data: Path, blocks: list[float], bounds: list[float], chart_file: Path | None, as_json: bool
) -> None:
    """What series cost in the store: raw bytes by stored ones, lossless and within bounds, beside other codecs.

    Raw is 16 bytes a sample. Stored are the chunks of a real segment, timestamps, headers and footer included; the
    other codecs are not charged for headers. Every chunk is decoded and compared.
    """
    from headrace.bench.codecs import chart, run

    lengths = [int(block) for block in blocks]
    result = run(data, lengths, bounds, output.note)
    if chart_file is not None:
        chart_file.write_text(chart(result, 1_024 if 1_024 in lengths else lengths[0]), "utf-8")
    if as_json:
        output.emit_json(result)
        return
    names = [f"{bound:g}" for bound in bounds]
    header = ("series", "block", "lossless", *(f"±{name}" for name in names), "codec")
    rows = [
        [
            row["name"],
            output.count(row["block"]),
            f"{row['ratio']:.2f}",
            *(f"{row['bounds'][name]['ratio']:.1f}" for name in names),
            row["value_codec"],
        ]
        for row in result["series"]
    ]
    click.echo(output.table(header, rows, tuple(range(1, 3 + len(names)))))
    _show({key: value for key, value in result.items() if key not in ("series", "geomean_by_kind")}, False)


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench store",
        "headrace bench store --data my-series --json            # the mixed set from a folder of series files",
        "headrace bench store --sustained                        # what taking and compacting cost, day by day",
    ),
)
@click.option(
    "--sensors", type=click.IntRange(1), help="Of the mixed set; default 10,000, 5,000 if sustained."
)
@click.option("--samples", type=click.IntRange(2), default=1_000, show_default=True, help="Of each sensor.")
@click.option("--days", type=click.IntRange(1), help="Of the line; default 30, 3 if sustained.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of series files that the mixed set is made of; made signals where there is none.",
)
@click.option(
    "--sustained", is_flag=True, help="Cost of taking and compacting, day by day; bytes by number of sensors."
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def store(
    sensors: int | None, samples: int, days: int | None, data: Path | None, sustained: bool, as_json: bool
) -> None:
    """What a store takes on disk, and how fast it is read: many unlike sensors, and a month of a line by tier.

    The same rows as plain Parquet, in its best setting, are beside it. Every sample is read back and compared.
    """
    from headrace.bench import store as bench_store

    if sustained:
        result = bench_store.run_sustained(sensors or 5_000, days or 3, output.note)
    else:
        result = bench_store.run(sensors or 10_000, samples, days or 30, data, progress=output.note)
    _show(result, as_json)


@bench.command(
    cls=TaughtCommand,
    examples=(
        "headrace bench adapters",
        "headrace bench adapters mqtt modbus",
        "headrace bench adapters --json | jq .adapters.mqtt.gate_a",
    ),
)
@click.argument("names", nargs=-1)
@click.option("--repeats", type=click.IntRange(7), default=7, show_default=True, help="Of each measurement.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def adapters(names: tuple[str, ...], repeats: int, as_json: bool) -> None:
    """What adapters add to the cost of a sample, beside bare clients of their protocols.

    Gate A: what an adapter costs more than a bare client and parser on the same traffic, as a share of the whole
    plant's cost; at most 5 %. Gate B: what decoding costs beyond parsing; at most 50 ns a sample in batches, 400 alone.
    """
    from headrace.bench.adapters import run

    result = run(names, repeats, output.note)
    if as_json:
        output.emit_json(result)
        return
    header = ("adapter", "transport", "decode", "normalise", "bare", "plant", "gate A", "gate B", "alone")
    rows = [
        [
            name,
            *(
                f"{one[key]:.0f}"
                for key in ("transport_ns", "decode_ns", "normalise_ns", "bare_ns", "pipeline_ns")
            ),
            f"{one['gate_a']['median']:.1%} to {one['gate_a']['high']:.1%} {_passed(one['gate_a'])}",
            f"{one['gate_b']['batched_ns']:.0f} {_passed(one['gate_b'])}",
            f"{one['gate_b']['unbatched_ns']:.0f}",
        ]
        for name, one in result["adapters"].items()
    ]
    click.echo(output.table(header, rows, tuple(range(1, 9))))
    click.echo("ns of CPU a sample; gate A: median and upper end of its interval, at most 5 %")
    parts = ("transport", "decode", "normalise")
    rows = [
        [name, *(f"{one['shares'][part]:.1%}" for part in parts)] for name, one in result["adapters"].items()
    ]
    click.echo("\n" + output.table(("share of the plant", *parts), rows, (1, 2, 3)))
    if result["floors"]:
        rows = [
            [name, f"{one['decode_ns']:.1f}", f"{one['floor_ns']:.0f} {_passed(one)}", f"{one['ratio']:.2f}"]
            for name, one in result["floors"].items()
        ]
        click.echo("\n" + output.table(("decoder", "ns", "at most", "to orjson"), rows, (1, 2, 3)))


def _passed(gate: dict[str, Any]) -> str:
    return "ok" if gate["pass"] else "missed"


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit_json(result)
    else:
        click.echo(output.fields(_lines(result)))


def _lines(result: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in result.items():
        if isinstance(value, dict):
            found += _lines(value, f"{above}{name}.")
        else:
            text = (
                output.count(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
            )
            found.append((above + name, text))
    return found
