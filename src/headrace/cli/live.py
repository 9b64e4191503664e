"""A running plant on the terminal: a screen that renews itself, or plain lines where there is no terminal."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.adapters.base import AdapterDiagnostics, AdapterState
from headrace.cli import output
from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.events import Event
from headrace.runtime.phrases import RAW_BYTES
from headrace.runtime.times import rfc3339

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant

_RATE_OVER_NS = 5 * NS
_LINE_EVERY_NS = 10 * NS
_SAID_MAX = 4
_QUIET = ("adapter.started", "api.started")
"""Events that the other lines say better."""
_STYLES = {
    AdapterState.CONNECTED: "green", AdapterState.STARTING: "yellow", AdapterState.DEGRADED: "yellow",
    AdapterState.BACKOFF: "red", AdapterState.FAILED: "red", AdapterState.STOPPED: "dim",
    AdapterState.PAUSED: "dim",
}  # fmt: skip


class LogLines(logging.Handler):
    """Hands what our parts log to `say`; what libraries log is not for the plant's operator.

    It stands in for Python's own last resort, which would write through the screen.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say
        self._logger = logging.getLogger("headrace")
        self._logger.addHandler(self)
        self._logger.propagate = False
        self._level = self._logger.level
        if not self._logger.isEnabledFor(logging.INFO):
            self._logger.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one message."""
        self._say(record.getMessage())

    def close(self) -> None:
        """Let go of the logger."""
        self._logger.removeHandler(self)
        self._logger.propagate = True
        self._logger.setLevel(self._level)
        super().close()


class Rate:
    """Samples a second of real time over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()

    def update(self, total: int) -> float:
        """The rate, now that `total` have come in all."""
        now_ns = monotonic_ns()
        self._seen.append((now_ns, total))
        while len(self._seen) > 2 and self._seen[1][0] < now_ns - _RATE_OVER_NS:
            self._seen.popleft()
        then_ns, then = self._seen[0]
        return (total - then) * NS / (now_ns - then_ns) if now_ns > then_ns else 0.0


def adapter_rows(adapters: Sequence[AdapterDiagnostics], now_ns: int) -> list[list[str]]:
    """Name, protocol, state, devices, sensors, samples, last good sample, reason: a row an adapter."""
    rows = []
    for a in adapters:
        n_up = sum(d.state is AdapterState.CONNECTED for d in a.devices)
        last_ns = max((d.last_good_ns for d in a.devices), default=NO_TIME)
        rows.append(
            [
                a.name,
                a.protocol,
                str(a.state),
                f"{n_up}/{len(a.devices)}",
                output.count(a.n_sensors),
                output.count(a.n_samples),
                output.age(last_ns, now_ns),
                a.reason,
            ]
        )
    return rows


ADAPTER_HEADER = ("adapter", "protocol", "state", "devices", "sensors", "samples", "last good", "reason")
ADAPTER_RIGHT = (3, 4, 5, 6)


class Screen:
    """What one look at a plant shows, and on a terminal renews in place.

    Parameters
    ----------
    title : what runs. console : stderr: stdout is for results.
    """

    def __init__(self, plant: Plant, clock: Clock, title: str, console: Console | None = None) -> None:
        self._plant, self._clock, self._title = plant, clock, title
        self._console = console or Console(stderr=True, highlight=False)
        self._rate = Rate()
        self._live: Live | None = None
        self._address = self._page = ""
        self._begun_ns = monotonic_ns()
        self._next_line_ns = 0
        self._last_event: Event | None = None
        self._said: deque[str] = deque(maxlen=_SAID_MAX)
        self._log = LogLines(self.say)
        self.first_stored_ns: int | None = None
        """Monotonic time at which the first stored sample was seen."""

    def started(self, address: str, has_page: bool = False) -> None:
        """Begin to show."""
        page = ", where its page is" if has_page else ""
        self._page = "page " if has_page else ""
        self._address, self._begun_ns = address, monotonic_ns()
        if self._console.is_terminal:
            self._live = Live(self.render(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self.say(f"{self._title} runs; it answers at {address}{page}; stop it with SIGINT or SIGTERM")

    def beat(self) -> None:
        """Show the present."""
        self._tell_events()
        if self._live is not None or self.first_stored_ns is None or monotonic_ns() >= self._next_line_ns:
            status = self._plant.status()
            rate = self._rate.update(status["samples"]["received"])
            if self.first_stored_ns is None and status["samples"]["stored"]:
                self.first_stored_ns = monotonic_ns()
            if self._live is not None:
                self._live.update(self.render(status, rate), refresh=True)
            elif monotonic_ns() >= self._next_line_ns:
                self._next_line_ns = monotonic_ns() + _LINE_EVERY_NS
                self.say(self.line(status, rate))

    def stopping(self) -> None:
        """The end was asked for."""
        self._leave_screen()
        self.say(
            "stopping: what was received is being written (asking again ends at once; nothing acknowledged is lost)"
        )

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice."""
        self._leave_screen()
        self._tell_events()
        self._log.close()

    def _leave_screen(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Tell something of note: a line of the log, or one of the last few on the screen."""
        if self._live is not None:
            self._said.append(text)
            return
        stamp = "" if self._console.is_terminal else f"{str(rfc3339(self._clock.now_ns()))[:19]}Z "
        self._console.print(stamp + text, markup=False, soft_wrap=True)

    def _tell_events(self) -> None:
        """Tell what parts of the plant said since the last look."""
        events = list(self._plant.events)
        new = events[events.index(self._last_event) + 1 :] if self._last_event in events else events
        for event in new:
            if event.kind not in _QUIET:
                self.say(event.text)
        self._last_event = events[-1] if events else None

    # --- what is shown -------------------------------------------------------------------------------

    def line(self, status: dict[str, Any], rate: float) -> str:
        """Everything in one line, for logs."""
        samples, store = status["samples"], status["store"]
        states = ", ".join(f"{a.name} {a.state}" for a in self._plant.adapters())
        return (
            f"{rate:,.0f} samples/s, received {samples['received']:,}, stored {samples['stored']:,}, duplicates "
            f"{samples['duplicates']:,}, rejected {samples['rejected']:,}, store {output.size(store['size_bytes'])}; "
            f"{states}"
        )

    def render(self, status: dict[str, Any] | None = None, rate: float = 0.0) -> RenderableType:
        """The whole screen."""
        status = status or self._plant.status()
        parts: list[RenderableType] = [
            self._head(status),
            Text(),
            self._adapters(),
            Text(),
            _facts(status, rate),
        ]
        parts += self.more()
        troubles = [t for t in (status["journal"]["refusal"], status["store"].get("problem")) if t]
        if troubles:
            parts += [Text(), *(Text(t, style="bold red") for t in troubles)]
        if self._said:
            parts += [Text(), *(Text(t, style="dim") for t in self._said)]
        return Group(*parts, Text(), Text("Ctrl-C ends it", style="dim"))

    def more(self) -> list[RenderableType]:
        """What a command adds below; nothing here."""
        return []

    def _head(self, status: dict[str, Any]) -> Text:
        passed = output.span((monotonic_ns() - self._begun_ns) / NS)
        facts = f"  running for {passed}, {status['sensors']:,} sensors  "
        return Text.assemble((self._title, "bold"), facts, (self._page, "dim"), (self._address, "cyan"))

    def _adapters(self) -> Table:
        grid = Table(box=None, pad_edge=False, header_style="dim")
        for i, name in enumerate(ADAPTER_HEADER):
            grid.add_column(name, justify="right" if i in ADAPTER_RIGHT else "left", no_wrap=i < 7)
        adapters = self._plant.adapters()
        for adapter, row in zip(adapters, adapter_rows(adapters, self._clock.now_ns()), strict=True):
            styled = [
                Text(cell, style=_STYLES[adapter.state] if i == 2 else "") for i, cell in enumerate(row)
            ]
            grid.add_row(*styled)
        return grid


def _facts(status: dict[str, Any], rate: float) -> Table:
    samples, store, journal = status["samples"], status["store"], status["journal"]
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text("samples", style="dim"), Text.assemble((f"{rate:,.0f}/s", "bold"), "  ", _fates(samples))
    )
    disk = f"journal {output.size(journal['size_bytes'])}  store {output.size(store['size_bytes'])}"
    grid.add_row(Text("disk", style="dim"), Text(disk + saving(status)))
    return grid


def _fates(samples: dict[str, Any]) -> str:
    names = ("received", "stored", "duplicates", "rejected", "thinned")
    return "  ".join(f"{name} {samples[name]:,}" for name in names)


def saving(status: dict[str, Any]) -> str:
    """What a stored sample takes on disk, against 16 bytes; empty before the first flush."""
    store = status["store"]
    if not store["samples"]:
        return ""
    n_bytes = store["size_bytes"] / store["samples"]
    return f"  {n_bytes:.2f} bytes a sample: {RAW_BYTES / n_bytes:.1f} times smaller than {RAW_BYTES}"
