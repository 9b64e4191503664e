"""Tags of a plant whose engine does not run: the tables beside its plant file, and the versions in its store.

The next start takes them as they are, and can go back from there: what was applied while nothing ran is kept like
what an engine applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from headrace.core.clock import Clock
from headrace.core.config import PlantConfig
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError, StorageError
from headrace.runtime.assemble import check_plant
from headrace.runtime.changes import Fingerprints, difference
from headrace.runtime.staged_tables import StagedTables, finish_tables
from headrace.runtime.tagging import TagWish, plan_tags, tables_back, tags_told
from headrace.runtime.times import rfc3339
from headrace.runtime.versions import TAGS, AppliedVersion, Versions, tags_before

R = TypeVar("R")
_log = logging.getLogger("headrace.runtime.tags")


class OfflineTags:
    """What `Reconfiguring` does with tags, without a plant that runs.

    Parameters
    ----------
    file : the plant file, with its source.
    """

    def __init__(self, file: PlantConfig, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._disk = LocalDisk(file.store_folder)
        self._versions = Versions(self._disk)

    def apply(self, tags: TagWish, by: str, is_trial: bool = False) -> dict[str, Any]:
        """Make the tables say what a tag table says.

        Raises
        ------
        InvalidConfig, ConfigError : they can't; nothing was changed. StorageError : the store is in use, or the disk
        refuses.
        """
        self._finish()
        plan = plan_tags(self._file, tags, None, lambda names: self._file)
        files = StagedTables(self._file.folder, plan.tables, plan.present)
        after = Fingerprints.of(plan.config)
        check_plant(after.frozen)

        def keep(version: AppliedVersion | None) -> AppliedVersion:
            before = Fingerprints.of(self._file)
            if version is None or version.hash != before.hash:
                previous = 0 if version is None else version.n
                version = self._add(before, by, "start", previous)
            return self._written(files, after, by, TAGS, version.n)

        before = Fingerprints.of(self._file.with_tables(plan.present))
        answer = {**difference(before, after).to_dict(), **plan.to_dict(), "applied": False}
        if is_trial or not plan.tables:
            return answer
        return {**answer, "applied": True, "version": self._locked(keep).n}

    def undo(self, by: str, is_trial: bool = False) -> dict[str, Any]:
        """Go back to the tables before. Raises as `apply`, and `NotFound`: there is nothing to undo."""
        self._finish()
        newest = self._versions.newest()
        before = tags_before(self._versions, newest)
        running = Fingerprints.of(self._file)
        if newest is None or newest.hash != running.hash:
            raise ConfigError(
                "the plant file or a table was changed since; put that back, or apply another tag table"
            )
        after = Fingerprints.of(self._versions.restored(before), reads=False)
        files = StagedTables(self._file.folder, tables_back(running, before.tables), running.tables)

        def keep(_: AppliedVersion | None) -> AppliedVersion:
            return self._written(files, after, by, "undo", before.previous)

        found = difference(running, after).to_dict()
        answer = {
            **found,
            "back_to": before.summary(),
            "tables": files.names,
            "tags": tags_told(running.frozen, after.frozen),
            "applied": False,
        }
        return answer if is_trial else {**answer, "applied": True, "version": self._locked(keep).n}

    def _finish(self) -> None:
        """What a crash has left half done is done first."""
        for sentence in finish_tables(self._file):
            _log.warning("%s", sentence)

    def _locked(self, keep: Callable[[AppliedVersion | None], R]) -> R:
        self._disk.lock()
        try:
            return keep(self._versions.newest())
        finally:
            self._disk.unlock()

    def _written(
        self, files: StagedTables, prints: Fingerprints, by: str, how: str, previous: int
    ) -> AppliedVersion:
        """Write the tables and keep the version that has them, both or neither."""
        files.stage()
        files.commit()
        try:
            return self._add(prints, by, how, previous)
        except StorageError:
            files.take_back()
            raise

    def _add(self, prints: Fingerprints, by: str, how: str, previous: int) -> AppliedVersion:
        now = str(rfc3339(self._clock.now_ns()))
        return self._versions.add(prints, time=now, by=by, how=how, previous=previous)
