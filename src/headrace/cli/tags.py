"""``headrace tags``: from a spreadsheet, or what devices offer, to sensors that are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.tag_screens import applied_text, difference_screen, summary
from headrace.cli.tag_source import found_tags
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from headrace.core.config import PlantConfig
    from headrace.ingest.tag_rows import TagRow
    from headrace.ingest.tag_rules import TagRules

F = TypeVar("F", bound=Callable[..., Any])
_APPLY_S = 300.0
_OUT = click.option("-o", "--out", type=click.Path(), help="Write the table here; default: standard output.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
_DRY = click.option("--dry-run", is_flag=True, help="Only say what would change.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(invoke_without_command=True)
@click.pass_context
def tags(ctx: click.Context) -> None:
    """Take a factory into service: a table of its tags, what it would change, and back.

    import and scan make one normalised table, a row a signal: path, url, address, type, unit, and every problem in
    words. diff says what it changes in the plant; apply does it, while the plant runs.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _rule_options(command: F) -> F:
    for option in (
        click.option("--adapter", default="", help="Adapter of the plant file that the rows are for."),
        click.option("--tidy", "is_tidy", is_flag=True, help="Make names fit for paths: 'Oven #1' becomes Oven_1."),
        click.option(
            "--capture", "captures", multiple=True, metavar="FIELD=REGEX",
            help="Take a name apart by named groups; may be repeated.",
        ),
        click.option("--address", default="", metavar="TEMPLATE", help="Of a signal: 'holding:{register}'."),
        click.option("--device-url", default="", metavar="TEMPLATE", help="Of a device: 'modbus+tcp://{ip}:502'."),
        click.option("--path", default="", metavar="TEMPLATE", help="Of a sensor: 'leon/{area}/{device}/{signal}'."),
    ):  # fmt: skip
        command = option(command)
    return command


def _fail_on(*choices: str) -> Callable[[F], F]:
    return click.option("--fail-on", type=click.Choice(choices), help="Exit with 1 where there is one.")


@tags.command(
    "import",
    cls=TaughtCommand,
    examples=(
        "headrace tags import list.xlsx --path 'leon/{area}/{line}/{device}/{signal}' -o tags.csv",
        "headrace tags import plc.csv --map 'Tag Nr=signal' --address 'holding:{register}' \\",
        "    --device-url 'modbus+tcp://{ip}?unit={unit id}' --path 'leon/paint/{line}/{machine}/{signal}'",
        "headrace tags import list.csv --capture 'device=(?P<line>L\\d+)_(?P<machine>\\w+)' --tidy --fail-on problem",
    ),
)
@click.argument("file", type=click.Path())
@target_option
@click.option(
    "--map", "renames", multiple=True, metavar="HEADING=COLUMN", help="What a heading means; may be repeated."
)
@_rule_options
@click.option("--sheet", default="", help="Of a spreadsheet; default: the first.")
@_OUT
@_fail_on("problem")
@_JSON
def import_(
    file: str,
    target: str | None,
    out: str | None,
    fail_on: str | None,
    as_json: bool,
    sheet: str,
    **rules: Any,
) -> int:
    """Make a normalised table of somebody's list: CSV of any dialect, or Excel (extra excel).

    Headings are understood in many words and languages; --map says the rest. Templates take columns of the list by their
    headings. Nothing is changed and no device is asked; every row that can't be taken says why, and how to mend it.
    """
    from headrace.ingest.tag_files import read_foreign

    config = _config(find_target(target) if target else None)
    rows = _rules(config, rules).of_table(read_foreign(Path(file), sheet))
    return _give(_checked(config, rows, rules["adapter"]), out, fail_on, as_json)


@tags.command(
    cls=TaughtCommand,
    examples=(
        "headrace tags scan broker for=10s -o found.csv",
        "headrace tags scan --url mqtt://broker:1883 topic='plant/#' --path 'leon/{area}/{machine}/{signal}' \\",
        "    --capture 'device=plant/(?P<area>[^/]+)/(?P<machine>[^/]+)'",
    ),
)
@click.argument("what", nargs=-1, metavar="[ADAPTER] [KEY=VALUE]...")
@target_option
@click.option("--url", help="A source that no adapter has.")
@click.option("--protocol", default="", help="Of the url, where it does not say it.")
@_rule_options
@_OUT
@_fail_on("problem")
@_JSON
def scan(
    what: tuple[str, ...], target: str | None, url: str | None, protocol: str, out: str | None, fail_on: str | None,
    as_json: bool, **rules: Any,
) -> int:  # fmt: skip
    """Make a normalised table of what a source offers: an adapter's, or that of a url. Nothing is stored.

    KEY=VALUE are the protocol's own words: for=10s and topic=FILTER of a broker. A running adapter lends its connection.
    """
    name = what[0] if what and "=" not in what[0] else ""
    if not name and url is None:
        raise click.UsageError("name an adapter, or a source with --url")
    wanted = {}
    for text in what[1:] if name else what:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is not written KEY=VALUE, as in for=10s")
        wanted[key] = value
    where = find_target(target) if name or target else None
    config = _config(where)
    rules["adapter"] = rules["adapter"] or name
    found = found_tags(where, name, {**wanted, **({"url": url} if url else {})}, protocol)
    rows = _with_urls(_rules(config, rules).of_scan(found), config, name, url)
    return _give(_checked(config, rows, rules["adapter"]), out, fail_on, as_json)


@tags.command(
    "list",
    cls=TaughtCommand,
    examples=("headrace tags list ovens -o ovens-now.csv", "headrace tags list --json | jq .tags"),
)
@click.argument("adapters", nargs=-1)
@target_option
@_OUT
@_JSON
def list_(adapters: tuple[str, ...], target: str | None, out: str | None, as_json: bool) -> int:
    """The normalised table of what runs: change it, and apply it again. Without an engine: what the plant file says."""
    from headrace.runtime.tagging import present_rows

    config = _config(find_target(target))
    assert config is not None
    return _give(present_rows(config, adapters), out, None, as_json)


@tags.command(
    cls=TaughtCommand,
    examples=(
        "headrace tags diff tags.csv --adapter ovens",
        "headrace tags diff tags.csv --whole --fail-on difference",
        "headrace tags diff tags.csv --json | jq '.tags.ovens.devices[].path'",
    ),
)
@click.argument("table", type=click.Path())
@target_option
@click.option("--adapter", default="", help="Of rows that name none.")
@click.option("--whole", is_flag=True, help="The table is all there is: devices that it does not name go.")
@_fail_on("difference")
@_JSON
def diff(
    table: str, target: str | None, adapter: str, whole: bool, fail_on: str | None, as_json: bool
) -> int:
    """Say what a normalised table would change: devices and signals that come, go and differ. Nothing is changed.

    Compared is with what runs; without an engine, with the plant file. A device that the table names gets all its signals
    from there; others stay, unless --whole says that they go.
    """
    where = find_target(target)
    with _all_problems(table):
        found = _Change(where, _document(table, adapter, whole)).preview()
    if as_json:
        output.emit_json(found)
    else:
        click.echo(difference_screen(found))
    return Exit.FAILED if fail_on and found["changes"] else Exit.DONE


@tags.command(
    cls=TaughtCommand,
    examples=(
        "headrace tags apply tags.csv --adapter ovens --dry-run",
        "headrace tags apply tags.csv --adapter ovens",
        "headrace tags apply tags.csv -t http://127.0.0.1:8844 --yes --json",
    ),
)
@click.argument("table", type=click.Path())
@target_option
@click.option("--adapter", default="", help="Of rows that name none.")
@click.option("--whole", is_flag=True, help="The table is all there is: devices that it does not name go.")
@_DRY
@_YES
@_JSON
def apply(
    table: str, target: str | None, adapter: str, whole: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Make the plant read what a normalised table says; devices that are the same go on undisturbed.

    The tables beside the plant file are written, never the file itself; it names them: devices = "ovens.csv" and
    tags = "ovens-tags.csv". If something can't be done, everything stays as it was. headrace tags undo goes back.
    """
    where = find_target(target)
    with _all_problems(table):
        _carry_out(_Change(where, _document(table, adapter, whole)), dry_run, yes, as_json)


@tags.command(cls=TaughtCommand, examples=("headrace tags undo --dry-run", "headrace tags undo --yes"))
@target_option
@_DRY
@_YES
@_JSON
def undo(target: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take back the newest tags apply, in the plant and in the tables beside its file; again, and it goes further back."""
    _carry_out(_Change(find_target(target), {"undo": True, "tags": True}), dry_run, yes, as_json)


# --- what they have in common ------------------------------------------------------------------------


def _config(where: Target | None) -> PlantConfig | None:
    """What runs at a target with its tables; without an engine the plant file; None where there is neither."""
    from headrace.core.config import parse_plant

    if where is None:
        try:
            where = find_target(None)
        except Unreachable:
            return None
    engine = where.engine()
    if engine is None:
        return where.config
    found = engine.json("/api/v1/config")
    return parse_plant(found["config"], Path(found["file"]).parent).with_tables(found["tables"])


def _rules(config: PlantConfig | None, rules: dict[str, Any]) -> TagRules:
    from headrace.core.config import PlantSection
    from headrace.ingest.tag_rules import TagRules

    levels = (PlantSection() if config is None else config.plant).levels
    return TagRules.of(
        levels, url=rules["device_url"], **{k: v for k, v in rules.items() if k != "device_url"}
    )


def _checked(config: PlantConfig | None, rows: Sequence[TagRow], adapter: str) -> list[TagRow]:
    from headrace.core.config import PlantSection
    from headrace.ingest.tag_checks import TagChecks
    from headrace.runtime.tagging import address_reader

    levels = (PlantSection() if config is None else config.plant).levels
    return TagChecks(levels, address_reader(config, adapter)).check(rows)


def _with_urls(
    rows: Sequence[TagRow], config: PlantConfig | None, adapter: str, url: str | None
) -> list[TagRow]:
    """Rows with the url that was scanned, or that the plant file has for the device."""
    from dataclasses import replace

    from headrace.ingest.tag_sets import devices_of

    known = {}
    if config is not None and adapter in config.adapters:
        known = {path: device.fields.get("url", "") for path, device in devices_of(config, adapter).items()}
    # A source that looks for devices calls each by its url.
    own = [row.device if "://" in row.device else known.get(row.device, url or "") for row in rows]
    return [row if row.url else replace(row, url=one) for row, one in zip(rows, own, strict=True)]


def _give(rows: Sequence[TagRow], out: str | None, fail_on: str | None, as_json: bool) -> int:
    """Write a table and say in short what is in it."""
    from headrace.ingest.tag_rows import rows_to_csv

    n_bad = sum(bool(row.problem) for row in rows)
    text = rows_to_csv(rows)
    if out is not None:
        try:
            Path(out).write_text(text, encoding="utf-8")
        except OSError as e:
            raise ConfigError(f"can't be written: {e.strerror}", out) from e
    if as_json:
        n_remarks = sum(bool(row.remark) for row in rows)
        output.emit_json(
            {
                "rows": len(rows),
                "problems": n_bad,
                "remarks": n_remarks,
                "tags": [row.to_dict() for row in rows],
            }
        )
    else:
        output.note(summary(rows, out))
        if out is None:
            click.echo(text, nl=False)
    return Exit.FAILED if fail_on and n_bad else Exit.DONE


def _document(table: str, adapter: str, whole: bool) -> dict[str, Any]:
    """A table as an engine takes it."""
    from headrace.ingest.tag_files import read_foreign
    from headrace.ingest.tag_rows import rows_of, rows_to_csv

    found = read_foreign(Path(table))
    return {
        "tags": rows_to_csv(rows_of(found.head, found.lines, table)), "adapter": adapter, "whole": whole,
    }  # fmt: skip


class _Change:
    """A change of tags, asked of the engine, or made without one."""

    def __init__(self, where: Target, document: dict[str, Any]) -> None:
        from headrace.runtime.reconfigure import who

        self._where, self._document = where, {**document, "by": who()}
        self._engine = where.engine()
        if self._engine is not None:
            self._engine.timeout_s = _APPLY_S

    def preview(self) -> dict[str, Any]:
        """What would change."""
        return self._ask(True, "*")

    def carry_out(self, seen: str) -> dict[str, Any]:
        """Do it, where what runs is still what was `seen`."""
        return self._ask(False, seen)

    def _ask(self, is_trial: bool, if_match: str) -> dict[str, Any]:
        if self._engine is None:
            return self._offline(is_trial)
        answer: dict[str, Any] = self._engine.ask(
            f"/api/v1/config{'?dry_run=true' if is_trial else ''}",
            output.json_line(self._document).encode(),
            method="PUT",
            headers={"If-Match": if_match},
        ).json()
        return answer

    def _offline(self, is_trial: bool) -> dict[str, Any]:
        from headrace.core.clock import SystemClock
        from headrace.runtime.offline_tags import OfflineTags
        from headrace.runtime.operations import tag_wish

        if self._where.config is None:
            raise Unreachable(f"no engine runs on {self._where.text}; name the plant file with -t")
        offline = OfflineTags(self._where.config, SystemClock())
        by = self._document["by"]
        if self._document.get("undo"):
            return offline.undo(by, is_trial)
        return offline.apply(tag_wish(self._document), by, is_trial)


def _carry_out(change: _Change, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the difference, ask, and do it; what runs must be what was shown."""
    found = change.preview()
    is_same = not found["changes"] and not found["needs_restart"]
    if not as_json:
        click.echo(difference_screen(found))
    if not (is_same or dry_run):
        if not found["needs_restart"]:
            output.confirm("apply this?", yes)
        found = change.carry_out(found.get("from", "*"))
        if not as_json:
            click.echo(applied_text(found))
    if as_json:
        output.emit_json(found)


@contextlib.contextmanager
def _all_problems(table: str) -> Iterator[None]:
    """Tell every problem of a table, not the first alone."""
    try:
        yield
    except ConfigError as e:
        problems = str(e).splitlines()
        if len(problems) < 2:
            raise
        for problem in problems:
            output.note(f"  {problem}")
        raise ConfigError(f"{len(problems)} problems; nothing was changed", table) from e
