"""``headrace codecs``: what loss costs, how much of it a series bears, and which codec wins."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.codec_explain import explain
from headrace.cli.series_views import FILE, check_svg, comparison, finite, shown, write_picture
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, Rejected

if TYPE_CHECKING:
    from headrace.codecs.base import I64, Array
    from headrace.codecs.loss import BandLoss, Loss
    from headrace.runtime.bound_search import BoundSearch, BoundTrial

_OCTAVES = "octaves"
_MEASURES = (
    ("n", "samples", "compared, finite in both"),
    ("n_left_out", "left out", "the same NaN or infinity in both"),
    ("n_differing", "differing", "finite in one only"),
    ("max_abs", "largest error", "what a bound promises"),
    ("rmse", "RMSE", "root of the mean square error"),
    ("nrmse", "NRMSE", "RMSE as a share of the range"),
    ("psnr_db", "PSNR, dB", "range over RMSE"),
    ("snr_db", "SNR, dB", "standard deviation over RMSE"),
    ("mape_percent", "MAPE, %", "mean error as a share of each value"),
    ("mape_left_out", "near zero", "values left out of MAPE"),
    ("pearson", "correlation", "Pearson's"),
    ("mean_error", "bias", "of the mean"),
    ("min_error", "error of min", ""),
    ("max_error", "error of max", ""),
    ("integral_error", "error of integral", "unit times seconds"),
    ("integral_share", "", "as a share of the integral"),
    ("acf_error", "autocorrelation", "largest difference over the lags"),
)


@click.group(invoke_without_command=True)
@click.pass_context
def codecs(ctx: click.Context) -> None:
    """Which codec wins and why; errors between an original and a reconstruction; the bound that fits a series.

    A FILE is one sensor's series, Parquet or CSV: a column of times (t_ns, ts_ns, ts, time or timestamp) and value.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


codecs.add_command(explain)


@codecs.command(
    cls=TaughtCommand,
    examples=(
        "headrace codecs compare original.parquet decoded.parquet",
        "headrace codecs compare original.csv decoded.csv --json | jq .psnr_db",
        "headrace codecs compare original.parquet decoded.parquet --plot loss.svg",
        "headrace codecs compare vibration.parquet decoded.parquet --band octaves",
        "headrace codecs compare vibration.parquet decoded.parquet --rate 12000 --band 2500:3500 --band 4000:6000",
    ),
)
@click.argument("original", type=FILE)
@click.argument("decoded", type=FILE)
@click.option(
    "--band",
    "bands",
    multiple=True,
    metavar="LOW:HIGH",
    help="Power between two frequencies in Hz, or in 'octaves'; may be repeated.",
)
@click.option(
    "--rate",
    "rate_hz",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    metavar="HZ",
    help="Samples a second; default: as the times say, which must be regular. Alone it means --band octaves.",
)
@click.option("--lags", type=click.IntRange(1), default=64, show_default=True, help="Of the autocorrelation.")
@click.option("--plot", type=FILE, metavar="FILE.svg", help="Draw original, reconstruction and error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def compare(
    original: Path,
    decoded: Path,
    bands: tuple[str, ...],
    rate_hz: float | None,
    lags: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Errors of the series DECODED against the series ORIGINAL of the same times.

    Errors are in the sensor's unit, decoded minus original. NaN and infinities that are the same in both are left out;
    where they differ the largest error is infinite. In JSON what is infinite or not defined is null.
    """
    from headrace.codecs.loss import measure
    from headrace.runtime.series_files import read_series, time_difference

    check_svg(plot)
    wanted = [_band_of(text) for text in bands] or ([None] if rate_hz is not None else [])
    ts_ns, x = read_series(original)
    other_ns, y = read_series(decoded)
    difference = time_difference((original, ts_ns), (decoded, other_ns))
    if difference:
        raise Rejected(f"series of different times can't be compared: {difference}")
    loss = measure(x, y, ts_ns, lags)
    spectrum = _spectrum(x, y, wanted, rate_hz, ts_ns)
    if plot is not None:
        write_picture(plot, comparison(f"{decoded.name} against {original.name}", ts_ns, x, y))
    if as_json:
        document = {"original": str(original), "decoded": str(decoded), **loss.to_dict()}
        output.emit_json(document | {"bands": [band.to_dict() for band in spectrum]})
        return
    click.echo(_table(loss))
    if spectrum:
        click.echo("\n" + _band_table(spectrum))


def _band_of(text: str) -> tuple[float, float] | None:
    """A band's ends in Hz; None for octaves."""
    if text == _OCTAVES:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"--band {text!r} is not written LOW:HIGH in Hz, nor {_OCTAVES!r}") from None
    return low, high


def _spectrum(
    x: Array, y: Array, wanted: list[tuple[float, float] | None], rate_hz: float | None, ts_ns: I64
) -> list[BandLoss]:
    from headrace.codecs.loss import band_loss, band_losses
    from headrace.runtime.series_files import regular_rate_hz

    if not wanted:
        return []
    if rate_hz is None:
        try:
            rate_hz = regular_rate_hz(ts_ns)
        except ConfigError as e:
            raise ConfigError(f"{e}; --rate HZ takes the samples as evenly spaced") from e
    found: list[BandLoss] = []
    try:
        for band in wanted:
            found += band_losses(x, y, rate_hz) if band is None else [band_loss(x, y, rate_hz, band)]
    except ValueError as e:
        raise ConfigError(f"no spectrum: {e}") from e
    return found


def _table(loss: Loss) -> str:
    values = loss.to_dict()
    rows = [(label, shown(values[name]), meaning) for name, label, meaning in _MEASURES]
    return output.table(("measure", "value", ""), rows, (1,))


def _band_table(bands: list[BandLoss]) -> str:
    rows = [
        (
            f"{band.low_hz:.6g} to {band.high_hz:.6g}",
            f"{band.original:.4g}",
            f"{band.decoded:.4g}",
            _gain(band.relative),
        )
        for band in bands
    ]
    return output.table(("band, Hz", "power", "decoded", "error"), rows, (0, 1, 2, 3))


def _gain(relative: float | None) -> str:
    """Power gained, where it is not much more than there was in percent."""
    if relative is None:
        return "-"
    return f"{relative * 100:+.3g} %" if relative < 9.995 else f"{relative + 1:,.0f} times"


# --- suggest -------------------------------------------------------------------------------------------


@codecs.command(
    cls=TaughtCommand,
    examples=(
        "headrace codecs suggest oven1.parquet --target-ratio 20     # the smallest bound that saves 95 %",
        "headrace codecs suggest oven1.parquet --max-rmse 0.05       # the largest bound that is so exact",
        "headrace codecs suggest oven1.parquet --target-ratio 20 --json | jq .eps",
    ),
)
@click.argument("file", type=FILE)
@click.option(
    "--target-ratio",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    metavar="RATIO",
    help="How much smaller than 16 bytes a sample, times included.",
)
@click.option(
    "--max-rmse",
    type=click.FloatRange(0, min_open=True),
    callback=finite,
    metavar="ERROR",
    help="Root mean square error that is allowed, in the sensor's unit.",
)
@click.option(
    "--codec", "name", default="quantise", show_default=True, metavar="NAME", help="A codec with a bound."
)
@click.option(
    "--block", type=click.IntRange(1), default=8_192, show_default=True, help="Samples of each block."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def suggest(
    file: Path, target_ratio: float | None, max_rmse: float | None, name: str, block: int, as_json: bool
) -> None:
    """Find the error bound with which FILE gets so small, or stays so exact, by trial.

    Each trial encodes and decodes the whole series, in blocks as the warm tier does; blocks that are not smaller for
    their loss stay lossless. The bound has three digits, and what is printed was measured with it. Exit code 1: no bound
    gives that ratio.
    """
    from headrace.codecs.loss import measure
    from headrace.runtime.bound_search import BoundSearch
    from headrace.runtime.series_files import read_series

    if (target_ratio is None) == (max_rmse is None):
        raise click.UsageError("give --target-ratio or --max-rmse, and not both")

    make = partial(_lossy_codec, name)
    make(1.0)  # an unknown codec, or one without a bound, is told before the file is read
    ts_ns, values = read_series(file)
    search = BoundSearch(ts_ns, values, make, block)
    found = search.for_ratio(target_ratio) if target_ratio is not None else search.for_rmse(max_rmse or 0.0)
    loss = measure(values, found.decoded, ts_ns)
    facts = {"file": str(file), "codec": name, **_facts(search, found)}
    if as_json:
        output.emit_json(facts | {"loss": loss.to_dict()})
        return
    click.echo(_suggestion(facts, loss))


def _lossy_codec(name: str, eps: float) -> Any:
    """The codec with that bound; one without such a bound is told as that, not by a setting it does not know."""
    from headrace.codecs.registry import VALUE_CODECS, keeps_eps, names_with_eps, value_codec

    try:
        return value_codec({"name": name, "eps": eps})
    except ConfigError as e:
        if name not in VALUE_CODECS or keeps_eps(VALUE_CODECS.load(name)):
            raise
        known = ", ".join(names_with_eps())
        raise ConfigError(
            f"codec {name!r} has no bound in the values' unit; those that have one: {known}"
        ) from e


def _facts(search: BoundSearch, found: BoundTrial) -> dict[str, Any]:
    n = found.decoded.size
    return {
        "samples": n,
        "eps": found.eps,
        "range": search.range,
        "share_of_range": found.eps / search.range if search.range > 0 else None,
        "ratio": found.ratio,
        "ratio_lossless": search.lossless().ratio,
        "bytes": found.size_bytes,
        "bytes_per_sample": found.size_bytes / n,
        "time_bytes": search.time_bytes,
        "blocks": search.n_blocks,
        "blocks_lossless": found.n_blocks_lossless,
        "blocks_not_finite": found.n_blocks_not_finite,
        "trials": search.n_trials,
    }


def _suggestion(facts: dict[str, Any], loss: Loss) -> str:
    share = facts["share_of_range"]
    of_range = f", {share * 100:.3g} % of the range" if share else ""
    bound = f"{facts['eps']:g}{of_range}" if facts["eps"] else f"none: {_why_none(facts)}"
    not_finite = facts["blocks_not_finite"]
    with_gaps = f", {not_finite:,} for values that are not finite" if not_finite else ""
    pairs = [
        ("bound", bound),
        ("codec", facts["codec"]),
        ("ratio", f"{facts['ratio']:.4g}; without loss {facts['ratio_lossless']:.4g}"),
        (
            "size",
            f"{output.size(facts['bytes'])}, {facts['bytes_per_sample']:.3g} bytes a sample, of them "
            f"{facts['time_bytes'] / facts['samples']:.3g} for times",
        ),
        ("blocks", f"{facts['blocks']:,}, of them {facts['blocks_lossless']:,} lossless{with_gaps}"),
        ("largest error", shown(loss.max_abs)),
        ("RMSE", shown(loss.rmse)),
        ("PSNR, dB", shown(loss.psnr_db)),
        ("trials", str(facts["trials"])),
    ]
    return output.fields(pairs)


def _why_none(facts: dict[str, Any]) -> str:
    """Why a series has no bound; what keeps its blocks lossless first."""
    n, blocks = facts["blocks_not_finite"], facts["blocks"]
    if not n:
        return "it is small enough, or smaller, without loss"
    kept = f"values that are not finite keep {n:,} of {blocks:,} blocks lossless"
    return kept if n == blocks else f"{kept}, and the others are smaller without loss"
