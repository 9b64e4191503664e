"""A program for tests and trials of the exec adapter; it needs nothing but Python (and pyarrow for Arrow).

::

    python simulator.py follow SPOOL     # writes on what is appended to a file; ends with 3 where the file goes
    python simulator.py count N EVERY    # N lines of line protocol, one every so many seconds
    python simulator.py arrow N          # N record batches of ten rows
    python simulator.py stay             # deaf to SIGTERM, with a child of its own that is deaf too
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.01


def wait(seconds: float) -> bool:
    """Wait; whether whoever started us is still there (standard input stays open for as long)."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return not ready


def follow(spool: str) -> int:
    """Write on what is appended to a file, for as long as it is there."""
    path = Path(spool)
    print(f"following {path.name}", file=sys.stderr, flush=True)
    try:
        with path.open("rb") as file:
            while wait(POLL_S):
                path.stat()
                data = file.read(65_536)
                if data:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
    except FileNotFoundError:
        print("the device does not answer", file=sys.stderr)
        return 3
    return 0


def count(n: str, every: str) -> int:
    """Write lines of line protocol, each with its number."""
    for number in range(int(n)):
        if not wait(float(every)):
            return 0
        print(f"oven,host=pi n={number}i,t={number / 2} {1_700_000_000_000_000_000 + number}", flush=True)
    return 0


def arrow(n: str) -> int:
    """Write record batches of ten rows: ts, a number and a text that comes again."""
    import pyarrow as pa

    schema = pa.schema({
        "ts": pa.timestamp("us", "UTC"), "n": pa.int32(), "mode": pa.dictionary(pa.int32(), pa.string()),
    })  # fmt: skip
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as out:
        for number in range(int(n)):
            rows = range(10 * number, 10 * number + 10)
            modes = pa.array([f"m{row % 3}" for row in rows]).dictionary_encode()
            ts = pa.array([1_700_000_000_000_000 + row for row in rows], schema.field("ts").type)
            out.write_batch(pa.record_batch([ts, pa.array(rows, pa.int32()), modes], schema=schema))
    return 0


def stay() -> int:
    """Be hard to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child:
        print(f"stay pid={os.getpid()}i,child={child}i {1_700_000_000_000_000_000}", flush=True)
    while True:
        signal.pause()


ACTS: dict[str, Callable[..., int]] = {"follow": follow, "count": count, "arrow": arrow, "stay": stay}

if __name__ == "__main__":
    sys.exit(ACTS[sys.argv[1]](*sys.argv[2:]))
