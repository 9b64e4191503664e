"""``headrace warmup``: compile the kernels now, for images and for a fast first start."""

from __future__ import annotations

import click

from headrace.cli.exits import Exit
from headrace.cli.teaching import TaughtCommand


@click.command(cls=TaughtCommand, examples=("headrace warmup    # once, while an image is built",))
def warmup() -> int:
    """Compile every kernel of the live path and of queries, or load it from the cache, and say how long that took.

    The first start on a machine compiles for a minute or more; an image that ran this starts at once.
    """
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.clock import NS, cpu_ns
    from headrace.runtime.warm import warm_kernels, warm_queries

    begun = cpu_ns()
    warm_kernels(protocols=ADAPTERS.names())
    warm_queries()
    click.echo(f"kernels are ready after {(cpu_ns() - begun) / NS:.1f} s of CPU")
    return Exit.DONE
