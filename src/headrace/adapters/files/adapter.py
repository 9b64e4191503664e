"""The files adapter: a watched folder, whose files are read on from where they were left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from headrace.adapters.abilities import Captured, FoundTag, Listener
from headrace.adapters.base import AdapterDiagnostics, AdapterState, DeviceDiagnostics, PlantFacts, Sink
from headrace.adapters.files.config import FilesConfig
from headrace.adapters.files.folder import FolderView, SeenFile, dispose, look, rule_of
from headrace.adapters.files.followed import FollowedFile
from headrace.adapters.files.patterns import CompiledRule, compile_file_rule, format_of
from headrace.adapters.files.positions import FilePosition, Key, Positions
from headrace.adapters.files.probe import FileProbe, again, decode_parts, rule_of_url
from headrace.adapters.files.reader import FileReader, ReadCounts, SinkRefused
from headrace.adapters.meters import Backoff, reason_of, seconds
from headrace.adapters.payloads.chunks import LineFormats, warm_csv
from headrace.adapters.payloads.keys import DeviceGroups
from headrace.adapters.payloads.line_decoder import warm_lines
from headrace.core.clock import NO_TIME, NS, Clock, monotonic_ns
from headrace.core.errors import ConfigError, StorageError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.problems import dotted
from headrace.core.sensors import SensorDirectory

LOOK_FIRST_NS, LOOK_MOST_NS = NS // 4, 30 * NS
N_WHOLE_AT_ONCE = 4
"""Files that are kept open while they are read, compressed ones and Parquet, at a time; others take their turn."""
DEVICES_MAX = 256
NOTE_S = 0.02
"""Between two notes of how far files are durable; what was not noted is read again after a crash."""
_LAND_S = 0.5
_JUMP_NS = 60 * NS
_log = logging.getLogger("headrace.adapters.files")


@dataclass(slots=True)
class _Running:
    """What exists between start and stop."""

    sink: Sink
    groups: DeviceGroups
    reader: FileReader
    positions: Positions
    backoff: Backoff
    files: dict[Key, FollowedFile] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    looked_ns: int = NO_TIME
    """When the folder was looked at last: what is compared with `since_ns`, as the clock may be set at any moment."""
    tasks: tuple[asyncio.Task[None], ...] = ()


class FilesAdapter:
    """Files as frames; see `headrace.adapters.base` for the contract."""

    Config: ClassVar[type[FilesConfig]] = FilesConfig

    def __init__(
        self, name: str, config: FilesConfig, rules: Sequence[CompiledRule], plant: PlantFacts
    ) -> None:
        self.name = name
        self._config = config
        self._rules = tuple(rules)
        self._plant = plant
        self._root = plant.folder / config.folder
        self._move_to = None if config.move_to is None else plant.folder / config.move_to
        self._running: _Running | None = None
        self._state, self._reason = AdapterState.STARTING, ""
        self._since_ns = self._retry_ns = NO_TIME
        self._is_stopped = False

    @classmethod
    def warm(cls) -> None:
        """Make the kernels of its decoders ready."""
        warm_lines()
        warm_csv()

    @classmethod
    def from_config(cls, name: str, config: FilesConfig, profiles: Any, plant: PlantFacts) -> FilesAdapter:
        """Compile the rules; the folder is looked for when it starts.

        Raises
        ------
        ConfigError : no rule, or one that can't be; its key is told.
        """
        where = f"adapters.{name}.files"
        if not config.files:
            raise ConfigError('there is no rule; write one: "*.csv" = { path = ... }', where)
        rules = []
        for text, rule in config.files.items():
            try:
                rules.append(compile_file_rule(text, rule, plant.levels))
            except ConfigError as e:
                raise ConfigError(e.message, dotted((*where.split("."), text))) from e
        return cls(name, config, rules, plant)

    async def start(self, sink: Sink) -> None:
        """Begin to look at the folder."""
        groups = self._groups(sink.directory)
        positions = Positions(self._plant.state)
        formats = self._formats(sink.directory, groups)
        reader = FileReader(self.name, self._root, sink, formats, positions, self._is_final)
        run = _Running(sink, groups, reader, positions, Backoff(self.name, LOOK_FIRST_NS, LOOK_MOST_NS))
        self._running = run
        self._enter(AdapterState.STARTING, "", sink.clock)
        run.tasks = (
            asyncio.create_task(self._watch(run), name=f"files {self.name}"),
            asyncio.create_task(self._note(run), name=f"files {self.name} positions"),
        )

    def _groups(self, directory: SensorDirectory) -> DeviceGroups:
        return DeviceGroups(directory, self._config.max_devices, owns_units=False, keeps_grids=False)

    def _formats(self, directory: SensorDirectory, groups: DeviceGroups) -> LineFormats:
        return LineFormats(self.name, directory, groups, self._plant.levels, self._plant.timezone)

    async def stop(self) -> None:
        """Read no more; what is on its way is waited for a moment, and how far it got is noted."""
        run, self._running = (None if self._is_stopped else self._running), self._running
        self._is_stopped = True
        if run is None:
            return
        self._enter(AdapterState.STOPPED, "", run.sink.clock)
        for task in run.tasks:
            task.cancel()
        await asyncio.gather(*run.tasks, return_exceptions=True)
        until_ns = monotonic_ns() + int(_LAND_S * NS)
        while any(file.flights for file in run.files.values()) and (left_ns := until_ns - monotonic_ns()) > 0:
            run.reader.is_dirty.clear()
            with_time = asyncio.ensure_future(run.reader.is_dirty.wait())
            await asyncio.wait([with_time], timeout=seconds(left_ns))
            with_time.cancel()
        noting = asyncio.ensure_future(run.reader.note())
        await asyncio.wait([noting], timeout=_LAND_S)
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)
        for file in run.files.values():
            file.close()
        run.reader.end()

    def listen(self, listener: Listener | None) -> None:
        """Hear each part of a file as it is read: text as it is, rows of Parquet as an Arrow stream."""
        if self._running is not None:
            self._running.reader.listener = listener

    def decode_captured(
        self, captured: Sequence[Captured], directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode parts of files by the present rules; what no rule is for any more is left out."""
        return decode_parts(captured, self._rules, self._formats(directory, self._groups(directory)))

    def redecode(
        self, reject: Reject, directory: SensorDirectory
    ) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """Decode a refused line by the present rules."""
        run = self._running
        groups = self._groups(directory) if run is None else run.groups
        return again(reject, self._rules, self._formats(directory, groups))

    # --- watching ------------------------------------------------------------------------------------

    async def _watch(self, run: _Running) -> None:
        """Look at the folder and read what is in it, for ever."""
        clock = run.sink.clock
        while True:
            began_ns = clock.now_ns()
            try:
                await run.reader.block(run.positions.open, began_ns)
                await run.reader.block(run.positions.forget, set(run.files), began_ns)
                known = await run.reader.block(run.positions.unfinished)
                view = await run.reader.block(look, self._root, self._rules, known, self._move_to)
            except (OSError, StorageError) as e:
                why = f"{self._root}: {reason_of(e)}" if isinstance(e, OSError) else str(e)
                await self._lost(why, run)
                continue
            self._take_note(view, run)
            try:
                await self._read_all(run, began_ns + self._config.interval)
                await self._dispose(run)
            except SinkRefused as e:
                await self._lost(f"what was read is not taken: {e}", run)
                continue
            except Exception as e:  # a defect of ours must not be the end of all files
                _log.exception("adapter=%s: reading failed", self.name)
                for file in run.files.values():
                    file.rewind()
                await self._lost(f"reading failed: {e!r}", run)
                continue
            interval_ns = self._config.interval
            left_ns = began_ns + interval_ns - clock.now_ns()  # a day, where the clock was set back meanwhile
            await clock.sleep(seconds(min(max(0, left_ns), interval_ns)))

    async def _lost(self, reason: str, run: _Running) -> None:
        """Nothing goes at present: say so once, and wait."""
        if self._state is not AdapterState.BACKOFF:
            _log.warning("adapter=%s: %s; trying again", self.name, reason)
        wait_ns = run.backoff.next_ns()
        self._retry_ns = run.sink.clock.now_ns() + wait_ns
        self._enter(AdapterState.BACKOFF, reason, run.sink.clock)
        await run.sink.clock.sleep(seconds(wait_ns))

    def _back(self, run: _Running) -> None:
        if self._state is AdapterState.BACKOFF:
            _log.info("adapter=%s: its files are read again", self.name)
        self._retry_ns = NO_TIME
        run.backoff.reset()
        self._enter(AdapterState.CONNECTED, "", run.sink.clock)

    def _enter(self, state: AdapterState, reason: str, clock: Clock) -> None:
        if state is not self._state or self._since_ns == NO_TIME:
            self._since_ns = clock.now_ns()
        self._state, self._reason = state, reason

    def _take_note(self, view: FolderView, run: _Running) -> None:
        """Follow the files that a look has found, and no others."""
        now_ns = run.sink.clock.now_ns()
        self._mind_jumps(run, now_ns)
        for name, reason in view.troubles.items():
            if name not in run.troubles:
                _log.warning("adapter=%s: %s can't be looked at: %s", self.name, name, reason)
        run.troubles = view.troubles
        there = {}
        for seen in view.files:
            file = run.files.get(seen.key)
            if file is None:
                file = self._follow(seen, run, now_ns)
            elif seen.key in there:
                continue  # a file with two names is read once
            else:
                file.see(seen, now_ns)
            if file is not None:
                there[seen.key] = file
        for key, file in run.files.items():
            if key not in there:
                file.close()
                if file.flights:
                    there[key] = file  # it went, but not all that was read of it is durable
                    file.is_drained = True
        run.files = there

    def _mind_jumps(self, run: _Running, now_ns: int) -> None:
        """Count anew how long files did not change where the clock was set: by itself that makes none of them finished."""
        if not 0 <= now_ns - run.looked_ns <= self._config.interval + _JUMP_NS:
            for file in run.files.values():
                file.since_ns, file.retry_ns = now_ns, min(file.retry_ns, now_ns)
        run.looked_ns = now_ns

    def _follow(self, seen: SeenFile, run: _Running, now_ns: int) -> FollowedFile | None:
        position = run.positions.get(seen.key)
        number = seen.rule
        if number < 0 and position is not None:
            number = rule_of(position.name, self._rules)
        if number < 0:
            return None
        rule = self._rules[number]
        kind = format_of(seen.name if seen.rule >= 0 or position is None else position.name, rule.rule)
        if kind is None:
            run.troubles[seen.name] = "its name does not say how it is written; set format in its rule"
            return None
        position = position or FilePosition(*seen.key, seen.name)
        backoff = Backoff(f"{self.name}:{seen.name}", LOOK_FIRST_NS, LOOK_MOST_NS)
        file = FollowedFile(seen, rule, kind, position, backoff, now_ns, run.reader.touch)
        file.resume()
        return file

    def _is_final(self, file: FollowedFile) -> bool:
        """Whether a file is finished: it did not change for long, or nobody writes files of its kind bit by bit."""
        run = self._running
        if file.is_compressed or run is None:
            return True
        return run.looked_ns - file.since_ns >= self._config.finished_after

    def _is_due(self, file: FollowedFile, run: _Running) -> bool:
        """Whether a file has something to read, as far as is known."""
        now_ns = run.sink.clock.now_ns()
        if file.is_done or now_ns < file.retry_ns:
            return False
        if file.is_compressed or file.format == "parquet":
            return run.looked_ns - file.since_ns >= self._config.interval  # nobody is writing it any more
        return not file.is_drained or self._is_final(file)

    async def _read_all(self, run: _Running, due_ns: int) -> None:
        """Read what there is, every file in turn, until it is time for another look. Raises SinkRefused."""
        due = [file for file in run.files.values() if self._is_due(file, run)]
        due.sort(key=lambda file: (file.seen.mtime_ns, file.name))
        if not due:
            self._back(run)
        while due:
            whole = [file for file in due if file.is_compressed or file.format == "parquet"]
            waiting = set(whole[N_WHOLE_AT_ONCE:])
            left = []
            for file in due:
                if file in waiting or await run.reader.turn(file):
                    left.append(file)
                self._back(run)
                if run.sink.clock.now_ns() >= due_ns:
                    return
            due = left

    async def _dispose(self, run: _Running) -> None:
        """Move or delete what is finished, durable and noted."""
        if self._config.after == "keep":
            return
        for file in run.files.values():
            now_ns = run.sink.clock.now_ns()
            if not run.reader.is_noted(file) or now_ns < file.retry_ns:
                continue
            target = None if self._move_to is None else self._move_to / file.name
            file.reason = await run.reader.block(dispose, self._root / file.name, file.seen, target)
            if file.reason:
                file.state, file.retry_ns = AdapterState.DEGRADED, now_ns + file.backoff.next_ns()

    async def _note(self, run: _Running) -> None:
        """Note how far files are durable, when that has changed."""
        while True:
            await run.reader.is_dirty.wait()
            await run.reader.note()
            if run.reader.note_problem:
                await run.sink.clock.sleep(1.0)
                run.reader.is_dirty.set()
            else:
                await run.sink.clock.sleep(NOTE_S)

    # --- looking -------------------------------------------------------------------------------------

    async def probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """What the beginning of files would become: ``file`` (default: the newest of each rule).

        Raises
        ------
        ConfigError : there is no such file. NotConnected : the folder can't be read.
        """
        return await asyncio.to_thread(self._probe(clock).report, wanted)

    @classmethod
    async def probe_url(cls, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        """What a file that no adapter has would become: ``url`` and what a rule may say. Raises as `probe`."""
        root, rule = rule_of_url(wanted)
        probe = FileProbe("probe", root, (rule,), PlantFacts(), None, clock.now_ns())
        return await asyncio.to_thread(probe.report, {"file": rule.pattern.text})

    async def scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        """The sensors that the beginnings of files name; ``file`` as in `probe`. Raises as it."""
        return await asyncio.to_thread(self._probe(clock).tags, wanted)

    def _probe(self, clock: Clock) -> FileProbe:
        return FileProbe(self.name, self._root, self._rules, self._plant, self._move_to, clock.now_ns())

    def diagnostics(self) -> AdapterDiagnostics:
        """State and counts; the folder is the first device, then its files, those in trouble first."""
        run = self._running
        counts = ReadCounts() if run is None else run.reader.counts
        state = AdapterState.STOPPED if self._is_stopped else self._state
        files = [] if run is None else [file.diagnostics() for file in run.files.values()]
        if run is not None:
            files += [DeviceDiagnostics(n, AdapterState.FAILED, reason) for n, reason in run.troubles.items()]
        troubled = [device for device in files if device.reason]
        reason = self._reason
        if state is AdapterState.CONNECTED and (troubled or (run is not None and run.reader.note_problem)):
            state = AdapterState.DEGRADED
            reason = _summary(troubled) if troubled or run is None else run.reader.note_problem
        if self._is_stopped:
            files = [replace(device, state=AdapterState.STOPPED, reason="") for device in files]
        folder = DeviceDiagnostics(
            str(self._root), state, reason, counts.last_good_ns, self._retry_ns, len(files), len(troubled)
        )
        files.sort(key=lambda device: not device.reason)
        return AdapterDiagnostics(
            self.name, "files", state, reason, self._since_ns, run.groups.n_sensors if run else 0,
            (folder, *files[:DEVICES_MAX]), counts.n_samples, counts.n_frames, counts.n_rejects,
            n_bytes=counts.n_bytes, transport_ns=counts.transport_ns, decode_ns=counts.decode_ns,
        )  # fmt: skip


def _summary(troubled: Sequence[DeviceDiagnostics]) -> str:
    more = f" (and {len(troubled) - 1:,} more files)" if len(troubled) > 1 else ""
    return f"{troubled[0].path}: {troubled[0].reason}{more}"
