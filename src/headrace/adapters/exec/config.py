"""Configuration of the exec adapter: ``[adapters.<name>]`` with ``protocol = "exec"``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.adapters.payloads.line_rules import LineRule
from headrace.core.settings import DurationNs, SecretRef

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ExecConfig(LineRule):
    """A program, and what it writes."""

    protocol: Literal["exec"] = "exec"
    command: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        min_length=1,
        description='program and arguments: ["python3", "oven.py"]; no shell reads it. A program with a "/" in its name '
        "lies in `folder`, others are looked for in PATH",
    )
    folder: str = Field(default=".", description="working folder; a relative one lies beside the plant file")
    env: dict[str, str | SecretRef] = Field(
        default_factory=dict,
        description='environment of the program, besides PATH, HOME, LANG, TZ and the like: { KEY = "text" } or '
        '{ KEY = { env = "NAME" } }',
    )
    format: Literal["lines", "json", "csv", "arrow"] = Field(
        default="lines",
        description="what it writes: line protocol, an object of JSON a line, CSV, or an Arrow IPC stream",
    )
    interval: DurationNs | None = Field(
        default=None,
        description="run it so often: the time from start to start of runs that end with exit code 0",
    )
    silent_after: DurationNs | None = Field(
        default=None, description="a program that has sent nothing for so long is ended and started anew"
    )
    restart_first: DurationNs = Field(
        default="500ms", validate_default=True, description="first wait after it has ended; doubles"
    )
    restart_most: DurationNs = Field(
        default="30s", validate_default=True, description="longest wait between two starts"
    )
    max_devices: int = Field(default=100_000, ge=1, description="devices that it may name; more are refused")

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        if not self.command[0] or any("\0" in part for part in self.command):
            raise ValueError("command names a program first; no part has a NUL in it")
        for name, value in self.env.items():
            if not _VARIABLE.fullmatch(name) or (isinstance(value, str) and "\0" in value):
                raise ValueError(f"{name!r} is no environment variable; use letters, digits and '_'")
        return self

    def argv(self, folder: Path) -> tuple[str, ...]:
        """The command as it is started; `folder` is the working folder."""
        program = self.command[0]
        return (str(folder / program) if "/" in program else program, *self.command[1:])
