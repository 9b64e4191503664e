"""``headrace tiers status``, ``explain`` and ``run``: what becomes of samples as they age."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError

if TYPE_CHECKING:
    from headrace.runtime.tiers_report import TiersView
    from headrace.store.tiers import TierRules

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(invoke_without_command=True)
@click.pass_context
def tiers(ctx: click.Context) -> None:
    """What becomes of samples as they age: what rules hold, what is due, what governs a sensor."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _rules(where: Target) -> TierRules:
    from headrace.store.tiers import TierRules

    if where.config is None:
        raise ConfigError("the rules are in the plant file, [tiers.NAME]; name it with -t plant.toml")
    return TierRules(where.config.tiers)


def _view(where: Target) -> TiersView:
    from headrace.core.clock import SystemClock
    from headrace.runtime.tiers_report import TiersView
    from headrace.store.query import Store

    rules = _rules(where)
    return TiersView.of(Store.open(where.open_disk()), rules, SystemClock())


@tiers.command(
    cls=TaughtCommand,
    examples=(
        "headrace tiers status                        # of ./plant.toml",
        "headrace tiers status --json | jq '.rules[] | {name, bytes, ratio, max_error}'",
    ),
)
@target_option
@_JSON
def status(target: str | None, as_json: bool) -> None:
    """What each rule holds, in which tier, how small and how exact; and what is due, with what it would save.

    Ratios compare with 16 bytes a sample. What something would save is tried on some of its rows, once they are
    compacted; of days that are not yet, it says what a run will do to them. Reads the store,
    a folder or a bucket, whether an engine runs or not.
    """
    facts = _view(find_target(target)).status()
    if as_json:
        output.emit_json(facts)
        return
    click.echo(_screen(facts))
    for sentence in facts["damaged"]:
        output.note(f"damaged: {sentence}")


def _screen(facts: dict[str, Any]) -> str:
    rows = []
    for rule in facts["rules"]:
        for tier, one in rule["tiers"].items():
            if one["samples"]:
                rows.append([
                    rule["name"] or "(none)", tier, output.count(one["samples"]), output.size(one["bytes"]),
                    f"{one['ratio']:g}", f"{rule['max_error']:.4g}" if tier == "cold" else "0",
                ])  # fmt: skip
    text = [output.table(("rule", "tier", "samples", "size", "ratio", "max error"), rows, (2, 3, 4, 5))]
    for rule in facts["rules"]:
        text += ["", f"{rule['name'] or '(none)'}  {rule['match']}", *(f"  {one}" for one in rule["says"])]
        if rule["over_bytes"]:
            text.append(f"  now {output.size(rule['over_bytes'])} above its size")
    text += ["", _due(facts)]
    return "\n".join(text)


def _due(facts: dict[str, Any]) -> str:
    texts = [_compaction(facts["compaction"]), _ageing(facts["due"])]
    return "\n\n".join(one for one in texts if one) or "Nothing is due."


def _compaction(found: dict[str, Any]) -> str:
    """Days that are compacted before anything ages, and what becomes of them; "" for none."""
    if not found["days"]:
        return ""
    text = [
        f"To compact: {found['days']:,} days from {found['from'][:10]} on, {output.count(found['samples'])} samples, "
        f"{output.size(found['bytes'])} in hot segments; what that saves is not estimated.",
        *(f"  {one['says']}" for one in found["then"]),
        *(f"  {one}" for one in found["problems"]),
    ]
    return "\n".join(text)


def _ageing(due: list[dict[str, Any]]) -> str:
    if not due:
        return ""
    rows = [
        [
            one["partition"], output.count(one.get("samples", 0)), output.size(one.get("bytes", 0)),
            *_foretold(one), one["reason"],
        ]
        for one in due
    ]  # fmt: skip
    text = output.table(("due", "samples", "size", "would save", "max error", "why"), rows, (1, 2, 3, 4))
    problems = [f"{one['partition']}: {p}" for one in due for p in one.get("problems", ())]
    return "\n".join([text, *problems])


def _foretold(one: dict[str, Any]) -> tuple[str, str]:
    """What a partition would save, with which error: unknown as long as days of it are hot."""
    if one.get("days_to_compact"):
        return "-", "-"
    return output.size(max(0, one.get("saves", 0))), f"{one.get('max_error', 0.0):.4g}"


@tiers.command(
    cls=TaughtCommand,
    examples=(
        "headrace tiers explain leon/paint/line1/oven1/temperature",
        "headrace tiers explain '**/line1/**'",
    ),
)
@click.argument("sensor", metavar="SENSOR|PATTERN")
@target_option
@_JSON
def explain(sensor: str, target: str | None, as_json: bool) -> None:
    """Which rule governs sensors, why, and what happens to their samples when."""
    found = _view(find_target(target)).explain(sensor)
    if as_json:
        output.emit_json(found)
        return
    click.echo("\n\n".join(_explained(one) for one in found))


def _explained(one: dict[str, Any]) -> str:
    more = (
        f" and {one['sensors'] - len(one['examples']):,} more"
        if one["sensors"] > len(one["examples"])
        else ""
    )
    pairs = [("sensors", ", ".join(one["examples"]) + more)]
    pairs.append(
        (
            "rule",
            f"{one['rule']}: {one['match']}, the most specific that matches"
            if one["rule"]
            else "none matches",
        )
    )
    pairs += [("less specific", f"{o['name']}: {o['match']}") for o in one["outranked"]]
    pairs += [
        ("held by", f"{h['name']}: {h['match']}, until {h['until'] or 'it is taken away'}")
        for h in one["holds"]
    ]
    if one["lossless_because"]:
        pairs.append(("never lossy", one["lossless_because"]))
    if "bound" in one:
        unknown = ", the range is fixed when it first gets cold" if one["bound"].startswith("range") else ""
        eps = unknown if one.get("eps") is None else f", {one['eps']:g}"
        pairs.append(("bound", one["bound"] + eps))
    pairs += [(f"kept {tier}", _kept(found)) for tier, found in one.get("kept", {}).items()]
    dates = [f"from {n['from'][:10]} {n['stage']}" for n in one["next"]]
    if dates:
        pairs.append(("a sample of now", ", ".join(dates)))
    return output.fields([*pairs, *(("says", text) for text in one["says"])])


def _kept(found: dict[str, Any]) -> str:
    said = f"{found['samples']:,} samples, {found['ratio']:g}:1, by {', '.join(found['codecs'])}"
    if found["max_error"]:
        said += f"; error up to {found['max_error']:g}, rmse {found['rmse']:g}"
    if found["predicted_from"]:
        share = max(found["predicted_from"].values()) / found["samples"]
        said += f"; {share:.0%} predicted from {', '.join(found['predicted_from'])}"
    return said


@tiers.command(
    cls=TaughtCommand,
    examples=(
        "headrace tiers run --dry-run                 # what is due, and what it would save",
        "headrace tiers run                           # do it now, where no engine runs",
    ),
)
@click.option("--dry-run", is_flag=True, help="Say what is due, and what it would save; change nothing.")
@target_option
@_JSON
def run(dry_run: bool, target: str | None, as_json: bool) -> int:
    """Do what is due. A running engine does it by itself, in the background; without one, this does it at full speed."""
    where = find_target(target)
    view = _view(where)
    if dry_run:
        facts = view.status()
        due = {name: facts[name] for name in ("compaction", "due")}
        output.emit_json(due) if as_json else click.echo(_due(due))
        return Exit.DONE
    from headrace.runtime.compaction import compact_now
    from headrace.sim.faults import VARIABLE, fault_points

    assert where.config is not None
    done = compact_now(where.store_folder, where.config, faults=fault_points(os.environ.get(VARIABLE)))
    if as_json:
        output.emit_json(done)
        return Exit.FAILED if done["problems"] else Exit.DONE
    click.echo(
        f"{done['compacted']:,} days compacted, {done['aged']:,} partitions aged, {done['dropped']:,} samples dropped; "
        f"{output.size(done['bytes_before'])} became {output.size(done['bytes_after'])}, {done['deleted']:,} old files deleted"
    )
    for sentence in done["problems"]:
        output.note(sentence)
    return Exit.FAILED if done["problems"] else Exit.DONE
