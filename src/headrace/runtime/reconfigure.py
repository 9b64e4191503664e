"""Making another configuration the running one, part by part, and going back.

Only what differs is touched: adapters are removed, replaced and added in this order (a sensor may move from one to
another), pipelines change last, at one place of the journal (`Host.reflow`). If anything can't be done, what was
done is taken back, so that a plant runs with the whole new configuration or with the whole old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from headrace.adapters.base import Adapter
from headrace.core.clock import Clock
from headrace.core.config import PlantConfig, PlantSource, parse_plant
from headrace.core.disk import Disk
from headrace.core.errors import ChangedMeanwhile, ConfigError, HeadraceError, NotFound
from headrace.core.registry import nearest
from headrace.pipeline.flows import FlowSpec
from headrace.runtime.changes import Change, Difference, Fate, Fingerprints, difference
from headrace.runtime.gateways import Gateways
from headrace.runtime.giving_way import beside
from headrace.runtime.staged_tables import StagedTables
from headrace.runtime.supervision import Make, Supervisor, Tell
from headrace.runtime.tagging import TagWish, plan_tags, tables_back, tags_told
from headrace.runtime.times import rfc3339
from headrace.runtime.versions import TAGS, AppliedVersion, Versions, tags_before, version_before


class CheckedPlant(Protocol):
    """A checked configuration: its adapters, made and not started, and its pipelines."""

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """By name."""
        ...

    @property
    def flows(self) -> tuple[FlowSpec, ...]:
        """In the order of the file."""
        ...


_ORDER = (Fate.REMOVED, Fate.CHANGED, Fate.ADDED)
Check = Callable[[PlantConfig], CheckedPlant]
Reflowing = Callable[[Sequence[FlowSpec]], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants: a configuration, from whom, how it came about, and which one `undo` goes back to."""

    config: PlantConfig
    by: str
    how: str
    previous: int
    is_trial: bool = False
    """Only say what would change."""


class Reconfiguring:
    """The running configuration and its changes. All on the event loop.

    Parameters
    ----------
    check : makes adapters and pipelines of a configuration, without I/O but files beside the plant file.
    gateways : makes one adapter of a configuration, alike, and knows where it runs.
    """

    def __init__(
        self,
        config: PlantConfig,
        disk: Disk,
        clock: Clock,
        supervisor: Supervisor,
        check: Check,
        gateways: Gateways,
        tell: Tell,
    ) -> None:
        self._clock, self._supervisor, self._check, self._gateways, self._tell = (
            clock,
            supervisor,
            check,
            gateways,
            tell,
        )
        self._source = config.source
        self._lock = asyncio.Lock()
        self.versions = Versions(disk)
        self.running = Fingerprints.of(config)
        self.version: AppliedVersion | None = None
        self._reflow: Reflowing = lambda specs: None

    def begin(self, reflow: Reflowing) -> None:
        """The plant has started: keep its configuration, where it is not the newest that is kept.

        Raises
        ------
        StorageError : the disk refuses.
        """
        self._reflow = reflow
        newest = self.versions.newest()
        if newest is not None and newest.hash == self.running.hash:
            self.version = newest
        else:
            self._keep("", "start", 0 if newest is None else newest.n)

    def _keep(self, by: str, how: str, previous: int) -> None:
        now = str(rfc3339(self._clock.now_ns()))
        self.version = self.versions.add(self.running, time=now, by=by, how=how, previous=previous)

    # --- looking -------------------------------------------------------------------------------------

    @property
    def overrides(self) -> tuple[str, ...]:
        """Keys that the command line has overridden; they stay so whatever file is applied."""
        return () if self._source is None else self._source.overrides

    def present(self) -> dict[str, Any]:
        """The running configuration, JSON-ready."""
        return {
            "hash": self.running.hash,
            "version": None if self.version is None else self.version.summary(),
            "file": "" if self._source is None else str(self._source.file),
            "overrides": list(self.overrides),
            "config": self.running.config.written,
            "tables": dict(self.running.tables),
        }

    def make(self, name: str) -> Adapter:
        """A new instance of an adapter as it runs. Raises `ConfigError`, `NotFound`."""
        return self._made(self.running.frozen, name)

    def _made(self, config: PlantConfig, name: str) -> Adapter:
        if name not in config.adapters:
            raise NotFound(f"the configuration has no adapter {name!r}{nearest(name, list(config.adapters))}")
        return self._gateways.make(config, name)

    def source_of(self, file: str) -> PlantSource:
        """Where an applied text is from: the file that is named, else the one that the plant was started with."""
        if file:
            return PlantSource(_path_of(file), self.overrides)
        if self._source is None:
            raise ConfigError("say which file it is the text of: relative names in it start there", "file")
        return self._source

    def check_unchanged(self, if_match: str) -> None:
        """Raise `ChangedMeanwhile` where another configuration runs than the one that the caller saw."""
        if if_match not in ("", "*", self.running.hash):
            raise ChangedMeanwhile(
                f"the plant runs with configuration {self.running.hash} and not with {if_match}: somebody has changed "
                f"it meanwhile; look again"
            )

    # --- changing ------------------------------------------------------------------------------------

    async def apply(
        self, config: PlantConfig, by: str, *, if_match: str = "", is_trial: bool = False
    ) -> dict[str, Any]:
        """Make a configuration the running one.

        Raises
        ------
        InvalidConfig, ConfigError : it can't be; nothing was changed. ChangedMeanwhile : see `check_unchanged`.
        StorageError : the journal refuses; nothing was changed.
        """
        async with self._lock:
            self.check_unchanged(if_match)
            wish = Wish(config, by, "apply", self._number(), is_trial)
            answer = await self._carry_out(wish)
            if answer["applied"]:
                self._source = config.source or self._source
            return answer

    async def undo(self, by: str, *, if_match: str = "", is_trial: bool = False) -> dict[str, Any]:
        """Go back to the configuration before; again, and it goes further back. Raises as `apply`, and `NotFound`."""
        async with self._lock:
            self.check_unchanged(if_match)
            before = version_before(self.versions, self.version)
            config = self.versions.restored(before)
            answer = await self._carry_out(Wish(config, by, "undo", before.previous, is_trial))
            return {**answer, "back_to": before.summary()}

    async def apply_tags(
        self, tags: TagWish, by: str, *, if_match: str = "", is_trial: bool = False
    ) -> dict[str, Any]:
        """Make devices and signals what a table says, and write the tables beside the plant file.

        The sections of the adapters that it is for are taken from the plant file as it is now; nothing else of it is.
        Raises as `apply`.
        """
        async with self._lock:
            self.check_unchanged(if_match)
            source = self.source_of("")
            file = await asyncio.to_thread(source.load)
            merge = partial(with_adapters, self.running, file)
            plan = await beside(partial(plan_tags, file, tags, self.running, merge))
            files = StagedTables(file.folder, plan.tables, plan.present)
            wish = Wish(plan.config, by, TAGS, self._number(), is_trial)
            return {**await self._carry_out(wish, files), **await beside(plan.to_dict)}

    async def undo_tags(self, by: str, *, if_match: str = "", is_trial: bool = False) -> dict[str, Any]:
        """Go back to the tables before the newest `apply_tags`, on disk too; again, and it goes further back.

        Raises
        ------
        NotFound : there is nothing to undo, or something else was changed since. Else as `apply_tags`.
        """
        async with self._lock:
            self.check_unchanged(if_match)
            before = tags_before(self.versions, self.version)
            config = self.versions.restored(before)
            old, back = self.running.frozen, tables_back(self.running, before.tables)
            files = StagedTables(config.folder, back, self.running.tables)
            answer = await self._carry_out(Wish(config, by, "undo", before.previous, is_trial), files)
            told = await beside(partial(tags_told, old, config))
            return {**answer, "back_to": before.summary(), "tables": files.names, "tags": told}

    async def reload(self, name: str, by: str, *, code: bool = False) -> dict[str, Any]:
        """Give an adapter a new instance, made from the plant file's present section.

        Where its code has changed on the disk, or `code` says so, the instance is in a process of its own, which
        imports the code anew; that is ready before the old instance is stopped.

        Raises
        ------
        NotFound : there is no such adapter, or no such section any more. ConfigError, PluginError : it can't be made or
        started, or there is no file; the old instance runs on.
        """
        async with self._lock:
            return await self._reload(name, by, code)

    async def _reload(self, name: str, by: str, code: bool) -> dict[str, Any]:
        if self._source is None:
            raise ConfigError("this plant was not started from a file, so there is nothing to read anew")
        running = self._supervisor.get(name)
        is_new = code or await self._is_stale(name, running)
        config = await asyncio.to_thread(self._source.load)
        if name not in config.adapters:
            raise NotFound(
                f"{self._source.file} has no adapter {name!r} any more; headrace apply takes it out of the plant"
            )
        merged = with_adapters(self.running, config, [name])
        after = await asyncio.to_thread(Fingerprints.of, merged)
        change = [c for c in difference(self.running, after).of("adapters") if c.name == name]
        again: Make = partial(self.make, name)
        if is_new:  # one like the old has the old code, so it is made before the new code is asked for
            old = await asyncio.to_thread(again)
            again = lambda: old  # noqa: E731
        with self._gateways.renewing(name) if is_new else contextlib.nullcontext():
            made = await asyncio.to_thread(self._made, merged, name)
            await self._supervisor.replace(name, lambda: made, again)
        if after.by_adapter[name] != self.running.by_adapter.get(name):
            kept = {**self.running.by_adapter, name: after.by_adapter[name]}
            self.running = Fingerprints(merged, kept, after.tables)
            self._keep(by, "reload", self._number())
        return {"adapter": name, "lines": list(change[0].lines) if change else [], "new_code": is_new}

    async def _is_stale(self, name: str, running: Adapter) -> bool:
        config = self.running.config
        return name in config.adapters and await asyncio.to_thread(
            self._gateways.is_stale, config, name, running
        )

    async def refresh(self, by: str) -> None:
        """Load what has changed on the disk, all of it told as events: code of adapters first, then the plant file.

        What can't be loaded leaves what runs as it is.
        """
        async with self._lock:
            n_new = 0
            for name in self._supervisor.names:
                try:
                    if await self._is_stale(name, self._supervisor.get(name)):
                        await self._reload(name, by, code=True)
                        n_new += 1
                except HeadraceError as e:
                    self._tell(
                        "adapter.not-reloaded", f"adapter {name} runs on as it is: {e}", {"adapter": name}
                    )
            try:
                if self._source is None:
                    raise ConfigError(
                        "this plant was not started from a file, so there is nothing to read anew"
                    )
                config = await asyncio.to_thread(self._source.load)
                answer = await self._carry_out(Wish(config, by, "reload", self._number()))
            except HeadraceError as e:
                self._tell("config.refused", f"the plant file was not applied: {e}", {"by": by})
                return
            if not answer["applied"] and not n_new:
                self._tell(
                    "config.same", "reload: neither the plant file nor an adapter's code has changed", {}
                )

    def _number(self) -> int:
        return 0 if self.version is None else self.version.n

    async def _carry_out(self, wish: Wish, files: StagedTables | None = None) -> dict[str, Any]:
        """Do what is wished; `files` get their names once all is done."""
        after = await beside(partial(Fingerprints.of, wish.config))
        found = await beside(partial(difference, self.running, after))
        checked = await beside(partial(self._check, after.frozen))
        answer = {**found.to_dict(), "applied": False, "from": self.running.hash, "to": after.hash}
        if wish.is_trial or not found:
            return answer
        if found.restart:
            raise ConfigError(
                f"only a restart changes {'; '.join(found.restart)}. Nothing was changed: restart the plant with "
                f"this file, or leave that as it is"
            )
        if files is not None:
            await asyncio.to_thread(files.stage)
        try:
            await self._change(found, checked)
        except BaseException:
            if files is not None:
                files.discard()
            raise
        self.running = after
        if files is not None:
            self._commit(files)
        try:
            self._keep(wish.by, wish.how, wish.previous)
        except HeadraceError as e:
            self._tell("config.not-kept", f"the new configuration runs, but it can't be undone: {e}", {})
        text = f"{wish.how}: {len(found.changes)} parts changed"
        self._tell("config.applied", text, {"by": wish.by, "hash": after.hash})
        return {**answer, "applied": True, "version": self._number()}

    def _commit(self, files: StagedTables) -> None:
        try:
            files.commit()
        except HeadraceError as e:
            self._tell("config.not-written", f"the new tags run, but their tables are not written: {e}", {})

    async def _change(self, found: Difference, checked: CheckedPlant) -> None:
        """Touch what differs; where something can't be done, take everything back."""
        taken_back: list[Callable[[], Awaitable[None]]] = []
        try:
            for change in sorted(found.of("adapters"), key=lambda one: _ORDER.index(one.fate)):
                step = await self._adapter(change, checked)
                taken_back.append(step)
            if found.of("pipelines"):
                self._reflow(checked.flows)
        except Exception as e:
            for step in reversed(taken_back):
                try:
                    await step()
                except HeadraceError as again:
                    self._tell("config.not-undone", f"it could not be taken back: {again}", {})
            text = str(e) if isinstance(e, HeadraceError) else repr(e)
            self._tell("config.refused", f"nothing was changed: {text}", {})
            raise

    async def _adapter(self, change: Change, checked: CheckedPlant) -> Callable[[], Awaitable[None]]:
        """Touch one adapter; what takes it back."""
        name, supervisor = change.name, self._supervisor
        if change.fate is Fate.REMOVED:
            pause = supervisor.pause_of(name)
            await supervisor.remove(name)
            return lambda: supervisor.add(name, self.make(name), pause)
        if change.fate is Fate.ADDED:
            await supervisor.add(name, checked.adapters[name])
            return lambda: supervisor.remove(name)

        def old() -> Adapter:
            return self.make(name)

        await supervisor.change(name, lambda: checked.adapters[name], old)
        return lambda: supervisor.change(name, old, old)


def with_adapters(running: Fingerprints, file: PlantConfig, names: Sequence[str]) -> PlantConfig:
    """The running configuration with some adapters, and the profiles, of the file; the others keep their tables."""
    data = running.config.written
    data["adapters"] = {
        **data.get("adapters", {}),
        **{name: file.written["adapters"][name] for name in names},
    }
    if "profiles" in file.written:
        data["profiles"] = {**data.get("profiles", {}), **file.written["profiles"]}
    merged = parse_plant(data, file.folder)
    theirs = {name for one in names for name in merged.adapters[one].table_names}
    return merged.with_tables({name: text for name, text in running.tables.items() if name not in theirs})


def _path_of(file: str) -> Path:
    path = Path(file)
    if not path.is_absolute():
        raise ConfigError(f"{file!r} is not a whole path, as the engine needs it", "file")
    return path


def who() -> str:
    """The user of this process, for the record: ``ann``."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
