"""Tag tables and what they change, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.cli import output

if TYPE_CHECKING:
    from headrace.ingest.tag_rows import TagRow

PROBLEMS_SHOWN, DEVICES_SHOWN, SIGNALS_SHOWN = 10, 40, 20
_MARK = {"added": "+", "removed": "-", "changed": "~"}


def summary(rows: Sequence[TagRow], out: str | None) -> str:
    """How many rows there are, and what is wrong with them."""
    bad = [(n, row) for n, row in enumerate(rows, 2) if row.problem]
    n_remarks = sum(bool(row.remark) for row in rows)
    devices = {row.path.rpartition("/")[0] for row in rows if row.path}
    head = f"{_many(len(rows), 'tag')} of {_many(len(devices), 'device')}"
    if out is not None:
        head += f" in {out}"
    head += f"; {_many(len(bad), 'problem')}" if bad else "; no problems"
    if n_remarks:
        head += f", {_many(n_remarks, 'remark')} (column remark)"
    lines = [f"  line {n}: {row.problem}" for n, row in bad[:PROBLEMS_SHOWN]]
    if len(bad) > PROBLEMS_SHOWN:
        lines.append(f"  ... and {len(bad) - PROBLEMS_SHOWN:,} more (column problem)")
    return "\n".join([head, *lines])


def difference_screen(found: Mapping[str, Any]) -> str:
    """What a table would change: a line a device, its signals below it."""
    lines = []
    if "back_to" in found:
        back = found["back_to"]
        lines.append(f"back to version {back['n']} of {back['time'][:19].replace('T', ' ')} UTC")
    for adapter, one in found.get("tags", {}).items():
        if one["devices"]:
            lines += [f"adapters.{adapter}: {_counts(one)}", *_devices(one)]
    if not found.get("tags"):
        for change in found["changes"]:
            lines.append(f"{_MARK[change['change']]} {change['part']} {change['change']}")
            lines += [f"    {line}" for line in change["lines"]]
    if found["needs_restart"]:
        lines.append("! only a restart changes:")
        lines += [f"    {line}" for line in found["needs_restart"]]
    if found["tables"]:
        lines.append(f"files: {', '.join(found['tables'])}")
    return "\n".join(lines) or "nothing differs from what runs"


def applied_text(found: Mapping[str, Any]) -> str:
    """What was done, and the way back."""
    return f"applied: version {found['version']}; back with: headrace tags undo"


def _counts(one: Mapping[str, Any]) -> str:
    parts = []
    for what in ("device", "signal"):
        some = [f"{one[f'{what}s_{fate}']:,} {fate}" for fate in _MARK if one[f"{what}s_{fate}"]]
        if some:
            parts.append(f"{what}s {', '.join(some)}")
    return "; ".join(parts)


def _devices(one: Mapping[str, Any]) -> list[str]:
    lines = []
    for device in one["devices"][:DEVICES_SHOWN]:
        n = len(device["signals"]) + device["signals_not_shown"]
        text = f"  {_MARK[device['change']]} {device['path']}"
        if device["change"] == "changed":
            lines += [text, *(f"      {line}" for line in device["lines"]), *_signals(device)]
        else:
            lines.append(", ".join([f"{text}  {_many(n, 'signal')}", *device["lines"]]))
    n_more = len(one["devices"]) - DEVICES_SHOWN + one["devices_not_shown"]
    return [*lines, f"  ... and {n_more:,} more devices (--json has them)"] if n_more > 0 else lines


def _signals(device: Mapping[str, Any]) -> list[str]:
    lines = [
        f"      {_MARK[one['change']]} {one['name']}  {', '.join(one['lines'])}".rstrip()
        for one in device["signals"][:SIGNALS_SHOWN]
    ]
    n_more = len(device["signals"]) - SIGNALS_SHOWN + device["signals_not_shown"]
    return [*lines, f"      ... and {n_more:,} more signals"] if n_more > 0 else lines


def _many(n: int, what: str) -> str:
    return f"{output.count(n)} {what}{'' if n == 1 else 's'}"
