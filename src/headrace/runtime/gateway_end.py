"""The engine's end of a gateway: its process, and what comes from it on its way to the sink."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.adapters.abilities import Captured, Direction
from headrace.adapters.base import Ack, AdapterDiagnostics, Sink
from headrace.adapters.exec.child import ChildProcess, how_it_ended
from headrace.core.clock import monotonic_ns
from headrace.core.dead_bands import DeadBands
from headrace.core.directory_file import DefinedRows, read_directory
from headrace.core.errors import ConfigError, CorruptionError, NotConnected, Overloaded
from headrace.core.events import Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory
from headrace.ingest.intake_core import credit_of
from headrace.ingest.rejects import decode_rejects
from headrace.runtime.child_life import LastWords
from headrace.runtime.gateway_link import (
    DIAGNOSTICS,
    WANTS_ACK,
    GatewayLink,
    LinkKind,
    LinkMessage,
    error_fields,
    error_of,
)

_KNOWN_S, _STARTED_S = 60.0, 10.0
_GONE = "its gateway process is gone"
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from headrace.runtime.gateway_process import main; main()"
_log = logging.getLogger("headrace.gateway")


@dataclass(eq=False)
class GatewayEnd:
    """The engine's end of one gateway: its link, and how to make an end of it.

    Parameters
    ----------
    pid : of its process. end : lets it go within a moment, however it is; why it ended. kill : ends the process alone:
    what it has sent can still be read.
    """

    link: GatewayLink
    pid: int
    end: Callable[[], Awaitable[str]]
    kill: Callable[[], None]


Spawn = Callable[[], Awaitable[GatewayEnd]]


async def spawn_gateway() -> GatewayEnd:
    """Start a gateway process; it waits to be told what it is. Raises NotConnected."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    level = str(logging.getLogger("headrace").getEffectiveLevel())
    path = [one or os.getcwd() for one in sys.path]
    command = [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), level, *path]
    link = await GatewayLink.over(ours)
    with theirs:
        try:
            child = await ChildProcess.start(command, Path.cwd(), os.environ, (theirs.fileno(),))
        except BaseException as e:
            link.close()
            if not isinstance(e, OSError):
                raise
            await link.closed()
            raise NotConnected(f"its gateway process can't be started: {e.strerror or e}") from e
    words = LastWords()

    async def notice_end() -> None:
        """A process that it has started may have its socket, too; what it has sent can still be read."""
        await child.ended.wait()
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RD)

    listening = [asyncio.create_task(words.hear(one)) for one in (child.stdout, child.stderr)]
    listening.append(asyncio.create_task(notice_end()))

    async def end() -> str:
        link.close()
        try:
            async with asyncio.timeout(0.1):
                await child.ended.wait()
        except TimeoutError:
            pass
        finally:
            code = child.close()
        await link.closed()
        await asyncio.wait(listening, timeout=0.1)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        return how_it_ended(code) + words.text

    return GatewayEnd(link, child.pid, end, child.kill)


class Taking:
    """What comes from one gateway process, on its way to the sink.

    One task reads, so that answers and diagnostics come also while the sink takes nothing; another hands on.

    Parameters
    ----------
    name : of the adapter. reported : told how it is. heard : told of what it has received.
    """

    def __init__(
        self,
        end: GatewayEnd,
        name: str,
        reported: Callable[[AdapterDiagnostics], None],
        heard: Callable[[Captured], None],
    ) -> None:
        self.end, self._name, self._reported, self._heard = end, name, reported, heard
        self.say = end.link.control
        self.sink: Sink | None = None
        self.heard_ns = monotonic_ns()
        self.is_lost = asyncio.Event()
        self._slots = np.empty(0, np.int64)
        self._queue: asyncio.Queue[LinkMessage | None] = asyncio.Queue()
        self._n_open = 0
        self._durable: list[int] = []
        self._calls: dict[int, asyncio.Future[tuple[Any, bytes]]] = {}
        self._n_calls = 0
        self._clash: ConfigError | None = None
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._hand_on())]

    # --- reading -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while (message := await self.end.link.receive()) is not None:
                self.heard_ns = monotonic_ns()
                if message.kind is LinkKind.CONTROL:
                    verb, fields, blob = message.control()
                    getattr(self, f"_on_{verb}")(blob, **fields)
                elif message.kind is LinkKind.DEFINE:
                    self._define(message.payload)
                else:
                    assert self.sink is not None
                    self._n_open += 1
                    self._queue.put_nowait(message)
        except Exception as e:  # what makes no sense: this process can't be used any more
            _log.error("adapter=%s its gateway process sends nonsense: %r", self._name, e)
        self.is_lost.set()
        self._queue.put_nowait(None)
        for future in self._calls.values():
            if not future.done():
                future.set_exception(NotConnected(_GONE))

    def _define(self, payload: memoryview) -> None:
        """Make groups known here too; those that clash get no slot, and their frames are refused."""
        assert self.sink is not None
        for rows in read_directory(payload):
            if rows.first != len(self._slots):
                raise CorruptionError(f"groups from {rows.first} on, expected {len(self._slots)}")
            starts = [
                i for i in range(len(rows.texts)) if not i or _kind_of(rows, i) != _kind_of(rows, i - 1)
            ]
            slots = [self._slots_of(rows, range(a, b)) for a, b in pairwise([*starts, len(rows.texts)])]
            self._slots = np.concatenate([self._slots, *slots])

    def _slots_of(self, rows: DefinedRows, run: range) -> npt.NDArray[np.int64]:
        """Our slots of groups that have one layout and one part; -1 for those that clash with what is known."""
        assert self.sink is not None
        layout, part = rows.layouts[int(rows.layout[run[0]])], rows.parts[run[0]]
        paths = [rows.texts[i].decode() for i in run]
        given = [rows.sensors[run[0]]] if run[0] in rows.sensors else None
        try:
            return self.sink.directory.define_many(paths, layout, part, given).astype(np.int64)
        except ConfigError as e:
            if len(run) > 1:
                return np.concatenate([self._slots_of(rows, range(i, i + 1)) for i in run])
            self._clash = self._clash or e
            return np.array([-1])

    def _on_bands(self, blob: memoryview, slots: list[int], bands: list[Any] | None) -> None:
        assert self.sink is not None
        own = [int(slot) for slot in self._slots[slots] if slot >= 0]
        found = (
            None if bands is None else DeadBands(np.array(bands[0], np.float64), np.array(bands[1]), bands[2])
        )
        self.sink.directory.set_dead_bands(own, found)

    def _on_diagnostics(self, blob: memoryview) -> None:
        self._reported(DIAGNOSTICS.validate_json(bytes(blob)))

    def _on_log(self, blob: memoryview, name: str, level: int, text: str) -> None:
        logging.getLogger(name).log(level, "%s", text)

    def _on_piece(
        self, blob: memoryview, ts_ns: int, source: str, direction: str, about: dict[str, str]
    ) -> None:
        self._heard(Captured(ts_ns, source, bytes(blob), Direction(direction), about))

    def _on_answer(self, blob: memoryview, call: int, value: Any = None, error: Any = None) -> None:
        future = self._calls.get(call)
        if future is None or future.done():
            return
        if error is None:
            future.set_result((value, bytes(blob)))
        else:
            future.set_exception(error_of(error))

    # --- handing on ----------------------------------------------------------------------------------

    async def _hand_on(self) -> None:
        while (message := await self._queue.get()) is not None:
            number, is_held = message.number, False
            try:
                items = self._items(message)
                ack = self._ack_of(number, len(items)) if message.flags & WANTS_ACK else None
                for item in items:
                    assert self.sink is not None
                    if not is_held and not self.sink.has_credit(credit_of(item)):
                        self.say("credit", has_credit=False)
                        is_held = True
                    await (
                        self.sink.emit(item, ack)
                        if isinstance(item, FrameBatch)
                        else self.sink.reject(item, ack)
                    )
            except Exception as e:
                self.say("refused", number=number, error=error_fields(e))
            else:
                self.say("taken", number=number)
            self._n_open -= 1
            if is_held:
                self.say("credit", has_credit=True)

    def _items(self, message: LinkMessage) -> list[FrameBatch | Reject]:
        """What a message holds, with our slots. Raises `CorruptionError`.

        Frames of groups that clash are refused input: what is never taken would be sent again for ever, and all with it.
        """
        if message.kind is LinkKind.REJECT:
            return [*decode_rejects(message.payload)]
        batch = FrameBatch.from_bytes(message.payload)
        slots = self._own_slots(batch)
        if self._clash is None or (slots >= 0).all():
            return [batch.with_(slot=slots.astype(np.uint32))]
        fine, refused = np.flatnonzero(slots >= 0), batch.take(np.flatnonzero(slots < 0))
        n, when_ns = max(1, refused.n_samples), batch.arrival_ns
        reject = Reject(RejectCode.BAD_PATH, self._name, "", str(self._clash), b"", when_ns, n)
        # The reject last: where the frames are not taken all of it comes again, and would be counted twice.
        return [*([batch.take(fine).with_(slot=slots[fine].astype(np.uint32))] if len(fine) else []), reject]

    def with_own_slots(self, batch: FrameBatch) -> FrameBatch:
        """A batch of the gateway as one of ours. Raises `ConfigError`, `CorruptionError`."""
        slots = self._own_slots(batch)
        if self._clash is not None and (slots < 0).any():
            raise self._clash
        return batch.with_(slot=slots.astype(np.uint32))

    def _own_slots(self, batch: FrameBatch) -> npt.NDArray[np.int64]:
        if batch.n_frames and int(batch.slot.max()) >= len(self._slots):
            raise CorruptionError(f"frames of group {int(batch.slot.max())}, which was never told")
        return self._slots[batch.slot]

    def _ack_of(self, number: int, n_parts: int) -> Ack:
        left = iter(range(n_parts - 1, -1, -1))

        def ack() -> None:
            if next(left):
                return
            if not self._durable:
                asyncio.get_running_loop().call_soon(self._tell_durable)
            self._durable.append(number)

        return ack

    def _tell_durable(self) -> None:
        numbers, self._durable = self._durable, []
        self.say("durable", numbers=numbers)

    # --- asking --------------------------------------------------------------------------------------

    async def call(
        self, method: str, argument: Any = None, blob: bytes = b"", timeout_s: float | None = None
    ) -> tuple[Any, bytes]:
        """Have something done there; what comes of it.

        Raises
        ------
        NotConnected : it has ended, or does not answer in time. Overloaded : it does not read. HeadraceError : what went
        wrong there.
        """
        if self.is_lost.is_set():
            raise NotConnected(_GONE)
        if self.end.link.is_full:
            raise Overloaded("its gateway process reads nothing now", 1.0)
        number = self._n_calls = self._n_calls + 1
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        self.say("call", blob, call=number, method=method, argument=argument)
        try:
            async with asyncio.timeout(timeout_s):
                found: tuple[Any, bytes] = await future
        except TimeoutError:
            raise NotConnected(
                f"its gateway process has not answered {method!r} after {timeout_s:g} s"
            ) from None
        finally:
            del self._calls[number]
        return found

    async def know(self, directory: SensorDirectory) -> None:
        """Tell it the plant's groups, those that it was not told yet. Raises NotConnected.

        Cost: 3 s for a million lone sensors, most of it in the gateway; so it is done while the old instance still runs.
        """
        n_known = len(self._slots)
        if directory.n_slots > n_known:
            data = await asyncio.to_thread(directory.to_bytes, n_known)
            n_slots, _ = await self.call("know", None, data, _KNOWN_S)
            self._slots = np.arange(n_slots)

    async def begin(self, sink: Sink) -> None:
        """Let the adapter start: its groups are known here then. Raises ConfigError, NotConnected."""
        self.sink = sink
        await self.know(sink.directory)  # what has come since; the old instance may have defined some
        await self.call("start", timeout_s=_STARTED_S)
        if self._clash is not None:
            raise self._clash

    async def drained(self, timeout_s: float | None = None) -> int:
        """Wait until all that came is handed on, for ever by default; how many batches could not be in time."""
        self._queue.put_nowait(None)
        await asyncio.wait(self._tasks[1:], timeout=timeout_s)
        return self._n_open

    async def close(self) -> str:
        """Let go of the process; why it ended."""
        why = await self.end.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return why


def _kind_of(rows: DefinedRows, i: int) -> tuple[int, str, int]:
    """The same for groups that are defined in one go: those with ids of their own are none."""
    return int(rows.layout[i]), rows.parts[i], i if i in rows.sensors else -1
