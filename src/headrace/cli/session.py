"""A plant that runs in this process until somebody stops it: what `run` and `demo` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from headrace.core.clock import monotonic_ns
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.cli.doors import Doors
    from headrace.runtime.assemble import Plant

BEAT_S = 0.5
DRAIN_S = 8.0


class Watch(Protocol):
    """What looks at a running plant and shows it."""

    def started(self, address: str, has_page: bool = False) -> None:
        """The plant runs and answers at `address`, where its page may be too."""
        ...

    def beat(self) -> None:
        """Half a second has passed."""
        ...

    def stopping(self) -> None:
        """Somebody asked for the end; the plant drains."""
        ...


class Session:
    """One run of a plant with its HTTP ports.

    Parameters
    ----------
    doors : bound to their ports already. watch : shown what happens.
    for_s : end by itself after so many seconds; None: on SIGINT or SIGTERM only.
    until : end once it is set, too.
    """

    def __init__(
        self,
        plant: Plant,
        doors: Doors,
        watch: Watch,
        for_s: float | None = None,
        until: asyncio.Event | None = None,
    ) -> None:
        self._plant, self._doors, self._watch = plant, doors, watch
        self._for_s = for_s
        self._wanted = until or asyncio.Event()

    async def run(self) -> None:
        """Start, watch, drain. Everything accepted is in the store, or at least in the journal, at the end.

        Raises
        ------
        HeadraceError : the plant could not start, or ended by itself; the text says why.
        """
        plant = self._plant
        plant.on_failure(self._wanted.set)
        with self._signals():
            try:
                await self._doors.start()
                await plant.start()
                async with self._doors.announced():
                    self._watch.started(self._doors.address, self._doors.has_page)
                    await self._until_wanted()
                    self._watch.stopping()
                    await plant.stop(DRAIN_S)
            finally:
                await plant.stop(DRAIN_S)
                await self._doors.stop()
        if plant.failure:
            raise HeadraceError(plant.failure)

    async def _until_wanted(self) -> None:
        begun = monotonic_ns()
        while not self._wanted.is_set():
            left_s = BEAT_S
            if self._for_s is not None:
                left_s = min(BEAT_S, self._for_s - (monotonic_ns() - begun) / 1e9)
                if left_s <= 0:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wanted.wait()
            self._watch.beat()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks for the end, a second one ends at once. SIGHUP loads what has changed."""
        loop = asyncio.get_running_loop()
        asked = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in (*asked, signal.SIGHUP)}
        # A terminal that is closed sends it, too; who runs by nohup wants to outlive that.
        ends_with_terminal = before[signal.SIGHUP] is not signal.SIG_IGN and has_terminal()
        refreshing: set[asyncio.Task[None]] = set()

        def ask() -> None:
            self._wanted.set()
            for number in asked:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)

        def hung_up() -> None:
            if ends_with_terminal and not has_terminal():
                self._wanted.set()
            elif self._plant.state == "running":
                self._doors.renew()
                task = asyncio.create_task(self._plant.operations.refresh("SIGHUP"), name="headrace-refresh")
                refreshing.add(task)
                task.add_done_callback(refreshing.discard)

        for number in asked:
            loop.add_signal_handler(number, ask)
        loop.add_signal_handler(signal.SIGHUP, hung_up)
        try:
            yield
        finally:
            for task in refreshing:
                task.cancel()
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


def has_terminal() -> bool:
    """Whether this process is controlled by a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
