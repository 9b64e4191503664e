"""``headrace plugins list``: what parts there are."""

from __future__ import annotations

import click

from headrace.cli import output
from headrace.cli.teaching import TaughtCommand


@click.group(invoke_without_command=True)
@click.pass_context
def plugins(ctx: click.Context) -> None:
    """Adapters, payload decoders, operators and codecs: built-in ones and those of installed packages."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@plugins.command(
    "list",
    cls=TaughtCommand,
    examples=(
        "headrace plugins list",
        "headrace plugins list operators",
        "headrace plugins list adapters --json | jq '.[] | select(.package != \"headrace\")'",
    ),
)
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects.")
def list_(kind: str | None, as_json: bool) -> None:
    """All plug-ins, or those of one KIND: adapters, payloads, operators, codecs.

    A line each: how a plant file calls it, how stable it is, the extra it needs (pip install 'headrace[EXTRA]'), and the
    package that adds it. --json has the page of each, too.
    """
    from dataclasses import asdict

    from headrace.runtime.catalogue import find_plugins

    found = find_plugins(kind)
    if as_json:
        output.emit_json([asdict(one) for one in found])
        return
    header = ("kind", "name", "stability", "extra", "package", "what it is")
    rows = [
        [
            p.kind.removesuffix("s"),
            p.name,
            p.stability or "-",
            p.extra or "-",
            p.package,
            p.problem or p.title,
        ]
        for p in found
    ]
    click.echo(output.table(header, rows))
    if kind is None:
        output.note("pages: headrace plugins list --json; a plug-in of your own: headrace new plugin --help")
