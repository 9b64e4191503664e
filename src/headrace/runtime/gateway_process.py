"""A gateway: a process with one adapter, started by the engine and ended with it.

The adapter meets here what it meets in the engine: a directory, a clock, a sink with credit. Groups that it defines are
told before their first frame; a batch counts as taken when the engine has taken it, and is acknowledged when it is
durable there. Imports are fresh: that is what such a process is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headrace.adapters.abilities import Captured, Captures, Suspends, Warms
from headrace.adapters.base import Ack, Adapter, AdapterDiagnostics, AdapterState, Pushed
from headrace.adapters.registry import ADAPTERS
from headrace.core.clock import NS, Clock, ScaledClock, SystemClock, monotonic_ns
from headrace.core.config import PlantConfig, parse_plant
from headrace.core.dead_bands import DeadBands
from headrace.core.disk import Buffer
from headrace.core.errors import Closed, ConfigError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.layouts import Column, Layout
from headrace.core.sensors import SensorDirectory
from headrace.ingest.credits import Credits
from headrace.ingest.intake_core import credit_of
from headrace.ingest.rejects import decode_rejects, encode_rejects
from headrace.runtime.adapter_making import make_adapter
from headrace.runtime.arrow_start import start_arrow
from headrace.runtime.child_life import end_with_parent
from headrace.runtime.gateway_link import (
    ALIVE_S,
    DIAGNOSTICS,
    RECEIPT,
    TAGS,
    WANTS_ACK,
    GatewayLink,
    LinkKind,
    abilities_of,
    error_fields,
    error_of,
)
from headrace.runtime.plugin_code import ImportedCode
from headrace.runtime.tail_format import tail_parts

REPORT_S = 0.5
_REPORT_SHARE = 0.02
_GRACE_S = 3.0
_STOP_S = 2.0
WINDOW = 200_000
"""Samples that a gateway may have sent and the intake not taken."""
_TO_ADAPTER = ("listen", "suspend")
Make = Callable[[PlantConfig, str], Adapter]
Answer = tuple[Any, bytes]
_log = logging.getLogger("headrace.gateway")


class _ToldDirectory(SensorDirectory):
    """Keeps in mind which dead bands the engine has not been told."""

    def __init__(self) -> None:
        super().__init__()
        self.untold: list[tuple[list[int], DeadBands | None]] = []

    def set_dead_bands(self, slots: Iterable[int], bands: DeadBands | None) -> None:
        told = list(slots)
        super().set_dead_bands(told, bands)
        self.untold.append((told, bands))


class LinkSink:
    """The sink of an adapter in a gateway: whatever is handed on goes to the engine's.

    `emit` returns once the engine has taken the batch, or raises what it says: so nothing is lost between the two that the
    adapter does not hear of. At most `WINDOW` samples are on their way at a time, as one adapter may have several tasks
    that emit.
    """

    def __init__(self, link: GatewayLink) -> None:
        self.directory = _ToldDirectory()
        self.clock: Clock = SystemClock()
        self._link = link
        self._credits = Credits(WINDOW)
        self._n_told = 0
        self._number = 0
        self._words: dict[int, tuple[asyncio.Future[None], int]] = {}
        self._acks: dict[int, Ack] = {}
        self._has_engine_credit = True
        self._end: Exception | None = None

    def know(self, definitions: memoryview) -> int:
        """Take over groups of the engine's directory, which need not be told; how many slots are known now."""
        self.directory.apply_bytes(definitions)
        self._n_told = self.directory.n_slots
        return self._n_told

    # --- the sink ------------------------------------------------------------------------------------

    async def emit(self, batch: FrameBatch, ack: Ack | None = None) -> None:
        """Take a batch; waits for credit."""
        await self._hand_on(LinkKind.FRAMES, credit_of(batch), batch.to_buffers(), ack)

    async def reject(self, reject: Reject, ack: Ack | None = None) -> None:
        """Take refused input."""
        await self._hand_on(LinkKind.REJECT, credit_of(reject), [encode_rejects([reject])], ack)

    def has_credit(self, n_samples: int) -> bool:
        """Whether `n_samples` more would be taken without waiting, as far as is known here."""
        return self._end is None and self._has_engine_credit and self._credits.has(n_samples)

    async def _hand_on(self, kind: LinkKind, credit: int, parts: Iterable[Buffer], ack: Ack | None) -> None:
        self._check()
        await self._credits.acquire(credit)
        self._check()
        self.tell()
        number = self._number = self._number + 1
        word = asyncio.get_running_loop().create_future()
        self._words[number] = word, credit
        if ack is not None:
            self._acks[number] = ack
        self._link.send(kind, parts, number, 0 if ack is None else WANTS_ACK)
        await word  # should the adapter wait no more, the batch may be taken all the same: its ack decides

    def _check(self) -> None:
        if self._end is not None:
            raise self._end

    def tell(self) -> None:
        """Tell the engine of groups and dead bands that are new."""
        directory = self.directory
        if directory.n_slots > self._n_told:
            self._link.send(LinkKind.DEFINE, [directory.to_bytes(self._n_told)])
            self._n_told = directory.n_slots
        for slots, bands in directory.untold:
            fields = (
                None if bands is None else [bands.change.tolist(), bands.heartbeat_ns.tolist(), bands.origin]
            )
            self._link.control("bands", slots=slots, bands=fields)
        directory.untold.clear()

    # --- the engine's word ---------------------------------------------------------------------------

    def taken(self, number: int) -> None:
        """One is taken."""
        word, credit = self._words.pop(number)
        self._credits.give(credit)
        if not word.done():
            word.set_result(None)

    def refused(self, number: int, error: dict[str, Any]) -> None:
        """One is not taken, and will not be."""
        self._acks.pop(number, None)
        word, credit = self._words.pop(number)
        self._credits.give(credit)
        if not word.done():
            word.set_exception(error_of(error))

    def credit(self, has_credit: bool) -> None:
        """Whether the engine would take more without waiting."""
        self._has_engine_credit = has_credit

    def durable(self, numbers: Iterable[int]) -> None:
        """These are durable: their sources may be told."""
        for number in numbers:
            ack = self._acks.pop(number, None)
            if ack is not None:
                try:
                    ack()
                except Exception:  # one source's defect must not keep the others waiting
                    _log.exception("an acknowledgement failed")

    def close(self) -> None:
        """The engine is gone: nothing is taken or acknowledged any more."""
        self._end = Closed("the engine is gone")
        self._acks.clear()
        self._credits.fail(self._end)
        for word, _ in self._words.values():
            if not word.done():
                word.set_exception(self._end)


class GatewayService:
    """One adapter at the far end of a link.

    Parameters
    ----------
    make : as `make_adapter`. report_s : how often diagnostics are sent.
    """

    def __init__(self, link: GatewayLink, make: Make = make_adapter, report_s: float = REPORT_S) -> None:
        self._link, self._make, self._report_s = link, make, report_s
        self._name = ""
        self._adapter: Any = None
        self._sink = LinkSink(link)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = AdapterDiagnostics("", "", AdapterState.STARTING)
        self._is_mute = False

    async def run(self) -> None:
        """Do as the engine says until it is gone, then end the adapter."""
        while (message := await self._link.receive()) is not None:
            verb, fields, blob = message.control()
            if verb == "call":
                self._begin(self._answer(blob, **fields))
            elif verb in _TO_ADAPTER:
                getattr(self, f"_{verb}")(**fields)
            else:
                getattr(self._sink, verb)(**fields)
        self._sink.close()
        with contextlib.suppress(Exception):  # nobody is left who could be told
            if self._adapter is not None:
                async with asyncio.timeout(_STOP_S):
                    await self._adapter.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._link.close()
        await self._link.closed()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, blob: memoryview, call: int, method: str, argument: Any) -> None:
        try:
            value, data = await getattr(self, f"_call_{method}")(argument, blob)
            self._link.control("answer", data, call=call, value=value)
        except Exception as e:
            self._link.control("answer", call=call, error=error_fields(e))

    # --- life ----------------------------------------------------------------------------------------

    async def _call_open(self, given: dict[str, Any], blob: memoryview) -> Answer:
        """Import, check and warm: whatever takes its time, and before anything is let go of."""
        if given["version"] != (now := version("headrace")):
            raise ConfigError(
                f"Headrace itself has changed on the disk, from {given['version']} to {now}: restart the plant"
            )
        self._name = given["name"]
        config = _config_of(given["config"])
        self._told = AdapterDiagnostics(
            self._name, config.adapters[self._name].protocol, AdapterState.STARTING
        )
        self._adapter = await asyncio.to_thread(self._made, config)
        self._sink.clock = _clock_of(given["clock"])
        code = ImportedCode.of(ADAPTERS, config.adapters[self._name].protocol)
        assert code is not None
        return {"abilities": abilities_of(self._adapter), "target": code.target, "files": code.files}, b""

    def _made(self, config: PlantConfig) -> Adapter:
        adapter = self._make(config, self._name)
        kind = type(adapter)
        if issubclass(kind, Warms):
            kind.warm()
        warm_link()
        return adapter

    async def _call_know(self, argument: None, blob: memoryview) -> Answer:
        return self._sink.know(blob), b""

    async def _call_start(self, argument: None, blob: memoryview) -> Answer:
        await self._adapter.start(self._sink)
        self._sink.tell()
        self._report()
        self._begin(self._keep_reporting())
        return None, b""

    async def _call_stop(self, argument: None, blob: memoryview) -> Answer:
        try:
            await self._adapter.stop()
        finally:
            self._sink.tell()
            self._report()
        return None, b""

    # --- looking -------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Say how the adapter is. One that can't tell may work all the same; the engine hears why, and the log once."""
        try:
            found = self._adapter.diagnostics()
            text = DIAGNOSTICS.dump_json(found)
            self._told, self._is_mute = found, False
        except Exception as e:
            if not self._is_mute:
                _log.exception("adapter=%s can't tell how it is", self._name)
            self._is_mute = True
            why = f"it can't tell how it is: {type(e).__name__}: {e}"
            text = DIAGNOSTICS.dump_json(replace(self._told, state=AdapterState.DEGRADED, reason=why))
        self._link.control("diagnostics", text)

    async def _keep_reporting(self) -> None:
        """Often at first, for people who wait for it, and seldom where many devices make it dear."""
        wait_s = self._report_s / 16
        while True:
            begun_ns = monotonic_ns()
            self._report()
            self._sink.tell()
            took_s = (monotonic_ns() - begun_ns) / NS
            wait_s = min(2 * wait_s, self._report_s)
            await SystemClock().sleep(max(wait_s, min(took_s / _REPORT_SHARE, ALIVE_S)))

    def _listen(self, is_on: bool) -> None:
        if isinstance(self._adapter, Captures):
            self._adapter.listen(self._heard if is_on else None)

    def _heard(self, one: Captured) -> None:
        self._link.control(
            "piece", one.data, ts_ns=one.ts_ns, source=one.source, direction=one.direction, about=dict(one.about)
        )  # fmt: skip

    # --- abilities -----------------------------------------------------------------------------------

    def _suspend(self, is_on: bool) -> None:
        if isinstance(self._adapter, Suspends):
            (self._adapter.suspend if is_on else self._adapter.proceed)()

    async def _call_probe(self, wanted: dict[str, str], blob: memoryview) -> Answer:
        return await self._adapter.probe(wanted, self._sink.clock), b""

    async def _call_scan(self, wanted: dict[str, str], blob: memoryview) -> Answer:
        found = await self._adapter.scan(wanted, self._sink.clock)
        return TAGS.dump_python(list(found), mode="json"), b""

    async def _call_receive(self, about: dict[str, Any], blob: memoryview) -> Answer:
        receipt = await self._adapter.receive(Pushed(body=bytes(blob), **about))
        return RECEIPT.dump_python(receipt, mode="json"), b""

    async def _call_retag(self, given: dict[str, Any], blob: memoryview) -> Answer:
        new: Any = await asyncio.to_thread(self._make, _config_of(given), self._name)
        # Of another class is one whose signals have rules, where this one's have none, or the other way round.
        found = type(new) is type(self._adapter) and await self._adapter.retag(new)
        self._sink.tell()
        return found, b""

    async def _call_redecode(self, argument: None, blob: memoryview) -> Answer:
        (reject,) = decode_rejects(blob)
        batches, refused = self._adapter.redecode(reject, self._sink.directory)
        self._sink.tell()
        return [one.to_dict() for one in refused], b"".join(tail_parts(batches))


def warm_link() -> None:
    """Load what the first large batch, and the first group, would wait for."""
    directory = SensorDirectory()
    start_arrow()
    slots = directory.define_many([f"warm/{i}" for i in range(600)], Layout("f64", (Column("a"),)))
    FrameBatch.dense(slots, np.arange(600), np.zeros((600, 1))).to_bytes()
    directory.to_bytes()


def _config_of(given: dict[str, Any]) -> PlantConfig:
    return parse_plant(given["written"], Path(given["folder"])).with_tables(given["tables"])


def _clock_of(given: dict[str, Any]) -> Clock:
    """The plant's clock, as the engine has it."""
    if given["speed"] == 1.0:
        return SystemClock()
    passed_ns = SystemClock().now_ns() - given["wall_ns"]
    return ScaledClock(given["speed"], given["plant_ns"] + round(passed_ns * given["speed"]))


# --- the process -----------------------------------------------------------------------------------


class _LinkedLog(logging.Handler):
    """Hands log lines to the engine, which has one log."""

    def __init__(self, link: GatewayLink, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._link, self._loop = link, loop

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._send, record.name, record.levelno, self.format(record))

    def _send(self, name: str, level: int, text: str) -> None:
        self._link.control("log", name=name, level=level, text=text)


def log_to(handler: logging.Handler, level: int) -> None:
    """Have our own lines from `level` on handed to `handler`, and warnings of libraries, as in the engine."""
    logging.getLogger().addHandler(handler)
    logging.getLogger("headrace").setLevel(level)


async def _serve(fd: int, level: int) -> None:
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    link = await GatewayLink.over(sock)
    log_to(_LinkedLog(link, asyncio.get_running_loop()), level)
    await GatewayService(link).run()


def main() -> None:
    """Serve on the socket whose number is the first argument; the second is the level of the log."""
    # They are for the engine, which ends its gateways once they have handed on what they have; but systemd tells all
    # processes of a service. Handlers, because what is ignored would be so in programs that an adapter starts, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    end_with_parent(_GRACE_S)
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
    sys.stderr.flush()
    os._exit(0)  # threads of libraries have nothing left to say
