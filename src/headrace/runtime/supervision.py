"""The adapters of a running plant: started, paused, resumed, replaced, and stopped, each by itself.

**Pausing.** An adapter that is paused hands on what it has received and lets go of its source: nothing is polled, no
connection is held (many devices take but one, and whoever works on them needs it), and a broker keeps the session,
so that QoS 1 messages wait there. An adapter that would begin anew (`headrace.adapters.abilities.Suspends`)
waits in place. A pause is written to the store before it takes effect and so outlives a restart: a device under
repair must not be polled because somebody restarted the plant.

**Changing.** Where only devices and tags differ an adapter that can (`headrace.adapters.abilities.Retags`) goes over to
them as it runs: its other devices notice nothing.

**Replacing.** The new instance is made first, and prepared where that takes its time (a process of its own that has to
import its code, `headrace.adapters.abilities.Prepares`); if that fails nothing has happened. Then the old one drains and
ends, and the new one starts: never are there two at one source. Counts go on over the instances of a name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from headrace.adapters.abilities import Captures, Listener, Prepares, Retags, Suspends
from headrace.adapters.base import Adapter, AdapterDiagnostics, AdapterState, Sink
from headrace.core.clock import Clock
from headrace.core.disk import Disk
from headrace.core.errors import Closed, ConfigError, HeadraceError, NotFound
from headrace.core.registry import nearest
from headrace.runtime.diagnostics import carried
from headrace.runtime.taps import TAPS_MAX, Tap, TappedSink

PAUSES_FILE = "paused.json"
Make = Callable[[], Adapter]
Tell = Callable[[str, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Pause:
    """Why an adapter stands still: who asked for it, when (ns), and for what reason."""

    by: str
    since_ns: int
    reason: str = ""

    @property
    def text(self) -> str:
        """In words, as the adapter's reason."""
        who = f"paused by {self.by}" if self.by else "paused"
        return f"{who}: {self.reason}" if self.reason else who


class Pauses:
    """Which adapters are paused, kept in the store."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._by_name: dict[str, Pause] = {}

    def load(self) -> None:
        """Read what earlier runs have left. Raises `StorageError`; a file that is no such list counts as none."""
        try:
            found = json.loads(bytes(self._disk.read(PAUSES_FILE)))
            self._by_name = {str(name): Pause(**one) for name, one in found.items()}
        except (NotFound, ValueError, TypeError, AttributeError):
            self._by_name = {}

    def get(self, name: str) -> Pause | None:
        """An adapter's pause."""
        return self._by_name.get(name)

    def set(self, name: str, pause: Pause | None) -> None:
        """Note a pause, or its end. Raises `StorageError`; nothing was changed then."""
        changed = {n: p for n, p in self._by_name.items() if n != name}
        if pause is not None:
            changed[name] = pause
        text = json.dumps({n: asdict(p) for n, p in changed.items()})
        self._disk.replace(PAUSES_FILE, text.encode() + b"\n")
        self._by_name = changed


@dataclass(eq=False)
class _Supervised:
    """One name: its present instance, and what stays when that is replaced."""

    adapter: Adapter
    sink: TappedSink
    lock: asyncio.Lock
    pause: Pause | None = None
    is_suspended: bool = False
    before: AdapterDiagnostics | None = None
    """Counts of the instances before this one."""
    listener: Listener | None = None

    def diagnostics(self) -> AdapterDiagnostics:
        found = self.adapter.diagnostics()
        if self.before is not None:
            found = carried(self.before, found)
        if self.pause is None:
            return found
        devices = tuple(replace(d, state=AdapterState.PAUSED, reason="") for d in found.devices)
        return replace(
            found, state=AdapterState.PAUSED, reason=self.pause.text, since_ns=self.pause.since_ns, devices=devices
        )  # fmt: skip


class Supervisor:
    """The adapters of one plant by name. All methods belong to the thread of the event loop.

    Parameters
    ----------
    tell : (kind, text, fields) of an event.
    """

    def __init__(self, adapters: Mapping[str, Adapter], disk: Disk, clock: Clock, tell: Tell) -> None:
        self._clock, self._tell = clock, tell
        self._pauses = Pauses(disk)
        self._named: dict[str, _Supervised] = {}
        self._waiting = dict(adapters)
        self._sink: Sink | None = None
        self._is_stopping = False

    # --- life ----------------------------------------------------------------------------------------

    async def start(self, sink: Sink) -> None:
        """Start all that are not paused.

        Raises
        ------
        ConfigError : two adapters have the same sensor. StorageError : the list of pauses can't be read.
        """
        self._sink = sink
        self._pauses.load()
        for name, adapter in self._waiting.items():
            await self._begin(name, adapter, self._pauses.get(name))

    async def _begin(self, name: str, adapter: Adapter, pause: Pause | None) -> None:
        assert self._sink is not None
        one = self._named[name] = _Supervised(adapter, TappedSink(self._sink), asyncio.Lock(), pause)
        if pause is None:
            await adapter.start(one.sink)
            self._tell("adapter.started", f"adapter {name} started", {"adapter": name})
        else:
            self._tell("adapter.paused", f"adapter {name} stays {pause.text}", {"adapter": name})

    async def stop(self, timeout_s: float) -> None:
        """Stop all, at the same time. What does not end in time is given up and told."""
        self._is_stopping = True
        stopping = {asyncio.ensure_future(one.adapter.stop()): name for name, one in self._named.items()}
        for one in self._named.values():
            _close_taps(one)
        if not stopping:
            return
        _, late = await asyncio.wait(stopping, timeout=timeout_s)
        for task in late:
            task.cancel()
        results = await asyncio.gather(*stopping, return_exceptions=True)
        for result, name in zip(results, stopping.values(), strict=True):
            if isinstance(result, BaseException):
                why = "it took too long" if isinstance(result, asyncio.CancelledError) else repr(result)
                text = f"adapter {name} did not stop cleanly: {why}"
                self._tell("adapter.stopped", text, {"adapter": name})

    # --- looking -------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of all adapters."""
        return list(self._named or self._waiting)

    def get(self, name: str) -> Adapter:
        """An adapter's present instance. Raises `NotFound`."""
        if name in self._waiting and not self._named:
            return self._waiting[name]
        return self._one(name).adapter

    def _one(self, name: str) -> _Supervised:
        if name not in self._named:
            raise NotFound(f"no adapter {name!r}{nearest(name, self.names)}")
        return self._named[name]

    def pause_of(self, name: str) -> Pause | None:
        """Why an adapter is paused; None where it is not. Raises `NotFound`."""
        return self._one(name).pause

    def diagnostics(self) -> list[AdapterDiagnostics]:
        """Diagnostics of every adapter; counts go on when an instance is replaced."""
        if not self._named:
            return [adapter.diagnostics() for adapter in self._waiting.values()]
        return [one.diagnostics() for one in self._named.values()]

    def tap(self, name: str, pattern: str = "**") -> Tap:
        """Look at what an adapter hands on, until `untap`.

        Raises
        ------
        NotFound : no such adapter. ConfigError : no such pattern. HeadraceError : too many look already.
        """
        sink = self._one(name).sink
        if len(sink.taps) >= TAPS_MAX:
            raise HeadraceError(f"{TAPS_MAX} others look at adapter {name} already; end one of them")
        tap = Tap(sink.directory, pattern)
        sink.taps.append(tap)
        return tap

    def untap(self, name: str, tap: Tap) -> None:
        """Look no more."""
        one = self._named.get(name)
        if one is not None and tap in one.sink.taps:
            one.sink.taps.remove(tap)

    def check_capture(self, name: str) -> None:
        """Raise where `listen` would: NotFound : no such adapter. HeadraceError : it can't be captured, or is already."""
        one = self._one(name)
        if one.listener is not None:
            raise HeadraceError(f"adapter {name} is being captured already")
        if not isinstance(one.adapter, Captures):
            raise HeadraceError(f"adapter {name} can't be captured")

    def listen(self, name: str, listener: Listener) -> None:
        """Hear what an adapter receives, also by the instances that come after this one, until `unlisten`.

        Raises as `check_capture`.
        """
        self.check_capture(name)
        self._give(self._one(name), listener)

    def unlisten(self, name: str, listener: Listener) -> None:
        """Hear nothing any more."""
        if self.is_heard(name, listener):
            self._give(self._one(name), None)

    def is_heard(self, name: str, listener: Listener) -> bool:
        """Whether `listener` hears an adapter; not where that was removed."""
        return name in self._named and self._named[name].listener == listener

    @staticmethod
    def _give(one: _Supervised, listener: Listener | None) -> None:
        one.listener = listener
        if isinstance(one.adapter, Captures):
            one.adapter.listen(listener)

    # --- changing ------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._is_stopping:
            raise Closed("the plant is stopping")

    async def pause(self, name: str, by: str, reason: str = "") -> None:
        """Let an adapter hand on what it has and then stand still, until `resume`; also over restarts.

        Raises
        ------
        NotFound : no such adapter. StorageError : the pause can't be written down; nothing was changed.
        Closed : the plant is stopping.
        """
        one = self._one(name)
        async with one.lock:
            self._check()
            pause = Pause(by, self._clock.now_ns() if one.pause is None else one.pause.since_ns, reason)
            self._pauses.set(name, pause)
            was_running, one.pause = one.pause is None, pause
            if was_running and isinstance(one.adapter, Suspends):
                one.adapter.suspend()
                one.is_suspended = True
            elif was_running:
                await one.adapter.stop()
            self._tell("adapter.paused", f"adapter {name} {pause.text}", {"adapter": name, "by": by})

    async def resume(self, name: str, by: str, make: Make) -> None:
        """Go on after a pause; nothing where there is none.

        Parameters
        ----------
        make : the instance to go on with, where the old one was stopped.

        Raises
        ------
        ConfigError : it can't be made or started; the adapter stays paused. Else as `pause`.
        """
        one = self._one(name)
        async with one.lock:
            self._check()
            if one.pause is None:
                return
            if one.is_suspended and isinstance(one.adapter, Suspends):
                self._pauses.set(name, None)
                one.adapter.proceed()
                one.is_suspended = False
            else:
                adapter = make()
                await self._prepare(adapter, one.sink)
                await self._start(adapter, one.sink)
                try:
                    self._pauses.set(name, None)
                except HeadraceError:
                    await adapter.stop()
                    raise
                self._swap(one, adapter)
            one.pause = None
            self._tell("adapter.resumed", f"adapter {name} goes on", {"adapter": name, "by": by})

    async def _prepare(self, adapter: Adapter, sink: Sink) -> None:
        """Have an instance ready; one that can't be, or not before the plant ends, leaves nothing behind."""
        if isinstance(adapter, Prepares):
            try:
                await adapter.prepare(sink)
                self._check()
            except BaseException:
                await adapter.stop()
                raise

    @staticmethod
    async def _start(adapter: Adapter, sink: Sink) -> None:
        """Start an instance; one that can't leaves nothing behind."""
        try:
            await adapter.start(sink)
        except Exception:
            await adapter.stop()
            raise

    @classmethod
    def _swap(cls, one: _Supervised, adapter: Adapter) -> None:
        """Put a new instance in the old one's place; what was counted stays counted, and who listens hears it."""
        one.before = _counts(one)
        one.adapter = adapter
        one.is_suspended = False
        if one.listener is not None:
            cls._give(one, one.listener)

    async def replace(self, name: str, make: Make, again: Make) -> None:
        """Put a new instance in an adapter's place; a paused one stays paused.

        Parameters
        ----------
        make : the new instance. again : one like the old, should the new one not start.

        Raises
        ------
        ConfigError : the new one can't be made or started; the old one, or one like it, runs on.
        """
        one = self._one(name)
        async with one.lock:
            self._check()
            await self._replace(name, one, make(), again)

    async def _replace(self, name: str, one: _Supervised, adapter: Adapter, again: Make) -> None:
        await self._prepare(adapter, one.sink)
        await one.adapter.stop()
        if one.pause is None and not self._is_stopping:
            try:
                await self._start(adapter, one.sink)
            except Exception:
                old = again()
                await old.start(one.sink)
                self._swap(one, old)
                raise
        elif isinstance(adapter, Prepares):
            await adapter.stop()  # it can be made; resuming makes another one
        self._swap(one, adapter)
        self._tell("adapter.reloaded", f"adapter {name} has a new instance", {"adapter": name})

    async def change(self, name: str, make: Make, again: Make) -> None:
        """Make an adapter do what a new instance would: by its tags alone, where it can, else as `replace`."""
        one = self._one(name)
        async with one.lock:
            self._check()
            adapter = make()
            if one.pause is None and await self._retag(one.adapter, adapter):
                self._tell("adapter.retagged", f"adapter {name} has other devices or tags", {"adapter": name})
            else:
                await self._replace(name, one, adapter, again)

    @staticmethod
    async def _retag(old: Adapter, new: Adapter) -> bool:
        """Whether the old instance has gone over to what the new one would do; it has to be of its kind for that."""
        return type(old) is type(new) and isinstance(old, Retags) and await old.retag(new)

    async def add(self, name: str, adapter: Adapter, pause: Pause | None = None) -> None:
        """Bring an adapter in that was not there, and start it, unless it is to be paused.

        Raises
        ------
        ConfigError : the name is taken, or the adapter can't start: nothing was changed.
        """
        self._check()
        if name in self._named:
            raise ConfigError(f"there is an adapter {name!r} already", f"adapters.{name}")
        if pause is not None:
            self._pauses.set(name, pause)
        pause = pause or self._pauses.get(name)
        if pause is None:
            assert self._sink is not None
            await self._prepare(adapter, self._sink)
        try:
            await self._begin(name, adapter, pause)
        except Exception:
            del self._named[name]
            await adapter.stop()
            raise

    async def remove(self, name: str) -> None:
        """Let an adapter hand on what it has, and end it. Raises `NotFound`, `StorageError`."""
        one = self._one(name)
        async with one.lock:
            self._check()
            if one.pause is not None:
                self._pauses.set(name, None)
            await one.adapter.stop()
            _close_taps(one)
            del self._named[name]
            self._waiting.pop(name, None)
            self._tell("adapter.removed", f"adapter {name} was removed", {"adapter": name})


def _close_taps(one: _Supervised) -> None:
    for tap in one.sink.taps:
        tap.close()
    one.sink.taps.clear()


def _counts(one: _Supervised) -> AdapterDiagnostics:
    found = one.adapter.diagnostics()
    return found if one.before is None else carried(one.before, found)
