"""``headrace status``: one screen about a plant."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli import output
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace status                              # of ./plant.toml",
        "headrace status -t demo-store",
        "headrace status -t http://127.0.0.1:8844 --json | jq .samples",
    ),
)
@target_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(target: str | None, as_json: bool) -> None:
    """One screen: adapters, rates, lag, disk.

    A running engine is asked; where none runs, the store itself is looked at.
    """
    where = find_target(target)
    facts = _facts(where)
    if as_json:
        output.emit_json(facts)
    else:
        click.echo(_screen(facts))


def _facts(where: Target) -> dict[str, Any]:
    engine = where.engine()
    if engine is not None:
        found: dict[str, Any] = engine.json("/api/v1/status")
        return {**found, "address": engine.public, **_difference(where, found)}
    from headrace.runtime.reader import StoreReader
    from headrace.store.disks import url_of

    disk = where.open_disk(is_asked=True)
    store = StoreReader(disk).status()
    return {"state": "stopped", "sensors": store.pop("sensors"), "store": {"url": url_of(disk), **store}}


def _difference(where: Target, running: dict[str, Any]) -> dict[str, Any]:
    """Whether the plant file says something else than what runs."""
    if where.config is None or "config_hash" not in running:
        return {}
    from headrace.core.config import PlantSource
    from headrace.runtime.changes import config_hash

    config, overrides = where.config, tuple(running.get("config", {}).get("overrides", ()))
    if config.source is not None and overrides:  # what its command line has overridden is no difference
        config = PlantSource(config.source.file, overrides).load()
    return {"config_differs": config_hash(config) != running["config_hash"]}


def _screen(facts: dict[str, Any]) -> str:
    parts = [output.fields(_pairs(facts))]
    adapters = facts.get("adapters")
    if adapters:
        header = ("adapter", "protocol", "state", "sensors", "samples", "last good (UTC)", "reason")
        rows = [
            [
                one["name"],
                one["protocol"],
                one["state"],
                output.count(one["sensors"]),
                output.count(one["samples"]),
                (one["last_good"] or "never")[:23].replace("T", " "),
                one["reason"],
            ]
            for one in adapters
        ]
        parts.append(output.table(header, rows, (3, 4)))
    stages = facts.get("stages")
    if stages:
        parts.append("cpu, ns a sample: " + ", ".join(f"{name} {ns:,.0f}" for name, ns in stages.items()))
    return "\n\n".join(parts)


def _pairs(facts: dict[str, Any]) -> list[tuple[str, str]]:
    store = facts["store"]
    pairs = [("state", _state(facts))]
    if "samples" in facts:
        samples = facts["samples"]
        pairs += [
            ("rate", f"{facts['rate']['samples_per_s']:,.0f} samples/s of {facts['sensors']:,} sensors"),
            ("samples", ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in samples.items())),
            ("lag", output.span(facts["lag_s"])),
        ]
    pairs.append(("store", f"{store['url']}, {output.size(store['size_bytes'])}{_free(store)}"))
    if "samples" not in facts:
        each = store["size_bytes"] / max(1, store["samples"])
        pairs.append(
            ("holds", f"{facts['sensors']:,} sensors, {store['samples']:,} samples, {each:.2f} bytes each")
        )
    if store.get("problem"):
        pairs.append(("problem", store["problem"]))
    if store.get("fresh_to"):
        pairs.append(("fresh to", store["fresh_to"]))
    if "journal" in facts:
        journal = facts["journal"]
        pairs.append(
            (
                "journal",
                output.size(journal["size_bytes"]) + (journal["refusal"] and f": {journal['refusal']}"),
            )
        )
    return pairs


def _state(facts: dict[str, Any]) -> str:
    text = str(facts["state"])
    if facts.get("since"):
        text += f" since {facts['since'][:19].replace('T', ' ')} UTC"
    if "address" in facts:
        text += f", answers at {facts['address']}"
    if facts.get("config_differs"):
        text += "; the plant file has changed since: headrace apply makes it the running one"
    return text


def _free(store: dict[str, Any]) -> str:
    return f", {output.size(store['free_bytes'])} free" if "free_bytes" in store else ""
