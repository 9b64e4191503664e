"""``headrace apply FILE`` and ``headrace undo``: another configuration for a running plant, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.cli import output
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError

_APPLY_S = 300.0
_CHANGE = {"added": "+", "removed": "-", "changed": "~"}
_DRY = click.option("--dry-run", is_flag=True, help="Only print the difference.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace apply --dry-run                     # what differs between ./plant.toml and what runs?",
        "headrace apply plant.toml",
        "headrace apply new.toml -t http://127.0.0.1:8844 --yes --json",
    ),
)
@click.argument("file", default="plant.toml", type=click.Path())
@target_option
@_DRY
@_YES
@_JSON
def apply(file: str, target: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make a plant file the running configuration; only what differs is touched.

    Adapters that are not named in the difference go on undisturbed. If something can't be done, everything stays as
    it was. Keys that only a restart changes ([plant], [store], [runtime], [api]) are named and refused.
    """
    path = Path(file).absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"can't be read: {getattr(e, 'strerror', None) or e}", file) from e
    where = find_target(target or file)
    _change(where, {"toml": text, "file": str(path)}, dry_run, yes, as_json)


@click.command(
    cls=TaughtCommand,
    examples=("headrace undo --dry-run", "headrace undo --yes"),
)
@target_option
@_DRY
@_YES
@_JSON
def undo(target: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Go back to the configuration before; again, and it goes further back.

    The plant file is not rewritten: put it right too, or the next start takes it as it is. `headrace status` says
    when file and running configuration differ.
    """
    _change(find_target(target), {"undo": True}, dry_run, yes, as_json)


def _change(where: Target, document: dict[str, Any], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the difference, ask, and do it; what runs must be what was shown."""
    from headrace.runtime.reconfigure import who

    engine = where.running(_APPLY_S)
    document = {**document, "by": who()}
    found: dict[str, Any] = engine.send("PUT", "/api/v1/config?dry_run=true", document)
    is_same = not found["changes"] and not found["needs_restart"]
    if not as_json:
        click.echo("nothing differs from what runs" if is_same else screen(found))
    if not (is_same or dry_run):
        if not found["needs_restart"]:
            output.confirm("apply this?", yes)
        answer = engine.ask(
            "/api/v1/config",
            output.json_line(document).encode(),
            method="PUT",
            headers={"If-Match": found["from"]},
        )
        found = answer.json()
        if not as_json:
            click.echo(f"applied: version {found['version']}; back with: headrace undo")
    if as_json:
        output.emit_json(found)


def screen(found: dict[str, Any]) -> str:
    """A difference for people: a line a part, what differs in it below."""
    lines = []
    if "back_to" in found:
        back = found["back_to"]
        lines.append(f"back to version {back['n']} of {back['time'][:19].replace('T', ' ')} UTC")
    for change in found["changes"]:
        lines.append(f"{_CHANGE[change['change']]} {change['part']} {change['change']}")
        lines += [f"    {line}" for line in change["lines"]]
    if found["needs_restart"]:
        lines.append("! only a restart changes:")
        lines += [f"    {line}" for line in found["needs_restart"]]
    return "\n".join(lines)
