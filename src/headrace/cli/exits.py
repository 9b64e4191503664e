"""Exit codes, and errors as one sentence on stderr."""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum

import click

from headrace.core.errors import ConfigError, HeadraceError, NotAllowed, PluginError, Unreachable


class Exit(IntEnum):
    """What the command's exit code says; a closed set."""

    DONE = 0
    """Done, or stopped on request."""
    FAILED = 1
    """Failed, or found what was looked for."""
    CONFIG = 2
    """Wrong usage or configuration."""
    UNREACHABLE = 3
    """The target can't be reached."""
    NOT_ALLOWED = 4
    """The target refuses: not permitted."""


def exit_of(error: BaseException) -> Exit:
    """The exit code that says what `error` means."""
    if isinstance(error, (ConfigError, PluginError, click.UsageError)):
        return Exit.CONFIG
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    if isinstance(error, (NotAllowed, PermissionError)):
        return Exit.NOT_ALLOWED
    return Exit.FAILED


def report(error: BaseException) -> None:
    """Tell `error` on stderr in one sentence; with ``HEADRACE_TRACEBACK=1`` also where it came from."""
    if os.environ.get("HEADRACE_TRACEBACK", "") not in ("", "0"):
        traceback.print_exception(error, file=sys.stderr)
    click.echo(f"headrace: {sentence(error)}", err=True)


def sentence(error: BaseException) -> str:
    """What `error` says to a person."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "headrace"
        return f"{error.format_message().rstrip('.')} (see: {where} --help)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(error, ConfigError):
        return _first_problem(error)
    if isinstance(error, HeadraceError):
        return str(error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {what}; this is a defect, run it with HEADRACE_TRACEBACK=1 to see where it came from"


def _first_problem(error: ConfigError) -> str:
    """The first problem of a plant file, and how many more there are: `headrace check` tells all."""
    first, *others = str(error).splitlines() or [""]
    if not others:
        return first
    more = "1 more problem" if len(others) == 1 else f"{len(others)} more problems"
    return f"{first} (and {more}: headrace check shows all)"
