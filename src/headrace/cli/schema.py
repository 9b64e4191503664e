"""``headrace schema``: what editors need to know about plant files."""

from __future__ import annotations

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace schema > plant.schema.json",
        "headrace schema | jq '.properties | keys'",
    ),
)
def schema() -> int:
    """The JSON schema of plant files, with the keys of every adapter that is installed.

    Put it beside the plant file, and the line `#:schema plant.schema.json` at the file's top: editors with Taplo (Even
    Better TOML) then complete and check keys while one types. `headrace new plant` does both.
    """
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.config import json_schema
    from headrace.core.errors import PluginError

    models = {}
    for name in ADAPTERS.names():
        try:
            models[name] = ADAPTERS.load(name).Config
        except PluginError as e:
            output.note(f"the keys of {name} are left out: {e}")
    output.emit_json(json_schema(models))
    return Exit.DONE
