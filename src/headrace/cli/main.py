"""The command line: ``headrace VERB`` for a whole plant, ``headrace NOUN VERB`` for its parts.

Commands are a table of strings: only what runs is imported, so that ``--help`` is there at once. Results go to
stdout, everything else to stderr. Errors are one sentence and an exit code.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from headrace.cli.exits import Exit, exit_of, report

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("headrace.cli.demo:demo", "Run a simulated factory and the pipeline, and watch."),
    "run": ("headrace.cli.run:run", "Run your own plant."),
    "check": ("headrace.cli.check:check", "Check a plant file before it runs."),
    "query": ("headrace.cli.query:query", "Read samples or aggregates of sensors."),
    "status": ("headrace.cli.status:status", "One screen: adapters, rates, lag, disk."),
    "adapters": (
        "headrace.cli.adapters:adapters",
        "How each adapter and its devices are; probe, capture, tail, pause.",
    ),
    "tags": ("headrace.cli.tags:tags", "Take a factory into service: scan, import, diff, apply, undo."),
    "apply": ("headrace.cli.apply:apply", "Make a plant file the running configuration."),
    "undo": ("headrace.cli.apply:undo", "Go back to the configuration before."),
    "rejects": ("headrace.cli.rejects:rejects", "Refused input: look at it, replay it."),
    "export": ("headrace.cli.export:export", "Write samples as plain CSV, Parquet or Arrow files."),
    "import": ("headrace.cli.importing:import_", "Read history from CSV and Parquet files."),
    "new": ("headrace.cli.new:new", "Begin a plant file, or a plug-in."),
    "plugins": ("headrace.cli.plugins:plugins", "What adapters, payloads, operators and codecs there are."),
    "store": ("headrace.cli.store:store", "What a store holds, whether it is sound, and copies of it."),
    "tiers": ("headrace.cli.tiers:tiers", "What becomes of samples as they age; do it now."),
    "codecs": ("headrace.cli.codecs:codecs", "Which codec and why, what loss costs, which bound."),
    "schema": ("headrace.cli.schema:schema", "The JSON schema of plant files, for editors."),
    "bench": ("headrace.cli.bench:bench", "Measure this machine: throughput, recovery, queries, restarts."),
    "sim": ("headrace.cli.sim:sim", "Simulate the whole pipeline by seed, and audit it."),
    "warmup": ("headrace.cli.warmup:warmup", "Compile the kernels now."),
}
"""Command → where it is, and its line in ``headrace --help``, which imports none of them."""

_EPILOG = """\b
First steps:
  headrace demo                         a simulated factory; Ctrl-C ends it
  headrace check plant.toml             is my plant file right?
  headrace run plant.toml               collect, store, answer
  headrace query '**/temperature' --last 10m --every 1m --agg mean

\b
Every command says more: headrace query --help.
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 target not reachable, 4 not allowed."""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from headrace.core.registry import nearest

            raise click.UsageError(f"no command {name!r}{nearest(name, list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"headrace {version('headrace')}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Industrial sensor data, from device to query.

    Headrace reads devices (Modbus, OPC UA, MQTT, Sparkplug B, files and more), makes every sample durable before it
    acknowledges it, compresses it, and answers queries, while it comes in and long after.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error has been told on stderr."""
    try:
        # Without standalone mode click raises instead of exiting; ctx.exit gives its code as the result.
        result: Any = cli.main(arguments, prog_name="headrace", standalone_mode=False)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say, also not at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (Exception, KeyboardInterrupt) as e:
        report(e)
        return exit_of(e)
    return result if isinstance(result, int) else Exit.DONE


def main() -> None:
    """Entry point of the ``headrace`` command."""
    code = run_command()
    gc.freeze()  # what is left goes with the process: looking for cycles in it takes a third of a second
    sys.exit(code)


if __name__ == "__main__":
    main()
