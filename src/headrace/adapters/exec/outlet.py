"""What a program writes → batches and rejects, by its format; one instance for each time it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from headrace.adapters.exec.arrow_messages import ArrowMessages, BrokenStream
from headrace.adapters.payloads.base import Decoded, PayloadError
from headrace.adapters.payloads.chunks import (
    ChunkDecoder,
    LineChunk,
    LineFormats,
    cut_line_protocol,
    cut_lines,
    device_path,
)
from headrace.adapters.payloads.line_rules import LinePaths, LineRule
from headrace.adapters.payloads.tables import TableColumns, TableReader
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode

LINE_BYTES_MAX = 1 << 20
SOURCE = "stdout"
_TIME = "ts"


class BadOutput(Exception):
    """What a program writes can't be read any further: it has to begin anew."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.detail)
        self.reject = reject


class Outlet(Protocol):
    """Takes bytes as they come."""

    def feed(self, data: bytes, arrival_ns: int) -> Iterator[Decoded]:
        """What has become whole. Raises BadOutput."""
        ...

    @property
    def context(self) -> bytes:
        """What another outlet must be fed to go on here: what names the columns, and what is not whole yet."""
        ...

    def finish(self, arrival_ns: int, is_clean: bool) -> Iterator[Decoded]:
        """What is left at the end; not `is_clean`: the program was ended while it wrote. Raises BadOutput."""
        ...


def open_outlet(formats: LineFormats, rule: LineRule, paths: LinePaths, kind: str) -> Outlet:
    """The outlet of one run of a program. Raises PayloadError: its path can't name a device."""
    if kind == "arrow":
        return TableOutlet(formats, rule, paths)
    cut = cut_line_protocol if kind == "lines" else cut_lines
    return LineOutlet(formats.origin, line_decoder(formats, rule, paths, kind), cut)


def line_decoder(formats: LineFormats, rule: LineRule, paths: LinePaths, kind: str) -> ChunkDecoder:
    """The decoder of what is written in lines. Raises as `open_outlet`."""
    if kind == "lines":
        return formats.lines(rule, paths)
    return (formats.csv if kind == "csv" else formats.json)(rule, paths, {})


class LineOutlet:
    """Lines of text.

    Parameters
    ----------
    origin : the adapter's name. cut : finds whole lines.
    """

    def __init__(self, origin: str, decoder: ChunkDecoder, cut: Callable[[bytes], int]) -> None:
        self._origin, self._decoder, self._cut = origin, decoder, cut
        self._rest = b""
        self._number = 1
        self._is_skipping = False

    def feed(self, data: bytes, arrival_ns: int) -> Iterator[Decoded]:
        if self._is_skipping:
            end = data.find(b"\n") + 1
            if not end:
                return
            data, self._is_skipping = data[end:], False
            self._number += 1
        data = self._rest + data
        end = self._cut(data)
        self._rest = data[end:]
        if end:
            yield self._decode(data[:end], arrival_ns)
        if len(self._rest) > LINE_BYTES_MAX:
            detail = f"a line of more than {LINE_BYTES_MAX:,} bytes; write shorter ones"
            yield Decoded([], [self._refuse(RejectCode.TOO_LARGE, detail, arrival_ns)])
            self._rest, self._is_skipping = b"", True

    @property
    def context(self) -> bytes:
        return self._decoder.head + self._rest

    def finish(self, arrival_ns: int, is_clean: bool) -> Iterator[Decoded]:
        rest, self._rest = self._rest, self._rest[:0]
        if not rest:
            return
        if is_clean:
            yield self._decode(rest, arrival_ns)
            return
        self._rest = rest
        detail = "the program was ended in the middle of this line; write whole lines at once"
        yield Decoded([], [self._refuse(RejectCode.MALFORMED, detail, arrival_ns)])
        self._rest = b""

    def _decode(self, data: bytes, arrival_ns: int) -> Decoded:
        chunk = LineChunk(SOURCE, data, self._number, arrival_ns)
        try:
            decoded = self._decoder.decode(chunk)
        except PayloadError as e:
            source = f"{SOURCE}:{self._number}"
            n_lines = max(1, data.count(b"\n"))
            raise BadOutput(
                Reject(e.code, self._origin, source, e.detail, data[:MAX_RAW_BYTES], arrival_ns, n_lines)
            ) from e
        self._number += data.count(b"\n")
        return decoded

    def _refuse(self, code: RejectCode, detail: str, arrival_ns: int) -> Reject:
        raw = self._rest[:MAX_RAW_BYTES]
        return Reject(code, self._origin, f"{SOURCE}:{self._number}", detail, raw, arrival_ns)


class TableOutlet:
    """An Arrow IPC stream."""

    def __init__(self, formats: LineFormats, rule: LineRule, paths: LinePaths) -> None:
        columns = TableColumns(rule.time or _TIME, rule.value, device_path(paths, {}), rule.only)
        self._origin = formats.origin
        self._reader = TableReader(
            formats.origin, formats.groups, formats.times(rule), columns, rule.settings
        )
        self._messages = ArrowMessages()
        self._number = 0

    def feed(self, data: bytes, arrival_ns: int) -> Iterator[Decoded]:
        try:
            for table in self._messages.feed(data):
                self._number += 1
                yield self._read(table, arrival_ns)
        except BrokenStream as e:
            raise self._broken(str(e), arrival_ns) from e

    def _read(self, table: object, arrival_ns: int) -> Decoded:
        source = f"{SOURCE} batch {self._number}"
        try:
            batches, rejects = self._reader.read(table, source)
        except PayloadError as e:
            detail = f"{e.detail}; set time, value and path"
            reject = Reject(
                e.code, self._origin, source, detail, arrival_ns=arrival_ns, n_samples=e.n_samples
            )
            return Decoded([], [reject])
        return Decoded(batches, [replace(reject, arrival_ns=arrival_ns) for reject in rejects])

    @property
    def context(self) -> bytes:
        return self._messages.context

    def finish(self, arrival_ns: int, is_clean: bool) -> Iterator[Decoded]:
        if self._messages.rest_bytes:
            raise self._broken(
                f"it ends {self._messages.rest_bytes:,} bytes after a whole message", arrival_ns
            )
        yield from ()

    def _broken(self, detail: str, arrival_ns: int) -> BadOutput:
        source = f"{SOURCE} batch {self._number + 1}"
        return BadOutput(Reject(RejectCode.MALFORMED, self._origin, source, detail, arrival_ns=arrival_ns))
