"""Reading followed files, a chunk at a time, and handing on what is in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import AdapterState, Sink
from headrace.adapters.files.folder import (
    LINE_BYTES_MAX,
    FileReplaced,
    ParquetSource,
    ReadingFailed,
    ReadLines,
    open_lines,
    read_head,
)
from headrace.adapters.files.followed import Flight, FollowedFile
from headrace.adapters.files.positions import Ahead, FilePosition, Positions, head_hash
from headrace.adapters.files.probe import line_decoder, table_bytes, table_reader
from headrace.adapters.meters import reason_of
from headrace.adapters.payloads.base import Decoded, PayloadError
from headrace.adapters.payloads.chunks import (
    LineChunk,
    LineFormats,
    cut_line_protocol,
    cut_lines,
    is_dated_by_us,
)
from headrace.core.clock import NO_TIME, thread_cpu_ns
from headrace.core.errors import PluginError, StorageError
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch

NAMES_BYTES_MAX = 64 << 10
_LF = 10
_log = logging.getLogger("headrace.adapters.files")
T = TypeVar("T")


def _n_breaks(data: bytes) -> int:
    """Number of line breaks; six times as fast as ``bytes.count`` where lines are short."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LF))


class SinkRefused(Exception):
    """The sink takes nothing at present; what it did not take is read again."""


@dataclass(slots=True)
class ReadCounts:
    """What was read and handed on since the start."""

    n_samples: int = 0
    n_bytes: int = 0
    n_frames: int = 0
    n_rejects: int = 0
    transport_ns: int = 0
    decode_ns: int = 0
    last_good_ns: int = NO_TIME


class FileReader:
    """Reads files of one adapter instance.

    Parameters
    ----------
    root : the watched folder. is_final : whether a file is finished, so that its last line needs no line break.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        sink: Sink,
        formats: LineFormats,
        positions: Positions,
        is_final: Callable[[FollowedFile], bool],
    ) -> None:
        self.counts = ReadCounts()
        self.note_problem = ""
        self.listener: Listener | None = None
        self._name, self._root, self._sink = name, root, sink
        self._formats, self._positions, self._is_final = formats, positions, is_final
        self._threads = ThreadPoolExecutor(1, f"files {name}")
        self._next_arrival_ns = NO_TIME
        self._dirty: dict[FollowedFile, None] = {}
        self.is_dirty = asyncio.Event()

    # --- the thread that may block -------------------------------------------------------------------

    async def block(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run something that may block, after everything that was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments))

    def end(self) -> None:
        """Let go of the thread, which ends what it is at."""
        self._threads.submit(self._positions.close)
        self._threads.shutdown(wait=False)

    def touch(self, file: FollowedFile) -> None:
        """Its position is to be noted."""
        self._dirty[file] = None
        self.is_dirty.set()

    def is_noted(self, file: FollowedFile) -> bool:
        """Whether all of a finished file is durable and noted."""
        known = self._positions.get(file.seen.key)
        return file.is_done and file not in self._dirty and known is not None and known.is_done

    async def note(self) -> None:
        """Note how far files are durable. Never raises: what can't be noted is read again some day."""
        self.is_dirty.clear()
        files, self._dirty = list(self._dirty), {}
        if files and not await self._keep([file.noted() for file in files]):
            self._dirty = {**dict.fromkeys(files), **self._dirty}

    async def _keep(self, positions: Sequence[FilePosition]) -> bool:
        problem = await self.block(self._try_to_keep, positions, self._sink.clock.now_ns())
        if problem and not self.note_problem:
            _log.warning("adapter=%s: %s; what was read is read again after a restart", self._name, problem)
        elif self.note_problem and not problem:
            _log.info("adapter=%s: how far files were read is kept again", self._name)
        self.note_problem = f"how far files were read can't be kept: {problem}" if problem else ""
        return not problem

    def _try_to_keep(self, positions: Sequence[FilePosition], now_ns: int) -> str:
        try:
            self._positions.note(positions, now_ns)
        except StorageError as e:
            return str(e)
        return ""

    # --- one turn of one file ------------------------------------------------------------------------

    async def turn(self, file: FollowedFile) -> bool:
        """Read a file's next part and hand it on; whether there may be more at once.

        Raises
        ------
        SinkRefused : it was read and not taken.
        """
        try:
            is_more = await (self._turn_table(file) if file.format == "parquet" else self._turn_lines(file))
        except FileReplaced:
            _log.info(
                "adapter=%s: %s was replaced or cut; it is read from its beginning", self._name, file.name
            )
            file.restart()
            return True
        except FileNotFoundError:
            file.close()
            return False  # the next look says what became of it
        except ReadingFailed as e:
            await self._give_up(file, file.begin(None, 0, 0), str(e))
            return False
        except OSError as e:
            self._trouble(file, AdapterState.BACKOFF, reason_of(e))
            return False
        except PayloadError as e:
            self._trouble(file, AdapterState.FAILED, e.detail)
            return False
        self._fine(file)
        return is_more

    def _trouble(self, file: FollowedFile, state: AdapterState, reason: str) -> None:
        """A file can't be read now; it is tried again later, and delays no other."""
        if not file.reason:
            _log.warning("adapter=%s: %s can't be read: %s; trying again", self._name, file.name, reason)
        file.state, file.reason = state, reason
        file.n_errors += 1
        file.retry_ns = self._sink.clock.now_ns() + file.backoff.next_ns()
        file.close()

    def _fine(self, file: FollowedFile) -> None:
        if file.reason:
            _log.info("adapter=%s: %s is read again", self._name, file.name)
        file.state, file.reason, file.retry_ns = AdapterState.CONNECTED, "", NO_TIME
        file.backoff.reset()

    async def _give_up(self, file: FollowedFile, flight: Flight, detail: str) -> None:
        """A file that is not what its name says: a reject as the flight's last piece, and done until it changes."""
        advice = "write it anew, in whole, under another name first"
        reject = Reject(RejectCode.MALFORMED, self._name, file.name, f"{detail}; {advice}")
        await self._hand_on(file, flight, Decoded([], [reject]))
        file.n_errors += 1
        self._finish(file)

    def _finish(self, file: FollowedFile) -> None:
        """Nothing is left of a file as it is now."""
        file.is_drained = file.is_done = True
        file.close()
        self.touch(file)

    # --- lines ---------------------------------------------------------------------------------------

    async def _turn_lines(self, file: FollowedFile) -> bool:
        if file.is_skipping:
            return await self._skip(file)
        await self._open_lines(file)
        ahead = file.ahead()
        cut = cut_line_protocol if file.format == "lines" else cut_lines
        read = await self._read(file, file.end_of_next() if ahead is None else ahead.end, cut)
        if not read.data and read.rest_bytes >= LINE_BYTES_MAX:
            return await self._refuse_long(file)
        if not read.data and self._is_final(file):
            read = await self._read(file, None, None)
            if not read.data:
                self._finish(file)
        if not read.data:
            file.is_drained = True
            return False
        await self._take(file, read, ahead)
        return True

    async def _open_lines(self, file: FollowedFile) -> None:
        path, rule = self._root / file.name, file.rule
        if file.source is None:
            file.source = open_lines(path, file.seen.key)
        if file.decoder is not None:
            return
        decoder = line_decoder(self._formats, rule, file.format, self._names(file))
        if file.read_at:
            decoder.learn(await self.block(read_head, path, NAMES_BYTES_MAX))
        file.decoder = decoder

    async def _read(
        self, file: FollowedFile, end: int | None, cut: Callable[[bytes], int] | None
    ) -> ReadLines:
        assert file.source is not None
        read = await self.block(file.source.read, file.position, file.read_at, end, cut)
        self.counts.n_bytes += len(read.data)
        return read

    async def _take(self, file: FollowedFile, read: ReadLines, ahead: Ahead | None) -> None:
        assert file.decoder is not None
        n_lines = _n_breaks(read.data) + (not read.data.endswith(b"\n"))
        arrival_ns = self._arrival(n_lines) if ahead is None else ahead.arrival_ns
        chunk = LineChunk(file.name, read.data, file.line, arrival_ns)
        if self.listener is not None:
            about = {"line": str(file.line), "head": file.decoder.head.decode("latin-1")}
            about = {key: text for key, text in about.items() if text}
            self.listener(Captured(arrival_ns, self._named(file), read.data, about=about))
        cpu_ns = thread_cpu_ns()
        try:
            decoded = file.decoder.decode(chunk)
        except PayloadError:
            raise
        except Exception as e:
            _log.exception("adapter=%s: the decoder of %s failed", self._name, file.name)
            raw = read.data[:MAX_RAW_BYTES]
            source, detail = f"{file.name}:{file.line}", f"decoder failed: {e!r}"
            reject = Reject(RejectCode.INTERNAL, self._name, source, detail, raw, arrival_ns, n_lines)
            decoded = Decoded([], [reject])
        self.counts.decode_ns += thread_cpu_ns() - cpu_ns
        start = file.read_at
        if ahead is None and is_dated_by_us(decoded, chunk, n_lines):
            await self._keep([file.keep_ahead(Ahead(start, start + len(read.data), arrival_ns))])
        flight = file.begin(read, len(read.data), n_lines)
        await self._hand_on(file, flight, decoded)

    def _arrival(self, n_lines: int) -> int:
        """The present, later than that of every line before."""
        arrival_ns = max(self._sink.clock.now_ns(), self._next_arrival_ns)
        self._next_arrival_ns = arrival_ns + n_lines
        return arrival_ns

    async def _refuse_long(self, file: FollowedFile) -> bool:
        """Refuse the line that begins here, and look for its end."""
        read = await self._read(file, file.read_at + LINE_BYTES_MAX, None)
        detail = f"a line of more than {LINE_BYTES_MAX:,} bytes; write shorter ones"
        raw = read.data[:MAX_RAW_BYTES]
        reject = Reject(RejectCode.TOO_LARGE, self._name, f"{file.name}:{file.line}", detail, raw)
        flight = file.begin(read, len(read.data), 0, is_skipping=True)
        await self._hand_on(file, flight, Decoded([], [reject]))
        return True

    async def _skip(self, file: FollowedFile) -> bool:
        """Look for the end of a line that was refused."""
        if file.source is None:
            file.source = open_lines(self._root / file.name, file.seen.key)
        read = await self._read(file, None, lambda data: data.find(b"\n") + 1 or len(data))
        is_over = read.data.endswith(b"\n")
        flight = file.begin(read, len(read.data), int(is_over), is_skipping=not is_over)
        file.landed(flight)
        if read.data:
            return True
        file.is_drained = True
        if self._is_final(file):
            self._finish(file)
        return False

    # --- tables --------------------------------------------------------------------------------------

    async def _turn_table(self, file: FollowedFile) -> bool:
        if file.parquet is None:
            file.parquet = await self.block(ParquetSource, self._root / file.name, file.seen.key)
            if not file.position.is_of(file.parquet.head):
                raise FileReplaced
            file.tables = table_reader(self._formats, file.rule, self._names(file))
        parquet = file.parquet
        if file.read_at >= parquet.n_groups:
            self._finish(file)
            return False
        group = file.read_at
        head = ReadLines(b"", 0, len(parquet.head), head_hash(parquet.head))
        flight = file.begin(head, 1, 0)
        try:
            await self._read_group(file, flight, group, parquet.read(group))
        except ReadingFailed as e:
            await self._give_up(file, flight, str(e))
            return False
        file.landed(flight)
        return True

    async def _read_group(
        self, file: FollowedFile, flight: Flight, group: int, batches: Iterator[Any]
    ) -> None:
        """Hand on a row group, a batch at a time; the flight stays open. Raises ReadingFailed."""
        n_rows = 0
        while (table := await self.block(next, batches, None)) is not None:
            part = f"{group + 1}.{n_rows + 1}"
            if self.listener is not None:
                await self._tell(self.listener, file, table, part)
            cpu_ns = thread_cpu_ns()
            try:
                decoded = Decoded(*file.tables.read(table, f"{file.name}:{part}"))
            except PayloadError as e:
                detail = f"{e.detail}; set time, value and path of its rule"
                reject = Reject(e.code, self._name, file.name, detail, n_samples=e.n_samples)
                decoded = Decoded([], [reject])
            self.counts.decode_ns += thread_cpu_ns() - cpu_ns
            n_rows += table.num_rows
            self.counts.n_bytes += table.nbytes
            flight.n_open += 1
            await self._hand_on(file, flight, decoded)

    async def _tell(self, listener: Listener, file: FollowedFile, table: Any, part: str) -> None:
        """Tell a listener of a part of a table: where it begins, and its rows as an Arrow stream."""
        data = await self.block(table_bytes, table)
        listener(Captured(self._sink.clock.now_ns(), self._named(file), data, about={"part": part}))

    def _names(self, file: FollowedFile) -> dict[str, str]:
        """What the name says that a file has, or had when it was seen first."""
        return file.rule.pattern.match(self._named(file)) or {}

    def _named(self, file: FollowedFile) -> str:
        """The name that the rule is for."""
        return file.name if file.rule.pattern.match(file.name) is not None else file.position.name

    # --- to the sink ---------------------------------------------------------------------------------

    async def _hand_on(self, file: FollowedFile, flight: Flight, decoded: Decoded) -> None:
        """Hand on a part of a file; the flight's own piece lands with it."""
        rejects = list(decoded.rejects)
        try:
            for batch in decoded.batches:
                await self._emit(file, flight, batch, rejects)
            for reject in rejects:
                if not reject.arrival_ns:
                    reject = replace(reject, arrival_ns=self._sink.clock.now_ns())
                await self._sink.reject(reject, file.opened(flight))
                self.counts.n_rejects += 1
        except Exception as e:
            file.rewind()
            raise SinkRefused(str(e) or repr(e)) from e
        file.n_chunks += 1
        file.landed(flight)

    async def _emit(
        self, file: FollowedFile, flight: Flight, batch: FrameBatch, rejects: list[Reject]
    ) -> None:
        if not batch.n_frames:
            return
        ack = file.opened(flight)
        try:
            await self._sink.emit(
                batch.with_(sequence=self.counts.n_frames, arrival_ns=self._sink.clock.now_ns()), ack
            )
        except (
            PluginError
        ) as e:  # a defect of ours, for ever: kept as a reject, or it would come again and again
            raw = batch.to_bytes()[:MAX_RAW_BYTES]
            detail = f"its frames were refused: {e}"
            rejects.append(
                Reject(RejectCode.INTERNAL, self._name, file.name, detail, raw, n_samples=batch.n_samples)
            )
            ack()
            return
        self.counts.n_frames += batch.n_frames
        self.counts.n_samples += batch.n_samples
        self.counts.last_good_ns = file.last_good_ns = self._sink.clock.now_ns()
