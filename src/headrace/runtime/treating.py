"""Adapters whose signals have rules: the same class, with a sink and a directory that know them.

The rules are put around an adapter and not into it, so that they mean the same for every protocol, those of third
parties among them. See `headrace.ingest.signal_sink`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from headrace.adapters.abilities import (
    OWN_PATH,
    Captured,
    Captures,
    Declares,
    NamesSignals,
    Redecodes,
    TakesTags,
)
from headrace.adapters.base import Sink
from headrace.core.config import PlantConfig
from headrace.core.errors import ConfigError
from headrace.core.events import Reject
from headrace.core.frames import FrameBatch
from headrace.core.problems import dotted
from headrace.core.sensors import SensorDirectory
from headrace.ingest.signal_rules import SignalRules, TakenSignal
from headrace.ingest.signal_sink import NEVER_NS, OwnDirectory, SignalSink
from headrace.ingest.tag_sets import devices_of

Decoded = tuple[Sequence[FrameBatch], Sequence[Reject]]


class _Treated:
    """Stands before an adapter's own class.

    Attributes
    ----------
    signal_rules : of its signals. made_of : all else that it was made of, to be compared.
    """

    signal_rules: SignalRules
    made_of: Any = None
    _signal_sink: SignalSink | None = None

    async def start(self, sink: Sink) -> None:
        """Begin, with a sink that knows the rules, where there are any."""
        self._signal_sink = SignalSink(sink, self.signal_rules) if self.signal_rules else None
        await super().start(self._signal_sink or sink)  # type: ignore[misc]

    async def retag(self, new: Any) -> bool:
        """Go over to other rules, where nothing else differs; all else is the adapter's own matter."""
        sink, itself = self._signal_sink, getattr(super(), "retag", None)
        if sink is None or not new.signal_rules:
            is_plain = sink is None and not new.signal_rules
            return is_plain and itself is not None and await itself(new)
        if itself is None and self.made_of != new.made_of:
            return False
        sink.directory.become(new.signal_rules)
        try:
            is_done = itself is None or await itself(new)
        except BaseException:
            sink.directory.become(self.signal_rules)
            raise
        if is_done:
            self.signal_rules, self.made_of = new.signal_rules, new.made_of
        else:
            sink.directory.become(self.signal_rules)
        return is_done

    def _own(self, directory: SensorDirectory) -> OwnDirectory:
        """What the adapter knows of a plant's directory; beside what runs, where that is another one."""
        sink = self._signal_sink
        if sink is not None and sink.directory.plant is directory:
            return sink.directory
        return OwnDirectory(directory, self.signal_rules, lambda: NEVER_NS - 1)


class _Declaring(_Treated):
    def declare(self, directory: SensorDirectory) -> None:
        """Make the groups known that are stored."""
        super().declare(self._own(directory) if self.signal_rules else directory)  # type: ignore[misc]


class _Redecoding(_Treated):
    def redecode(self, reject: Reject, directory: SensorDirectory) -> Decoded:
        """What becomes of the input of `reject` today, as it is stored."""
        if not self.signal_rules:
            return super().redecode(reject, directory)  # type: ignore[misc,no-any-return]
        own = self._own(directory)
        batches, rejects = super().redecode(reject, own)  # type: ignore[misc]
        return _stored(own, batches), rejects


class _Capturing(_Treated):
    def decode_captured(self, captured: Sequence[Captured], directory: SensorDirectory) -> Decoded:
        """What the decoder makes of pieces, as it is stored."""
        if not self.signal_rules:
            return super().decode_captured(captured, directory)  # type: ignore[misc,no-any-return]
        own = OwnDirectory(directory, self.signal_rules, lambda: NEVER_NS - 1)
        batches, rejects = super().decode_captured(captured, own)  # type: ignore[misc]
        return _stored(own, batches), rejects


_BEFORE: tuple[tuple[Any, type[Any]], ...] = (
    (Declares, _Declaring), (Redecodes, _Redecoding), (Captures, _Capturing),
)  # fmt: skip


def _stored(own: OwnDirectory, batches: Iterable[FrameBatch]) -> list[FrameBatch]:
    return [stored for batch in batches for stored in own.stored(batch)]


@cache
def treated_kind(kind: type[Any]) -> type[Any]:
    """The class of an adapter, for instances that have `signal_rules`."""
    before = tuple(mixin for ability, mixin in _BEFORE if issubclass(kind, ability))
    facts = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (*(before or (_Treated,)), kind), facts)


def has_rules(config: PlantConfig, name: str, kind: type[Any]) -> bool:
    """Whether an adapter may have rules for its signals."""
    section = config.adapters[name]
    return bool(section.treatments) or section.has_signal_table or issubclass(kind, NamesSignals)


def rules_of(config: PlantConfig, name: str, adapter: object) -> SignalRules:
    """The rules of an adapter's signals.

    Raises
    ------
    ConfigError : a conversion that can't be, or a table that can't be read or has a line that means nothing.
    """
    section = config.adapters[name]
    single = adapter.signals() if isinstance(adapter, NamesSignals) else {}
    table = _table(config, name, adapter) if section.has_signal_table else None
    return SignalRules(name, section.treatments, single, table, config.plant.zone)


def _table(config: PlantConfig, name: str, adapter: object) -> dict[str, TakenSignal]:
    """Own path → where it goes, by the adapter's table of tags."""
    file = config.adapters[name].tags
    found: dict[str, TakenSignal] = {}
    for device, tagged in devices_of(config, name).items():
        for signal, settings in tagged.signals.items():
            path = f"{device}/{signal}"
            where = dotted(("adapters", name, "tags", path))
            try:
                own_path = _own_path(settings.address, adapter)
                settings.grid()
            except ConfigError as e:
                raise ConfigError(f"{e.message} (in {file})", where) from e
            if own_path in found:
                raise ConfigError(
                    f"{settings.address!r} goes to {found[own_path].path} already; one signal is stored once (in {file})",
                    where,
                )
            is_plain = settings.model_fields_set <= {"address"}
            found[own_path] = TakenSignal(path, None if is_plain else settings)
    return found


def _own_path(address: str, adapter: object) -> str:
    if address.startswith(OWN_PATH):
        return address.removeprefix(OWN_PATH)
    if isinstance(adapter, TakesTags):
        return adapter.own_path(address)
    raise ConfigError(
        f"{address!r} is no address here: write {OWN_PATH} and the path that the adapter gives the signal by itself"
    )
