"""``headrace adapters probe``: one look at a device or a broker; nothing is stored.

What can be probed, and by which urls, adapters say themselves: the ability `headrace.adapters.abilities.Probes` and
``schemes`` of their manifests. What a probe found is shown by its ``facts`` (pairs) and ``table`` (columns and rows); two
protocols have screens of their own here, because theirs have another shape.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click

from headrace.cli import output
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Unreachable
from headrace.core.registry import nearest

_ORDERS = {
    "ABCD": "ABCD big-endian",
    "CDAB": "CDAB word-swapped",
    "BADC": "BADC byte-swapped",
    "DCBA": "DCBA little-endian",
}
_PROBE_S = 90.0
_PAYLOAD_SHOWN = 60


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters probe ovens --device leon/paint/line1/oven1 --address holding:100",
        "headrace adapters probe ovens --signal temperature --json | jq .readings.F32",
        "headrace adapters probe --url 'modbus+tcp://10.0.4.11:502?unit=1' --address holding:100",
        "headrace adapters probe broker --for 10s --topic 'plant/#'",
        "headrace adapters probe --url mqtt://broker:1883 --topic '#'",
        "headrace adapters probe --url kafka://broker:9092 --topic 'plant.#' --count 5",
        "headrace adapters probe lines --for 10s --node leon/line1",
        "headrace adapters probe press --address 'ns=2;s=Line1.Temp'",
        "headrace adapters probe broker --capture broker.jsonl     # what would be made of it now",
    ),
)
@click.argument("name", required=False)
@target_option
@click.option("--url", help="A device or broker that no adapter has, or one of an adapter's.")
@click.option("--device", help="modbus, opcua: path of one of the adapter's devices.")
@click.option(
    "--address", help="modbus: what to read, as in holding:100 or input:4:F32;order=CDAB; opcua: a node id."
)
@click.option("--signal", help="modbus, opcua: the address that the device's profile has for a signal.")
@click.option(
    "--count",
    type=click.IntRange(1),
    help="modbus: registers or bits; kafka: newest messages of a partition.",
)
@click.option("--topic", help="mqtt, kafka: which topics; default: the adapter's own.")
@click.option("--node", help="sparkplug: group/node to ask for its birth; default: all that speak.")
@click.option("--for", "for_", metavar="DURATION", help="mqtt, sparkplug, kafka: for how long; default 5s.")
@click.option(
    "--option",
    "-o",
    "more",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other word of the protocol; may be repeated.",
)
@click.option(
    "--capture",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Decode this file (headrace adapters capture made it) instead of asking the source.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def probe(
    name: str | None,
    target: str | None,
    capture: Path | None,
    as_json: bool,
    for_: str | None,
    more: tuple[str, ...],
    **options: Any,
) -> None:
    """Look once at a device or a broker; nothing is stored.

    Of a Modbus device the registers at an address are read and shown as every type in all four byte orders: whoever
    knows roughly what the value should be sees which order the device uses. A running adapter lends its connection,
    as many devices take but one. Of a broker it is told which topics come, what they carry, which rule would take
    them, and what values would come out; of Sparkplug nodes what their births name and where it would go. Other
    protocols say in their page what they can be asked.
    """
    wanted = {k: str(v) for k, v in {**options, "for": for_}.items() if v is not None} | _pairs(more)
    found = _probe(name, target, wanted) if capture is None else _decoded(name, target, capture)
    if as_json:
        output.emit_json(found)
    else:
        click.echo(_screen(found))


def _decoded(name: str | None, target: str | None, file: Path) -> dict[str, Any]:
    """What the decoder of the plant file's adapter makes of a capture; no engine and no source is asked."""
    from headrace.runtime.adapter_making import make_adapter
    from headrace.runtime.captures import decode_report, read_capture
    from headrace.runtime.operations import probe_report

    where = find_target(target)
    if where.config is None:
        raise Unreachable("a capture is decoded by a plant file; name it with -t")
    with file.open(encoding="utf-8", errors="replace") as lines:
        head, pieces = read_capture(lines)
        name = name or str(head.get("adapter"))
        known = where.config.adapters
        if name not in known:
            raise NotFound(f"no adapter {name!r}{nearest(name, list(known))}")
        adapter = make_adapter(where.config, name)
        return probe_report(decode_report(name, str(known[name].protocol), adapter, pieces))


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` of the command line."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found


def _probe(name: str | None, target: str | None, wanted: dict[str, str]) -> dict[str, Any]:
    if name is None and "url" not in wanted:
        raise click.UsageError("name an adapter, or a device or broker with --url")
    try:
        where = find_target(target)
    except Unreachable:
        if name is not None or target is not None:
            raise
        return _directly(wanted)
    name = name or _adapter_at(where, wanted["url"])
    if name is None:
        return _directly(wanted)
    engine = where.engine()
    if engine is not None:
        engine.timeout_s = _PROBE_S
        found: dict[str, Any] = engine.send("POST", f"/api/v1/adapters/{quote(name)}/probe", wanted)
        return found
    return _by_file(where, name, wanted)


def _adapter_at(where: Target, url: str) -> str | None:
    """The adapter of the plant file that talks to the same host and port: it may hold the only connection."""
    from headrace.runtime.catalogue import schemes

    scheme = schemes().get(urlsplit(url).scheme)
    if where.config is None or scheme is None or not scheme.lends:
        return None
    peer = _peer(url)
    for name, section in where.config.adapters.items():
        devices = section.devices.values() if isinstance(section.devices, dict) else ()
        urls = [d["url"] if isinstance(d, dict) else d for d in devices] + [section.url or ""]
        if section.protocol == scheme.protocol and any(_peer(u) == peer for u in urls):
            return name
    return None


def _peer(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _by_file(where: Target, name: str, wanted: dict[str, str]) -> dict[str, Any]:
    """Without an engine: by the plant file, over a connection of our own."""
    from headrace.adapters.abilities import Probes
    from headrace.core.clock import SystemClock
    from headrace.runtime.assemble import check_plant
    from headrace.runtime.operations import probe_report

    if where.config is None:
        raise Unreachable(f"no engine runs on {where.text}; name the plant file with -t")
    known = check_plant(where.config).adapters
    if name not in known:
        raise NotFound(f"no adapter {name!r}{nearest(name, list(known))}")
    adapter = known[name]
    if not isinstance(adapter, Probes):
        raise HeadraceError(f"adapter {name} has nothing to probe")
    return probe_report(asyncio.run(adapter.probe(wanted, SystemClock())))


def _directly(wanted: dict[str, str]) -> dict[str, Any]:
    """What no adapter has."""
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.clock import SystemClock
    from headrace.runtime.catalogue import schemes
    from headrace.runtime.operations import probe_report

    known = schemes()
    scheme = known.get(urlsplit(wanted["url"]).scheme)
    if scheme is None:
        raise ConfigError(f"{wanted['url']!r} can't be probed; write one of {', '.join(known)}://", "--url")
    kind = ADAPTERS.load(scheme.protocol)
    if not hasattr(kind, "probe_url"):
        raise HeadraceError(f"a {scheme.protocol} source can't be probed by its url; name its adapter")
    return probe_report(asyncio.run(kind.probe_url(wanted, SystemClock())))


# --- screens -----------------------------------------------------------------------------------------


def plain_screen(found: dict[str, Any]) -> str:
    """A probe of any protocol for people: its facts, then its table; without them, all that it found."""
    facts, found_table = found.get("facts", []), found.get("table")
    if not facts and found_table is None:
        facts = [(key, value) for key, value in found.items() if key != "protocol"]
    parts = [output.fields((str(name), _cell(value)) for name, value in facts)] if facts else []
    if found_table is not None:
        columns, rows = found_table["columns"], found_table["rows"]
        right = [
            at for at in range(len(columns))
            if rows and all(isinstance(row[at], int | float | None) for row in rows)
        ]  # fmt: skip
        parts.append(output.table(columns, [[_cell(cell) for cell in row] for row in rows], right))
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return output.number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def modbus_screen(found: dict[str, Any]) -> str:
    """A Modbus probe for people."""
    took = output.span(found["seconds"])
    pairs = [
        ("device", f"{found['device']}, unit {found['unit']} of {found['peer']}"),
        ("connection", f"{found['connection']}, {took}"),
    ]
    first, area = found["first"], found["area"]
    if "bits" in found:
        pairs.append((f"{area}:{first}", " ".join(map(str, found["bits"]))))
        return output.fields(pairs)
    registers = found["registers"]
    pairs += [
        ("registers", " ".join(f"{one}" for one in registers) + f" (from {area}:{first})"),
        ("bytes", f"{found['hex']}  {found['text']!r}"),
        ("as written", f"{found['configured']['address']} is {output.number(found['configured']['value'])}"),
    ]
    rows = [
        [kind, *(_reading(values, order) for order in _ORDERS)] for kind, values in found["readings"].items()
    ]
    return f"{output.fields(pairs)}\n\n{output.table(('type', *_ORDERS.values()), rows, (1, 2, 3, 4))}"


def _reading(values: dict[str, Any], order: str) -> str:
    return output.number(values[order]) if order in values else ""


def topics_screen(found: dict[str, Any]) -> str:
    """A probe of topics for people: each topic, then what comes of it."""
    count = f"{found['messages']:,} messages of {len(found['topics']):,} topics"
    if found["protocol"] == "kafka":
        head = f"{count} at {found['broker']}, looking for {', '.join(found['filters'])}"
    else:
        took = output.span(found["seconds"])
        head = f"{count} in {took} from {found['broker']}, listening to {', '.join(found['filters'])}"
    lines = [head]
    for topic in found["topics"]:
        payload = (
            topic["payload"] if len(topic["payload"]) <= _PAYLOAD_SHOWN else topic["payload"][:57] + "..."
        )
        lines += ["", f"{topic['topic']}  ({topic['messages']:,})  {payload}"]
        lines.append(f"  rule {topic['rule']}" if topic["rule"] else "  no rule")
        lines += _values(topic)
    if found["messages_of_other_topics"]:
        lines += [
            "",
            f"and {found['messages_of_other_topics']:,} messages of more topics: narrow it with --topic",
        ]
    return "\n".join(lines)


def sparkplug_screen(found: dict[str, Any]) -> str:
    """A Sparkplug probe for people: each node and device, then what its birth names."""
    lines = [
        f"{found['messages']:,} messages of {len(found['nodes']):,} nodes and devices in "
        f"{output.span(found['seconds'])} from {found['broker']}"
    ]
    for node in found["nodes"]:
        head = f"{node['node']}  ({node['messages']:,})  {node['state']}, {node['metrics']:,} metrics"
        lines += ["", head, *_values(node)]
    if found["messages_of_others"]:
        lines += ["", f"and {found['messages_of_others']:,} messages of others: narrow it with --node"]
    return "\n".join(lines)


def _values(one: dict[str, Any]) -> list[str]:
    """A line for each value, and for what would be refused."""
    lines = []
    for value in one["values"]:
        quality = "" if value["quality"] == "good" else f"  {value['quality']}"
        when = "" if value["ts"] is None else f"  at {value['ts']}"
        lines.append(f"  {value['path']} = {output.number(value['value'])}{when}{quality}")
    return lines + [f"  refused: {problem}" for problem in one["problems"]]


def _screen(found: dict[str, Any]) -> str:
    return plain_screen(found) if "table" in found else _SCREENS.get(found["protocol"], plain_screen)(found)


_SCREENS = {
    "modbus": modbus_screen,
    "mqtt": topics_screen,
    "kafka": topics_screen,
    "sparkplug": sparkplug_screen,
}
