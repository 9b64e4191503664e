"""A file that is being read: how far it was read, how far that is durable, and how it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.adapters.base import Ack, AdapterState, DeviceDiagnostics
from headrace.adapters.files.config import FileFormat
from headrace.adapters.files.folder import CHUNK_BYTES, LineSource, ParquetSource, ReadLines, SeenFile
from headrace.adapters.files.patterns import CompiledRule
from headrace.adapters.files.positions import Ahead, FilePosition
from headrace.adapters.meters import Backoff
from headrace.adapters.payloads.chunks import ChunkDecoder
from headrace.core.clock import NO_TIME


@dataclass(eq=False, slots=True)
class Flight:
    """A part of a file on its way to being durable: where it ends, and how many of its pieces are still open."""

    start: int
    end: int
    line: int
    is_skipping: bool = False
    head_bytes: int = 0
    head: int = 0
    n_open: int = 1
    is_void: bool = False
    """Whether it is read again, so that it does not count when it lands."""


@dataclass(eq=False, slots=True)
class FollowedFile:
    """One file.

    Parameters
    ----------
    seen : as the last look found it; since_ns : when it was first found so. position : up to here all is durable.
    read_at, line, is_skipping : how far it was read.
    """

    seen: SeenFile
    rule: CompiledRule
    format: FileFormat
    position: FilePosition
    backoff: Backoff
    since_ns: int
    on_landed: Callable[[FollowedFile], None]
    read_at: int = 0
    line: int = 1
    is_skipping: bool = False
    flights: deque[Flight] = field(default_factory=deque)
    source: LineSource | None = None
    parquet: ParquetSource | None = None
    decoder: ChunkDecoder | None = None
    tables: Any = None
    is_drained: bool = False
    """Whether there was nothing more to read when it was read last."""
    is_done: bool = False
    """Whether it is finished and all of it was read."""
    state: AdapterState = AdapterState.STARTING
    reason: str = ""
    retry_ns: int = NO_TIME
    last_good_ns: int = NO_TIME
    n_chunks: int = 0
    n_errors: int = 0

    @property
    def name(self) -> str:
        """Its path in the folder."""
        return self.seen.name

    @property
    def is_compressed(self) -> bool:
        """Whether its size says nothing of how much is left."""
        return self.name.endswith(".gz")

    def see(self, seen: SeenFile, now_ns: int) -> None:
        """Take note of how a look found it."""
        is_same = (seen.size_bytes, seen.mtime_ns) == (self.seen.size_bytes, self.seen.mtime_ns)
        if not is_same:
            self.since_ns, self.is_drained, self.is_done = now_ns, False, False
            if self.format == "parquet":
                self.restart()
        if seen.name != self.seen.name:
            self.close()
        self.seen = seen

    def resume(self) -> None:
        """Go on where it was durable."""
        at = self.position
        self.read_at, self.line, self.is_skipping = at.at, at.line, at.is_skipping
        is_same = (at.size_bytes, at.mtime_ns) == (self.seen.size_bytes, self.seen.mtime_ns)
        self.is_done = self.is_drained = at.is_done and is_same
        if self.format == "parquet" and not is_same:
            self.restart()

    def restart(self) -> None:
        """Begin at its beginning: it is another file than the one that was read."""
        self.void()
        self.position = FilePosition(*self.seen.key, self.name)
        self.read_at, self.line, self.is_skipping = 0, 1, False
        self.is_drained = self.is_done = False
        self.close()

    def void(self) -> None:
        """What is on its way does not count: it is read again."""
        for flight in self.flights:
            flight.is_void = True
        self.flights.clear()

    def rewind(self) -> None:
        """Read again what is on its way, since not all of it was taken."""
        self.void()
        at = self.position
        self.read_at, self.line, self.is_skipping, self.is_drained = at.at, at.line, at.is_skipping, False
        self.close()

    def close(self) -> None:
        """Let go of the file and of what was learnt of it."""
        for source in (self.source, self.parquet):
            if source is not None:
                source.close()
        self.source = self.parquet = self.decoder = None

    # --- on its way ----------------------------------------------------------------------------------

    def ahead(self) -> Ahead | None:
        """The chunk that was read here before and may have been taken."""
        return next((one for one in self.position.ahead if one.start == self.read_at), None)

    def end_of_next(self) -> int | None:
        """Where such a chunk begins behind here, if it is near: what is read now must end there."""
        starts = [one.start for one in self.position.ahead if one.start > self.read_at]
        return min(starts) if starts and min(starts) - self.read_at <= CHUNK_BYTES else None

    def keep_ahead(self, ahead: Ahead) -> FilePosition:
        """Remember a chunk before it is handed on; the position to be noted."""
        self.position = replace(self.position, ahead=(*self.position.ahead, ahead))
        return self.position

    def begin(self, read: ReadLines | None, n: int, n_lines: int, is_skipping: bool = False) -> Flight:
        """Take note that the next `n` bytes (or row groups) are on their way."""
        start = self.read_at
        self.read_at, self.line, self.is_skipping = start + n, self.line + n_lines, is_skipping
        head = (read.head_bytes, read.head) if read else (self.position.head_bytes, self.position.head)
        flight = Flight(start, self.read_at, self.line, is_skipping, *head)
        self.flights.append(flight)
        return flight

    def opened(self, flight: Flight) -> Ack:
        """An ack for one piece more of what is on its way."""
        flight.n_open += 1
        return lambda: self.landed(flight)

    def landed(self, flight: Flight) -> None:
        """A piece is durable; where all before it are too, the position goes on."""
        flight.n_open -= 1
        if flight.n_open or flight.is_void:
            return
        is_first = False
        while self.flights and not self.flights[0].n_open:
            one, is_first = self.flights.popleft(), True
            self.position = replace(
                self.position, at=one.end, line=one.line, is_skipping=one.is_skipping, head_bytes=one.head_bytes,
                head=one.head, ahead=tuple(a for a in self.position.ahead if a.start >= one.end),
            )  # fmt: skip
        if is_first:
            self.on_landed(self)

    def noted(self) -> FilePosition:
        """Its position with what is known of it now."""
        seen = self.seen
        is_done = self.is_done and not self.flights
        return replace(
            self.position, name=self.position.name if seen.rule < 0 else seen.name, size_bytes=seen.size_bytes,
            mtime_ns=seen.mtime_ns, is_done=is_done,
        )  # fmt: skip

    # --- how it is -----------------------------------------------------------------------------------

    def diagnostics(self) -> DeviceDiagnostics:
        """The file as a device."""
        return DeviceDiagnostics(
            self.name, self.state, self.reason, self.last_good_ns, self.retry_ns, self.n_chunks, self.n_errors
        )
