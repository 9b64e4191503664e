"""A host stepped by hand, in one thread: for tests of what is on a disk between two steps."""

from __future__ import annotations

from headrace.runtime.host import Host


def work_off(host: Host) -> None:
    """Let the shards take what was delivered to them; the host's threads were not started."""
    for runner in host.engine._runners:
        while not runner._queue.empty():
            item = runner._queue.get()
            assert isinstance(item, tuple)
            runner.core.process(*item)


def flush_all(host: Host) -> None:
    """Write every shard, with its state, and trim the journal."""
    for core in host.engine.cores:
        parts = [core.part(n, snapshot=True) for n in core.due(everything=True)]
        host.flusher.flush(parts)
        for part in parts:
            core.committed(part)
    host._trim()
