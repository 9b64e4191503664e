"""The exec adapter: a supervised program, whose standard output is read."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, Listener
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.exec.child import ChildProcess, how_it_ended
from headrace.adapters.exec.config import ExecConfig
from headrace.adapters.exec.outlet import SOURCE, BadOutput, Outlet, line_decoder, open_outlet
from headrace.adapters.exec.probe import Heard, Program, listening_s, run_once
from headrace.adapters.exec.stderr_log import StderrLog
from headrace.adapters.meters import Backoff, reason_of, seconds
from headrace.adapters.payloads.base import Decoded, PayloadError
from headrace.adapters.payloads.chunks import LineFormats, warm_csv
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import warm_lines
from headrace.adapters.payloads.line_rules import LinePaths, compile_paths
from headrace.core.clock import NO_TIME, NS, Clock, thread_cpu_ns
from headrace.core.errors import ConfigError, PluginError
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.core.frames import FrameBatch
from headrace.core.sensors import SensorDirectory

SLICE_S, SLICE_BYTES = 0.005, 256 << 10
PATIENCE_S, TERM_S, KILL_S = 1.0, 1.0, 0.4
STEADY_NS = 10 * NS
"""A program that lived so long counts as one that runs: the waits before it is started again begin anew."""
_REFUSED_FIRST_NS, _REFUSED_MOST_NS = NS // 20, NS
_PASSED_ON = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TEMP", "TMP", "TMPDIR", "TZ", "USER")
_log = logging.getLogger("headrace.adapters.exec")


class _Failed(Exception):
    """The program must be ended and started anew; the text says why."""


@dataclass(slots=True)
class _Running:
    """What exists between start and stop."""

    sink: Sink
    groups: DeviceGroups
    formats: LineFormats
    stderr: StderrLog
    task: asyncio.Task[None] | None = None
    child: ChildProcess | None = None
    is_stopping: bool = False


@dataclass(slots=True)
class _Counts:
    """What was done since the start."""

    starts: int = 0
    failures: int = 0
    put_off: int = 0
    samples: int = 0
    frames: int = 0
    rejects: int = 0
    not_kept: int = 0
    decode_ns: int = 0
    bytes: int = 0
    last_good_ns: int = field(default=NO_TIME)


class ExecAdapter:
    """What a program writes as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[ExecConfig]] = ExecConfig

    def __init__(self, name: str, config: ExecConfig, paths: LinePaths, plant: PlantFacts) -> None:
        self.name = name
        self._config = config
        self._paths = paths
        self._plant = plant
        self._folder = plant.folder / config.folder
        self._running: _Running | None = None
        self._counts = _Counts()
        self._state, self._reason = AdapterState.STARTING, ""
        self._since_ns = self._retry_ns = NO_TIME
        self._is_lost = False
        self._listener: Listener | None = None
        self._is_new_listener = False
        self._watchers: list[Callable[[Decoded], None]] = []
        self._backoff = Backoff(name, config.restart_first, config.restart_most)

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_lines()
        warm_csv()

    @classmethod
    def from_config(cls, name: str, config: ExecConfig, profiles: Any, plant: PlantFacts) -> ExecAdapter:
        """Compile the path; the program is looked for when it starts.

        Raises
        ------
        ConfigError : the path can't be one.
        """
        try:
            paths = compile_paths(config, (), plant.levels, config.format == "lines")
        except ConfigError as e:
            raise ConfigError(e.message, f"adapters.{name}.path") from e
        return cls(name, config, paths, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to start the program."""
        groups = self._groups(sink.directory)
        run = _Running(sink, groups, self._formats(sink.directory, groups), StderrLog(self.name))
        self._running = run
        self._enter(AdapterState.STARTING, "", sink.clock)
        run.task = asyncio.create_task(self._supervise(run), name=f"exec {self.name}")

    def _groups(self, directory: SensorDirectory) -> DeviceGroups:
        return DeviceGroups(directory, self._config.max_devices, owns_units=False, keeps_grids=False)

    def _formats(self, directory: SensorDirectory, groups: DeviceGroups) -> LineFormats:
        return LineFormats(self.name, directory, groups, self._plant.levels, self._plant.timezone)

    async def stop(self) -> None:
        """Ask the program to end, take what it still says, kill it where it does not; nothing of it is left."""
        run = self._running
        if run is None or run.is_stopping or run.task is None:
            self._state, self._reason = AdapterState.STOPPED, ""
            return
        run.is_stopping = True
        if run.child is not None:
            run.child.terminate()
            await asyncio.wait([run.task], timeout=TERM_S)
        if run.child is not None:
            run.child.kill()
            await asyncio.wait([run.task], timeout=KILL_S)
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)
        self._retry_ns = NO_TIME
        self._enter(AdapterState.STOPPED, "", run.sink.clock)

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode a refused line by the present configuration."""
        run = self._running
        groups = self._groups(directory) if run is None else run.groups
        source, _, line = reject.source.rpartition(":")
        if self._config.format == "arrow" or not source or not line.isdecimal() or not reject.raw:
            return [], [replace(reject, detail="no line of it was kept; let the program send it again")]
        if len(reject.raw) >= MAX_RAW_BYTES:
            detail = f"only the first {MAX_RAW_BYTES:,} bytes of it were kept; let the program send it again"
            return [], [replace(reject, detail=detail)]
        try:
            decoder = line_decoder(
                self._formats(directory, groups), self._config, self._paths, self._config.format
            )
            return decoder.again(reject.raw, reject.source, reject.arrival_ns)
        except PayloadError as e:
            return [], [replace(reject, detail=e.detail)]

    def listen(self, listener: Listener | None) -> None:
        """Hear what the program writes, as it comes."""
        self._listener, self._is_new_listener = listener, listener is not None

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode what was heard, run by run; a line that is not whole at the end is left out."""
        formats = self._formats(directory, self._groups(directory))
        batches: list[FrameBatch] = []
        rejects: list[Reject] = []
        number: str | None = None
        for one in captured:
            if one.about.get("run", "") != number:
                number = one.about.get("run", "")
                outlet = open_outlet(formats, self._config, self._paths, self._config.format)
            try:
                parts = list(outlet.feed(one.data, one.ts_ns))
                if "exit" in one.about:
                    parts += outlet.finish(one.ts_ns, is_clean=one.about["exit"] == "0")
            except BadOutput as e:
                parts, number = [Decoded([], [e.reject])], None
            for part in parts:
                batches += part.batches
                rejects += part.rejects
        return batches, rejects

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """Listen to the program for a while (``for``, default 5s); where it does not run now, run it for so long.

        Raises
        ------
        ConfigError : `wanted` is not understood. NotConnected : the program can't be started.
        """
        listen_s, run = listening_s(wanted), self._running
        if run is not None and run.child is not None:
            heard = Heard(run.sink.directory)
            self._watchers.append(heard.take)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(listen_s):
                        await heard.is_full.wait()
            finally:
                self._watchers.remove(heard.take)
            ended, said = "still running", run.stderr.last
        else:
            directory = SensorDirectory()
            heard = Heard(directory)
            formats = self._formats(directory, self._groups(directory))
            try:
                outlet = open_outlet(formats, self._config, self._paths, self._config.format)
            except PayloadError as e:
                raise ConfigError(e.detail, "path") from e
            program = Program(self.name, self._config.argv(self._folder), self._folder, *self._environment())
            ended, said = await run_once(program, outlet, heard, listen_s, clock)
        return heard.report([["program", " ".join(self._config.command)], ["state", ended], ["says", said]])

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the program is the one device."""
        counts, run = self._counts, self._running
        device = DeviceDiagnostics(
            self._config.command[0], self._state, self._reason, counts.last_good_ns, self._retry_ns, counts.starts,
            counts.failures, n_polls_skipped=counts.put_off,
        )  # fmt: skip
        return AdapterDiagnostics(
            self.name, "exec", self._state, self._reason, self._since_ns, run.groups.n_sensors if run else 0, (device,),
            counts.samples, counts.frames, n_bytes=counts.bytes, n_rejects=counts.rejects,
            decode_ns=counts.decode_ns,
        )  # fmt: skip

    def _enter(self, state: AdapterState, reason: str, clock: Clock) -> None:
        if state is not self._state or self._since_ns == NO_TIME:
            self._since_ns = clock.now_ns()
        self._state, self._reason = state, reason

    # --- supervising ---------------------------------------------------------------------------------

    async def _supervise(self, run: _Running) -> None:
        """Start the program again and again."""
        clock = run.sink.clock
        while True:
            began_ns = clock.now_ns()
            try:
                reason = await self._live(run)
            except (OSError, ConfigError, PayloadError) as e:
                reason = f"can't be started: {reason_of(e) if isinstance(e, OSError) else e}"
            except Exception as e:  # a defect of ours must not be the end of it
                _log.exception("adapter=%s: reading its program failed", self.name)
                reason = f"reading it failed: {e!r}"
            if run.is_stopping:
                return
            lived_ns = clock.now_ns() - began_ns
            if not reason and self._config.interval:
                await self._rest(began_ns, self._config.interval, clock)
                continue
            if lived_ns >= STEADY_NS:
                self._backoff.reset()
            await self._lost(f"{self._config.command[0]} {reason or how_it_ended(0)}", clock)

    async def _rest(self, began_ns: int, interval_ns: int, clock: Clock) -> None:
        """Wait for the next time it is due; no longer than the interval where the clock was set back meanwhile."""
        self._backoff.reset()
        now_ns = clock.now_ns()
        wait_ns = min(max(0, began_ns + interval_ns - now_ns), interval_ns)
        self._retry_ns = now_ns + wait_ns
        await clock.sleep(seconds(wait_ns))

    async def _lost(self, reason: str, clock: Clock) -> None:
        """It has ended: say so once, and wait."""
        self._counts.failures += 1
        if not self._is_lost:
            _log.warning("adapter=%s: %s; starting it again", self.name, reason)
        self._is_lost = True
        wait_ns = self._backoff.next_ns()
        self._retry_ns = clock.now_ns() + wait_ns
        self._enter(AdapterState.BACKOFF, reason, clock)
        await clock.sleep(seconds(wait_ns))

    def _alive(self, clock: Clock) -> None:
        """It has sent something."""
        if self._is_lost:
            _log.info("adapter=%s: its program sends again", self.name)
        self._is_lost, self._retry_ns = False, NO_TIME
        self._enter(AdapterState.CONNECTED, "", clock)

    async def _live(self, run: _Running) -> str:
        """Run the program once; why it has to be started again, empty where it ended well."""
        outlet = open_outlet(run.formats, self._config, self._paths, self._config.format)
        environment, secrets = self._environment()
        child = await ChildProcess.start(self._config.argv(self._folder), self._folder, environment)
        self._counts.starts += 1
        run.child = child
        if not self._is_lost and self._state is not AdapterState.CONNECTED:
            self._enter(AdapterState.STARTING, "", run.sink.clock)
        listening = asyncio.create_task(
            run.stderr.listen(child.stderr, secrets), name=f"exec {self.name} stderr"
        )
        failure, is_readable = "", True
        try:
            try:
                await self._pump(child, outlet, run)
            except _Failed as e:
                failure = str(e)
            except BadOutput as e:
                failure, is_readable = str(e), False
                await self._refuse(e, run)
            await child.end(0.0 if failure or run.is_stopping else PATIENCE_S, TERM_S)
            await asyncio.wait([listening], timeout=KILL_S)
            code = child.close()
            if not failure:
                self._hear(b"", outlet, run, code)
            if is_readable:
                await self._finish(outlet, run, is_clean=not failure and not code)
        finally:
            run.child = None
            child.close()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if not failure and code:
            failure = how_it_ended(code)
        said = run.stderr.last
        return f"{failure}: {said}" if failure and said else failure

    async def _refuse(self, error: BadOutput, run: _Running) -> None:
        await self._hand_on(Decoded([], [error.reject]), run)

    def _environment(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """The program's environment, and the secrets in it. Raises ConfigError: one can't be read."""
        found = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith("LC_")}
        secrets = []
        for name, value in self._config.env.items():
            if not isinstance(value, str):
                value = value.read(self._plant.folder)
                secrets.append(value)
            found[name] = value
        return found, tuple(secret for secret in secrets if secret)

    # --- reading -------------------------------------------------------------------------------------

    async def _pump(self, child: ChildProcess, outlet: Outlet, run: _Running) -> None:
        """Hand on what the program writes until it closes its output."""
        while data := await self._slice(child):
            self._hear(data, outlet, run)
            for decoded in self._timed(outlet.feed(data, run.sink.clock.now_ns())):
                await self._hand_on(decoded, run)

    def _hear(self, data: bytes, outlet: Outlet, run: _Running, code: int | None = None) -> None:
        """Tell a listener what came, or with which exit code it ended; the first time also what has to be known before."""
        if self._listener is None:
            return
        about = {"run": str(self._counts.starts)} | ({} if code is None else {"exit": str(code)})
        data = outlet.context + data if self._is_new_listener else data
        self._is_new_listener = False
        self._listener(Captured(run.sink.clock.now_ns(), SOURCE, data, about=about))

    async def _slice(self, child: ChildProcess) -> bytes:
        """What it has written, gathered for some milliseconds; empty at the end. Raises _Failed: it is silent."""
        silent_ns = self._config.silent_after
        first = asyncio.ensure_future(child.stdout.read(SLICE_BYTES))
        over = asyncio.ensure_future(child.ended.wait())
        try:
            await asyncio.wait(
                [first, over], timeout=seconds(silent_ns) if silent_ns else None,
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            if not first.done() and over.done():
                child.kill()  # what it has left behind may hold the pipe open
                await asyncio.wait([first], timeout=KILL_S)
            elif not first.done():
                raise _Failed(f"has sent nothing for {seconds(silent_ns or 0):g} s")
            data = first.result() if first.done() else b""
        finally:
            for waiting in (first, over):
                waiting.cancel()
            await asyncio.gather(first, over, return_exceptions=True)
        if not data:
            return b""
        with suppress(TimeoutError):
            async with asyncio.timeout(SLICE_S):
                while len(data) < SLICE_BYTES and (more := await child.stdout.read(SLICE_BYTES - len(data))):
                    data += more
        self._counts.bytes += len(data)
        return data

    def _timed(self, parts: Iterator[Decoded]) -> Iterator[Decoded]:
        """The same, with the CPU time of decoding counted."""
        while True:
            cpu_ns = thread_cpu_ns()
            decoded = next(parts, None)
            self._counts.decode_ns += thread_cpu_ns() - cpu_ns
            if decoded is None:
                return
            yield decoded

    async def _finish(self, outlet: Outlet, run: _Running, is_clean: bool) -> None:
        """Take what came last, without a line break."""
        try:
            for decoded in self._timed(outlet.finish(run.sink.clock.now_ns(), is_clean)):
                await self._hand_on(decoded, run)
        except BadOutput as e:
            await self._refuse(e, run)

    async def _hand_on(self, decoded: Decoded, run: _Running) -> None:
        """Hand on a part; the pipe is not read meanwhile, so that the program waits while nothing is taken."""
        for watch in self._watchers:
            watch(decoded)
        rejects = list(decoded.rejects)
        backoff = Backoff(self.name, _REFUSED_FIRST_NS, _REFUSED_MOST_NS)
        for batch in decoded.batches:
            if not run.sink.has_credit(batch.n_samples):
                self._counts.put_off += 1
            await self._until_taken(batch, rejects, backoff, run)
        for reject in rejects:
            await self._until_taken(reject, rejects, backoff, run)
        if decoded.batches or rejects:
            self._alive(run.sink.clock)

    async def _until_taken(
        self, one: FrameBatch | Reject, rejects: list[Reject], backoff: Backoff, run: _Running
    ) -> None:
        """Hand on one piece, however often it takes."""
        clock = run.sink.clock
        while True:
            try:
                if isinstance(one, Reject):
                    await run.sink.reject(one)
                    self._counts.rejects += 1
                    return
                await run.sink.emit(one.with_(sequence=self._counts.frames, arrival_ns=clock.now_ns()))
                self._counts.frames += one.n_frames
                self._counts.samples += one.n_samples
                self._counts.last_good_ns = clock.now_ns()
                return
            except PluginError as e:  # a defect of ours, for ever
                if isinstance(one, Reject):
                    self._not_kept(one, e)
                    return
                raw, detail = one.to_bytes()[:MAX_RAW_BYTES], f"its frames were refused: {e}"
                rejects.append(
                    Reject(
                        RejectCode.INTERNAL, self.name, "stdout", detail, raw, clock.now_ns(), one.n_samples
                    )
                )
                return
            except Exception as e:
                await self._not_taken(str(e) or repr(e), backoff, clock)

    def _not_kept(self, one: Reject, error: PluginError) -> None:
        """Count what was refused, though nobody keeps it, and say so once."""
        self._counts.rejects += 1
        if not self._counts.not_kept:
            text = "adapter=%s: a reject is not kept, nor are others like it: %s of %s (%s): %s"
            _log.error(text, self.name, one.code, one.source, one.detail, error)
        self._counts.not_kept += 1

    async def _not_taken(self, why: str, backoff: Backoff, clock: Clock) -> None:
        if not self._is_lost:
            _log.warning("adapter=%s: what it sends is not taken: %s; trying again", self.name, why)
        self._is_lost = True
        wait_ns = backoff.next_ns()
        self._retry_ns = clock.now_ns() + wait_ns
        self._enter(AdapterState.BACKOFF, f"what it sends is not taken: {why}", clock)
        await clock.sleep(seconds(wait_ns))
