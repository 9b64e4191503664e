"""An adapter in a process of its own, behind the contract of `headrace.adapters.base`.

The engine starts a *gateway* (`headrace.runtime.gateway_process`), hands it the adapter's section, and takes what comes
over the link to the adapter's real sink: groups are defined here too, slots are mapped, and the source is acknowledged
there once the batch is durable here. So another version of an adapter's code can be loaded beside a running one
(`GatewayAdapter.prepare`), and an adapter that dies takes nothing with it: it is started again, and what was not
acknowledged its source sends again. So it is with one that hangs: after 10 s without a word it is told as degraded, after
30 s it is killed, and another one takes its place.

A gateway has its own pace of new connections (`ConnectPacer`) and its own copy of the directory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar, NoReturn

from headrace.adapters.abilities import Captured, Declares, FoundTag, Listener
from headrace.adapters.base import (
    Adapter,
    AdapterDiagnostics,
    AdapterState,
    DeviceDiagnostics,
    PlantFacts,
    Pushed,
    Receipt,
    Sink,
)
from headrace.adapters.meters import Backoff, seconds
from headrace.core.clock import NS, Clock, SystemClock, monotonic_ns
from headrace.core.config import PlantConfig
from headrace.core.errors import Closed, HeadraceError, NotConnected, PluginError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.ingest.rejects import encode_rejects
from headrace.runtime.diagnostics import carried
from headrace.runtime.gateway_end import Spawn, Taking, spawn_gateway
from headrace.runtime.gateway_link import ALIVE_S, RECEIPT, TAGS, abilities_of
from headrace.runtime.plugin_code import ImportedCode
from headrace.runtime.tail_format import read_tail

_READY_S, _CHANGE_S, _STOP_S, _STOP_S_MAX = 120.0, 60.0, 1.4, 1.7
_QUIET_NS, _HUNG_NS = int(5 * ALIVE_S * NS), int(15 * ALIVE_S * NS)
_LOOK_S, _KILLED_S = 1.0, 5.0
_RETRY_NS_MIN, _RETRY_NS_MAX = NS // 2, 30 * NS
_VERSION = version("headrace")
_log = logging.getLogger("headrace.gateway")


class GatewayAdapter:
    """An adapter whose instance is in a gateway process; see the module's text.

    Its other abilities are those of the adapter there: they are attributes of the instance as soon as they are known.

    Parameters
    ----------
    config : with the section of `name`; only that, the profiles and what all adapters share goes over the link.
    checked : an instance of this process that was made to check the section: its abilities are known beforehand, and its
    groups where it `Declares` them. spawn : how a process is started.
    """

    Config: ClassVar[type[Any]] = dict

    def __init__(
        self,
        name: str,
        config: PlantConfig,
        clock: Clock,
        checked: Adapter | None = None,
        spawn: Spawn = spawn_gateway,
    ) -> None:
        self.name = name
        self.code: ImportedCode | None = None
        """What the present process has imported, once that is known."""
        self._config, self._clock, self._spawn = config, clock, spawn
        self._protocol = config.adapters[name].protocol
        self._taking: Taking | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._found = AdapterDiagnostics(name, self._protocol, AdapterState.STARTING)
        self._before: AdapterDiagnostics | None = None
        self._backoff = Backoff(name, _RETRY_NS_MIN, _RETRY_NS_MAX)
        self._listener: Listener | None = None
        self._is_suspended = False
        self._is_lost = False
        self._n_killed = 0
        self._unstarted = checked if isinstance(checked, Declares) else None
        self._can(abilities_of(checked))

    @classmethod
    def from_config(cls, name: str, config: Any, profiles: Any, plant: PlantFacts) -> NoReturn:
        """A gateway checks its adapter's section itself: it is made of the plant file."""
        raise PluginError(f"adapter {name}: a gateway is made of a whole plant file, see `Gateways`")

    def _can(self, abilities: Sequence[str]) -> None:
        """Show the abilities that the adapter has, and no others: they are looked for by `isinstance`."""
        for method in abilities:
            setattr(self, method, getattr(self, f"_{method}"))

    # --- life ----------------------------------------------------------------------------------------

    async def prepare(self, sink: Sink) -> None:
        """Have a process ready that has imported the code, accepted the section, and knows the plant's groups.

        Raises
        ------
        ConfigError, PluginError : the code can't be loaded, or refuses the section. NotConnected : no process comes up.
        """
        if self._taking is None:
            self._taking = await self._opened(sink)

    async def start(self, sink: Sink) -> None:
        """Begin; raises ConfigError where another adapter has one of its sensors, as far as that is known by now."""
        if self._taking is not None:
            await self._begin(self._taking, sink)
        elif self._unstarted is not None:
            self._unstarted.declare(sink.directory)
        self._unstarted = None
        self._task = asyncio.create_task(self._stay(sink), name=f"headrace-gateway-{self.name}")

    async def _opened(self, sink: Sink) -> Taking:
        taking = Taking(await self._spawn(), self.name, self._reported, self._heard)
        given = {
            "version": _VERSION, "name": self.name, "config": _config_fields(self._config, self.name),
            "clock": _clock_fields(self._clock),
        }  # fmt: skip
        try:
            found, _ = await taking.call("open", given, timeout_s=_READY_S)
            await taking.know(sink.directory)
        except NotConnected as e:
            raise NotConnected(f"{e}; it {await taking.close()}") from None
        except BaseException:
            await taking.close()
            raise
        self.code = ImportedCode(found["target"], found["files"])
        self._can(found["abilities"])
        return taking

    async def _begin(self, taking: Taking, sink: Sink) -> None:
        await taking.begin(sink)
        if self._is_suspended:
            taking.say("suspend", is_on=True)
        if self._listener is not None:
            taking.say("listen", is_on=True)
        if self._is_lost:
            _log.info("adapter=%s its gateway process is back, pid %d", self.name, taking.end.pid)
        self._is_lost = False

    async def _stay(self, sink: Sink) -> None:
        """Keep a process for as long as nobody stops us: after each that ended comes another one, later each time."""
        while not self._is_stopped:
            state = AdapterState.BACKOFF
            try:
                if self._taking is None:
                    self._taking = await self._opened(sink)
                    await self._begin(self._taking, sink)
                began_ns = monotonic_ns()
                why = await self._until_lost(self._taking)
                await self._taking.drained()  # what came is kept, however long the sink takes nothing
                why = f"its gateway process {why}{await self._taking.close()}"
                if self._taking.heard_ns - began_ns > _RETRY_NS_MAX:
                    self._backoff.reset()
            except NotConnected as e:
                why = str(e)
            except HeadraceError as e:
                why, state = str(e), AdapterState.FAILED
            except Exception as e:  # a defect of ours must not end what keeps the adapter alive
                why = f"unexpected {type(e).__name__}: {e}"
            if self._taking is not None:
                await self._taking.close()
                self._taking = None
            wait_ns = self._backoff.next_ns() if state is AdapterState.BACKOFF else _RETRY_NS_MAX
            self._went_wrong(state, why, wait_ns)
            await SystemClock().sleep(seconds(wait_ns))

    async def _until_lost(self, taking: Taking) -> str:
        """Wait until the process is gone; one that says nothing for too long is killed. What is to be told of it besides."""
        is_overdue = False
        while True:
            left_s = (taking.heard_ns + _HUNG_NS - monotonic_ns()) / NS
            if left_s <= 0 and is_overdue:
                break
            # If it was this process that stood still, its words lie in the socket: they are read first.
            is_overdue = left_s <= 0
            if await _is_set(taking.is_lost, max(left_s, _LOOK_S)):
                return ""
        self._n_killed += 1
        quiet_s = (monotonic_ns() - taking.heard_ns) // NS
        taking.end.kill()
        await _is_set(taking.is_lost, _KILLED_S)
        return f"has said nothing for {quiet_s} s and "

    def _went_wrong(self, state: AdapterState, why: str, wait_ns: int) -> None:
        if not self._is_lost:
            _log.warning("adapter=%s %s; what was not acknowledged its source sends again", self.name, why)
        self._is_lost = True
        now_ns, before = self._clock.now_ns(), self.diagnostics()
        devices = tuple(
            DeviceDiagnostics(one.path, state, why, one.last_good_ns, now_ns + wait_ns)
            for one in before.devices
        )
        self._before = before
        self._found = AdapterDiagnostics(
            self.name, self._protocol, state, why, now_ns, before.n_sensors, devices
        )

    async def stop(self) -> None:
        """Let the adapter end, hand on what has come from it, and let go of the process. Idempotent."""
        self._is_stopped = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        taking, self._taking = self._taking, None
        if taking is None:
            return
        until_ns = monotonic_ns() + int(_STOP_S_MAX * NS)
        try:
            if taking.sink is not None:
                await self._end(taking)
                n_left = await taking.drained(max(0.0, (until_ns - monotonic_ns()) / NS))
                if n_left:
                    _log.warning("adapter=%s %d batches were not taken before it stopped", self.name, n_left)
        finally:
            await taking.close()

    async def _end(self, taking: Taking) -> None:
        try:
            await taking.call("stop", timeout_s=_STOP_S)
        except HeadraceError as e:
            _log.warning("adapter=%s did not stop cleanly: %s", self.name, e)

    # --- looking -------------------------------------------------------------------------------------

    def _reported(self, found: AdapterDiagnostics) -> None:
        self._found = found

    def diagnostics(self) -> AdapterDiagnostics:
        """What the adapter said half a second ago at most; counts go on when its process is replaced."""
        found = self._found
        if self._before is not None:
            found = carried(self._before, found)
        found = replace(found, n_killed=self._n_killed)
        if self._is_stopped:
            return replace(found, state=AdapterState.STOPPED, reason="", pid=0)
        if self._taking is None:
            return replace(found, pid=0)
        found = replace(found, pid=self._taking.end.pid)
        quiet_ns = monotonic_ns() - self._taking.heard_ns
        if self._task is None or quiet_ns < _QUIET_NS:
            return found
        reason = f"its gateway process has said nothing for {quiet_ns // NS} s"
        return replace(found, state=AdapterState.DEGRADED, reason=reason)

    # --- abilities -----------------------------------------------------------------------------------

    @property
    def _live(self) -> Taking:
        if self._taking is None:
            raise NotConnected(f"adapter {self.name} has no gateway process now: {self.diagnostics().reason}")
        return self._taking

    async def _probe(self, wanted: Mapping[str, str], clock: Clock) -> dict[str, Any]:
        found, _ = await self._live.call("probe", dict(wanted))
        return dict(found)

    async def _scan(self, wanted: Mapping[str, str], clock: Clock) -> Sequence[FoundTag]:
        found, _ = await self._live.call("scan", dict(wanted))
        return TAGS.validate_python(found)

    async def _receive(self, pushed: Pushed) -> Receipt:
        about = {
            "content_type": pushed.content_type, "parameters": dict(pushed.parameters), "key": pushed.key,
            "arrival_ns": pushed.arrival_ns,
        }  # fmt: skip
        try:
            found, _ = await self._live.call("receive", about, pushed.body)
        except NotConnected as e:
            raise Closed(str(e)) from e
        return RECEIPT.validate_python(found)

    async def _retag(self, new: GatewayAdapter) -> bool:
        if new.name != self.name or self._taking is None:
            return False
        is_done, _ = await self._live.call("retag", _config_fields(new._config, self.name), b"", _CHANGE_S)
        if is_done:
            self._config = new._config
        return bool(is_done)

    async def _redecode_there(self, reject: Reject) -> tuple[Sequence[FrameBatch], Sequence[Reject]]:
        """See `RedecodesElsewhere`."""
        taking = self._live  # slots are those of the process that answers, also where another has come since
        refused, blob = await taking.call("redecode", None, encode_rejects([reject]), _CHANGE_S)
        batches = [taking.with_own_slots(one) for one in read_tail(blob)]
        return batches, [Reject.from_dict(one) for one in refused]

    def _suspend(self) -> None:
        self._set_suspended(True)

    def _proceed(self) -> None:
        self._set_suspended(False)

    def _set_suspended(self, is_suspended: bool) -> None:
        self._is_suspended = is_suspended
        if self._taking is not None:
            self._taking.say("suspend", is_on=is_suspended)

    def _heard(self, one: Captured) -> None:
        if self._listener is not None:
            self._listener(one)

    def _listen(self, listener: Listener | None) -> None:
        self._listener = listener
        if self._taking is not None:
            self._taking.say("listen", is_on=listener is not None)

    def _decode_captured(self, captured: Sequence[Captured], directory: Any) -> NoReturn:
        raise PluginError(
            f"adapter {self.name} is in a process of its own: headrace adapters probe --capture decodes"
        )


async def _is_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for it, but not for ever; whether it has come."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()


def _config_fields(config: PlantConfig, name: str) -> dict[str, Any]:
    """What a gateway has to know of a plant file."""
    written = {
        key: value for key, value in config.written.items() if key not in ("pipelines", "api", "codecs")
    }
    written["adapters"] = {name: written["adapters"][name]}
    return {"written": written, "folder": str(config.folder.absolute()), "tables": dict(config.tables)}


def _clock_fields(clock: Clock) -> dict[str, Any]:
    speed = float(getattr(clock, "speed", 1.0))
    return {"speed": speed, "wall_ns": SystemClock().now_ns(), "plant_ns": clock.now_ns()}
