"""The command line: every command with its arguments, options and examples."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import click

from generator.prose import NOTICE, code, table
from headrace.cli.main import COMMANDS, cli

HEAD = """\
# Command line

`headrace VERB` is for a whole plant, `headrace NOUN VERB` for its parts. In a clone of the repository it is
`uv run headrace`. Every command says what is here with `--help`.

**Target.** `-t` is a plant file, a store's folder, or the address of an engine; `HEADRACE_TARGET` says it for all
commands, the default is `./plant.toml`. An engine that runs is asked; where none runs, reading commands open the store.

**Output.** Tables for people. `--json` puts one document on stdout; all else goes to stderr. No colour and no question
without a terminal. What changes something asks before, unless `--yes`.

**Exit codes.** 0 done, or stopped on request · 1 failed · 2 usage or configuration · 3 target not reachable · 4 not
allowed. Errors are one sentence on stderr; `HEADRACE_TRACEBACK=1` adds where an unexpected one came from.
"""


def page() -> str:
    """The page of all commands."""
    parts = [HEAD, NOTICE, _contents()]
    for name in COMMANDS:
        for path, command in _commands(name):
            parts.append(_section(path, command))
    return "\n".join(parts)


def command_of(name: str) -> click.Command:
    """The command called `name` in ``headrace --help``."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _contents() -> str:
    rows = [(f"[`headrace {name}`](#{name})", text) for name, (_, text) in COMMANDS.items()]
    return table(("command", "what it does"), rows)


def _commands(name: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    command = command_of(name)
    yield (name,), command
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            yield (name, verb), inner


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(
        command, info_name=" ".join(path), parent=click.Context(cli, info_name="headrace")
    )
    level = "#" * (1 + len(path))
    parts = [f"{level} `headrace {' '.join(path)}` {{ #{'-'.join(path)} }}\n"]
    if not isinstance(command, click.Group):
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"```text\nheadrace {' '.join(path)} {usage}\n```\n")
    parts.append(_prose(command.help or ""))
    rows = [_option(param, context) for param in command.params if isinstance(param, click.Option)]
    if rows and not isinstance(command, click.Group):
        parts.append(table(("option", "meaning"), rows))
    examples = getattr(command, "examples", ())
    if examples:
        parts.append("```sh\n" + "\n".join(examples) + "\n```\n")
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Help as click has it: lines after a backspace are kept as they are."""
    out = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            out.append("```text\n" + "\n".join(line.removeprefix("  ") for line in lines[1:]) + "\n```")
        else:
            out.append(paragraph)
    return "\n\n".join(out) + "\n"


def _option(param: click.Option, context: click.Context) -> tuple[str, str]:
    record = param.get_help_record(context)
    assert record is not None, f"{param.name} is hidden"
    names, text = record
    return code(names), text
