"""Help that teaches: commands whose ``--help`` ends with examples."""

from __future__ import annotations

from typing import Any

import click


class TaughtCommand(click.Command):
    """A command with examples.

    Parameters
    ----------
    examples : command lines and, after ``#``, what each does.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what click writes."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")
        super().format_epilog(ctx, formatter)
