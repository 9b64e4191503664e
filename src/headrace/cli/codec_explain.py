"""``headrace codecs explain``: every codec on a series, and why the one that was taken won."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.series_views import check_svg, comparison, shown, write_picture
from headrace.cli.target import find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.clock import NS
from headrace.core.errors import ConfigError, NotFound, Unreachable

if TYPE_CHECKING:
    from headrace.codecs.choice import CodecChoice
    from headrace.codecs.features import Features
    from headrace.runtime.codec_trials import CodecTrials, Trial
    from headrace.runtime.sensor_series import SensorSeries

_SUFFIXES = (".parquet", ".csv")
_RAW_BYTES = 16
_PICTURE_SHARE = 0.005
"""The bound that is drawn where none is given, as a share of the range."""
_NO_BOUND = "needs a bound"


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace codecs explain leon/paint/line1/oven1/temperature   # of the plant here, the last day",
        "headrace codecs explain oven1.parquet --bound 0.5%range",
        "headrace codecs explain oven1.parquet --bound 0.1 --plot oven1.svg",
        "headrace codecs explain oven1.parquet --weight 0.5 --forbid origin",
        "headrace codecs explain oven1.parquet --json | jq '.values[] | {name, size_bytes, outcome}'",
    ),
)
@click.argument("what", metavar="SENSOR|FILE")
@target_option
@click.option(
    "--last", metavar="DURATION", default="1d", show_default=True, help="Of a sensor: back from the present."
)
@click.option(
    "--bound",
    "bound_text",
    metavar="BOUND",
    help="How far values may be off: 0.1 in their unit, 0.5%range, 1%value.",
)
@click.option(
    "--use", metavar="CODEC", help="The codec to take; default: as [codecs] of the plant file says."
)
@click.option("--forbid", multiple=True, metavar="CODEC", help="A codec not to take; may be repeated.")
@click.option(
    "--weight", type=click.FloatRange(0, 1), metavar="0..1", help="0: smallest, 1: fastest to decode."
)
@click.option(
    "--block", type=click.IntRange(1), default=8_192, show_default=True, help="Samples of a chunk at most."
)
@click.option(
    "--chunks", type=click.IntRange(1), default=8, show_default=True, help="Chunks that are tried at most."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw size against error, and values."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def explain(what: str, target: str | None, last: str, plot: Path | None, as_json: bool, **keys: Any) -> None:
    """Try every codec on chunks of a sensor or a file, and say which the store takes and why.

    Bytes are those of the values alone; times are tried beside them. Speeds are measured here, CPU time of one core; the
    store itself goes by size, or by nominal speeds where a weight is given. A FILE is one sensor's series, Parquet or CSV.
    """
    from headrace.codecs.bounds import Bound
    from headrace.codecs.features import features_of
    from headrace.runtime.codec_trials import CodecTrials

    check_svg(plot)
    bound = None if keys["bound_text"] is None else Bound.from_text(keys["bound_text"])
    series, choice = _read(what, target, last)
    name, ts_ns, values = series.path, series.ts_ns, series.values
    choice = _steered(choice, keys["use"], keys["forbid"], keys["weight"])
    trials = CodecTrials(ts_ns, values, bound, choice, keys["block"], keys["chunks"])
    of_values, of_times = trials.of_values(), trials.of_times()
    facts = {
        "what": name,
        "bound": None if bound is None else bound.to_dict(),
        "eps": trials.reach.eps,
        "chunks": trials.n_chunks,
        "chunks_tried": len(trials.parts),
        "samples_tried": trials.n_samples,
        "left_out": series.left_out,
        "size_bytes": trials.size_bytes,
        "ratio": _RAW_BYTES * trials.n_samples / trials.size_bytes,
        "why": trials.why(of_values),
    }
    features = features_of(ts_ns, values)
    if plot is not None:
        write_picture(plot, _picture(name, trials))
    if as_json:
        parts = {"values": of_values, "times": of_times}
        tables = {part: [trial.to_dict() for trial in found] for part, found in parts.items()}
        output.emit_json({**facts, "features": features.to_dict(), **tables})
        return
    click.echo(_text(facts, features, of_values, of_times))


def _read(what: str, target: str | None, last: str) -> tuple[SensorSeries, CodecChoice]:
    """The series, and what the plant file says about the codecs."""
    from headrace.codecs.choice import ANY
    from headrace.runtime.codec_choice import CodecChoices
    from headrace.runtime.reader import StoreReader
    from headrace.runtime.sensor_series import SensorSeries, read_sensor
    from headrace.runtime.series_files import read_series

    if what.lower().endswith(_SUFFIXES):
        return SensorSeries(Path(what).name, *read_series(Path(what))), ANY
    try:
        where = find_target(target)
        series = read_sensor(StoreReader(where.open_disk(), where.zone), what, last)
    except (NotFound, Unreachable) as e:
        if not Path(what).is_file():
            raise
        # A sensor may be called as a file is, so that only now it shows that the file was meant.
        raise ConfigError(f"{what} is neither .parquet nor .csv; and as a sensor: {e}") from e
    choices = CodecChoices({} if where.config is None else where.config.codecs)
    return series, choices.of(series.path)


def _steered(
    choice: CodecChoice, use: str | None, forbid: tuple[str, ...], weight: float | None
) -> CodecChoice:
    """The choice, with what the command line says instead."""
    from headrace.codecs.choice import CodecChoice

    return CodecChoice(
        choice.use if use is None else use,
        frozenset(forbid) or choice.forbid,
        choice.weight if weight is None else weight,
    )


# --- text ----------------------------------------------------------------------------------------------


def _text(facts: dict[str, Any], features: Features, of_values: list[Trial], of_times: list[Trial]) -> str:
    tried = "" if facts["chunks"] == facts["chunks_tried"] else f", of them tried {facts['chunks_tried']}"
    pairs = [
        ("series", f"{facts['what']}, {features.n:,} x {features.dtype}"),
        *([("left out", _left_out_text(facts["left_out"]))] if facts["left_out"] else []),
        ("values", _values_text(features)),
        ("times", _times_text(features)),
        ("bound", _bound_text(facts)),
        ("chunks", f"{facts['chunks']:,}{tried}"),
        ("size", f"{output.size(facts['size_bytes'])}, a ratio of {facts['ratio']:.4g} to 16 bytes a sample"),
        ("why", facts["why"]),
    ]
    parts = [output.fields(pairs), _table("codec of values", of_values), _table("codec of times", of_times)]
    return "\n\n".join(parts)


def _left_out_text(left_out: dict[str, int]) -> str:
    kinds = ", ".join(f"{n:,} of {kind}" for kind, n in left_out.items())
    return f"{sum(left_out.values()):,} samples of other types or grids: {kinds}"


def _values_text(features: Features) -> str:
    found = [f"{shown(features.low)} to {shown(features.high)}", f"{features.n_distinct:,} different"]
    if features.dtype.startswith("float"):
        found.append("full floats" if features.digits is None else f"{features.digits} decimals")
    if features.mean_run is not None and features.mean_run >= 1.05:
        found.append(f"runs of {features.mean_run:.3g}")
    if features.smoothness is not None:
        found.append(f"correlation with the one before {features.smoothness:.3g}")
    if features.not_finite:
        found.append(f"{features.not_finite:,} not finite")
    return ", ".join(found)


def _times_text(features: Features) -> str:
    if features.interval_ns is None or features.regular is None:
        return "one"
    found = [f"every {features.interval_ns / NS:.6g} s", f"{100 * features.regular:.4g} % exactly so"]
    if features.jitter_ns:
        found.append(f"others off by up to {features.jitter_ns / NS:.3g} s")
    if features.n_gaps:
        found.append(f"{features.n_gaps:,} gaps")
    return ", ".join(found)


def _bound_text(facts: dict[str, Any]) -> str:
    if facts["bound"] is None:
        return "none: lossless"
    ((kind, size),) = facts["bound"].items()
    if kind == "absolute":
        return f"{size:g} in the values' unit"
    if kind == "range":
        return f"{100 * size:g} % of the range, {facts['eps']:.6g} in the values' unit"
    return f"{100 * size:g} % of each value"


def _table(title: str, trials: list[Trial]) -> str:
    rows = [
        (
            trial.name,
            output.count(trial.size_bytes) if trial.n_fit else "-",
            _speed(trial.encode_ns),
            _speed(trial.decode_ns),
            shown(trial.max_error) if trial.n_fit else "-",
            trial.outcome,
        )
        for trial in trials
        if trial.outcome != _NO_BOUND
    ]
    text = output.table((title, "bytes", "encode ns", "decode ns", "error", ""), rows, (1, 2, 3, 4))
    left_out = [trial.name for trial in trials if trial.outcome == _NO_BOUND]
    return text + (f"\nwith --bound also: {', '.join(left_out)}" if left_out else "")


def _speed(ns: float | None) -> str:
    return "-" if ns is None else f"{ns:.1f}"


# --- picture -------------------------------------------------------------------------------------------


def _picture(name: str, trials: CodecTrials) -> str:
    """Bytes a sample over the bound and over the error that came of it; below, one chunk as it was and as it comes back."""
    import numpy as np

    from headrace.bench.chart import line_chart, stacked

    n = trials.n_samples
    curve = trials.curve()
    charts = []
    if curve:
        exact = sum(len(trials.encode(part, 0.0).payload) for part in trials.parts) / n
        lines = {"bound": [(100 * share, size / n) for share, size, _ in curve]}
        errors = [(100 * rmse / trials.range, size / n) for _, size, rmse in curve if rmse > 0]
        lines |= {"RMSE": errors} if errors else {}
        lines["lossless"] = [(100 * curve[0][0], exact), (100 * curve[-1][0], exact)]
        charts.append(
            line_chart(f"{name}: size against error", ("error, % of the range", "bytes a sample"), lines)
        )
    middle = len(trials.parts) // 2
    part, chunk, bound = trials.parts[middle], trials.chunks[middle], "as the store has it"
    if trials.reach.is_lossless and curve:
        chunk = trials.encode(part, _PICTURE_SHARE * trials.range)
        bound = f"with a bound of {100 * _PICTURE_SHARE:g} % of the range"
    x = np.ascontiguousarray(part[1])
    charts.append(comparison(f"{name}, {bound}", part[0], x, trials.decoded(chunk, part)))
    return stacked(charts)
