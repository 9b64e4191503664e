"""Copying a store while its engine takes in, compacts and deletes.

Nothing is locked and the engine is not asked. Files that are written once are copied at leisure; where one has
vanished meanwhile, compaction or a flush has put another in its place, and a newer view of the store says which. The
journal comes last: everything acknowledged before the backup began is in the segments of the view or in the journal
behind it, and where the journal was trimmed meanwhile, a newer view is taken. So a backup is what a power cut would
have left at one moment, and starts as that would.

The store may be in a bucket, with its journal in a folder, and so may the backup; files have the same paths in all of them. A
folder is locked while it is written to. A bucket can't be: of two backups into one the first to end counts, and the other
ends with a sentence, since each puts its catalogue in the place of the one that it began with and of no other. What it deletes
was there when it began, so that it is none of what the other has put there since.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from headrace.core.clock import Clock
from headrace.core.disk import Buffer, Disk, LocalDisk
from headrace.core.errors import ConfigError, CorruptionError, NotFound, Unreachable
from headrace.core.sensors import SensorDirectory
from headrace.ingest.journal_format import ObjectHeader
from headrace.ingest.journal_reader import FOLDER as JOURNAL
from headrace.runtime.announcement import RUNNING_FILE, is_store
from headrace.store.backups import (
    CATALOGUE,
    FILES,
    Catalogue,
    CataloguedFile,
    content_digest,
    read_catalogue,
    read_catalogued,
    write_catalogue,
)
from headrace.store.commits import FOLDER as COMMITS
from headrace.store.commits import STATE_FOLDER, unsealed_json
from headrace.store.directories import FOLDER as DIRECTORY
from headrace.store.disks import MARKER_FILE, SplitDisk, bucket_disk, is_cloud, local_of, open_disk, sizes_of
from headrace.store.rollups import STATE_FILE as ROLLUP_STATE
from headrace.store.view import StoreView, ViewLoader

_MANIFESTS, _REJECTS, _SEGMENTS = "manifests", "rejects", "segments"
_ONCE = (COMMITS, _MANIFESTS, _SEGMENTS, STATE_FOLDER, DIRECTORY, _REJECTS)
"""Folders whose files are written once; a view says which of them count."""
_NAMED = re.compile(rf"{_SEGMENTS}/.*-([0-9a-f]{{16}})\.parquet")
"""Segments with the XXH3 of their content in their name: all but hot ones."""
_JOURNAL_OBJECT = re.compile(rf"{JOURNAL}/\d{{8}}/\d{{8}}\.hrj")
_TRIES = 32
_ALWAYS = 2**63

Tell = Callable[[int, int, str], None]
"""Told before each file that is copied: how many files are there already, how many there are, its path."""


@dataclass(slots=True)
class BackupReport:
    """What a backup did; `problems` has a sentence for everything that the store could not give."""

    n_files: int = 0
    size_bytes: int = 0
    n_copied: int = 0
    n_copied_bytes: int = 0
    n_removed: int = 0
    n_rounds: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A view, and the files written once that belong to it."""

    view: StoreView
    paths: tuple[str, ...]
    rejects: tuple[str, ...]
    rollups: bytes | None


class _Moved(Exception):
    """The store has changed so that a newer view is needed."""


class Backup:
    """One backup of a store into a folder or bucket, which may hold an earlier one: then only what is new is copied.

    Parameters
    ----------
    source : the store. target : where the backup is.

    Raises
    ------
    ConfigError : there is something else, or the backup of another store.
    """

    def __init__(
        self, source: Disk, target: Disk, clock: Clock, tell: Tell = lambda n, total, path: None
    ) -> None:
        self._source, self._target, self._tell = source, target, tell
        self._taken_ns = clock.now_ns()
        self._before, self._before_bytes = _catalogue_of(target)
        self._there = sizes_of(target, FILES)
        self._sizes: dict[str, int] = {}
        self._files: dict[str, CataloguedFile] = {}
        self._lost: set[str] = set()
        self._n_wanted = 0
        self.report = BackupReport()

    def take(self) -> BackupReport:
        """Copy, write the catalogue, then delete what it does not list.

        Raises
        ------
        StorageError : a disk refuses; what was there before is still whole, run again later.
        Unreachable : the store changes faster than it can be copied, or another backup into the same bucket ended first.
        """
        self._take_changing(self._changing())
        moment, journal = self._settled()
        for path, data in journal:
            self._take_version(path, data)
        self._take_changing(self._changing())
        if moment.rollups is not None:
            self._take_version(ROLLUP_STATE, moment.rollups)
        wanted = {*moment.paths, *(path for path, _ in journal), *self._changing(), ROLLUP_STATE}
        files = {path: one for path, one in self._files.items() if path in wanted}
        report = self.report
        report.problems += [f"damaged in the store: {text}" for text in moment.view.damaged]
        last = moment.view.commits.last
        catalogue = Catalogue(self._taken_ns, last, files, tuple(report.problems))
        if not write_catalogue(self._target, catalogue, self._before_bytes):
            raise Unreachable(
                "another backup was put there meanwhile, and counts; run one at a time, and this one again"
            )
        report.n_files, report.size_bytes = len(files), catalogue.size_bytes
        self._prune(catalogue)
        return report

    # --- one moment ----------------------------------------------------------------------------------

    def _settled(self) -> tuple[_Moment, list[tuple[str, Buffer]]]:
        """A view all of whose files are copied, and the journal behind it."""
        loader = ViewLoader(self._source)
        for _ in range(_TRIES):
            self.report.n_rounds += 1
            try:
                moment = self._look(loader)
                self._take_once(moment)
                return moment, self._journal(moment)
            except _Moved:
                continue
        raise Unreachable(
            f"the store changed {_TRIES} times while it was copied; try again when less is going on, or faster storage"
        )

    def _look(self, loader: ViewLoader) -> _Moment:
        """A view, and the commits and manifests that it was made from and no others."""
        try:
            rollups = bytes(self._source.read(ROLLUP_STATE))
        except NotFound:
            rollups = None
        for _ in range(_TRIES):
            listed = self._listed(COMMITS, _MANIFESTS)
            view = loader.load()
            if listed == self._listed(COMMITS, _MANIFESTS):
                break
        else:
            raise _Moved
        if view.commits.last < self._before.last:
            raise ConfigError(
                f"the backup is of a store at commit {self._before.last}, this one is at {view.commits.last}: it was "
                "begun anew, or is another one; name another folder"
            )
        span = -_ALWAYS, _ALWAYS - 1
        segments = {source.info.name for source in (*view.sources(*span), *view.rollups(*span))}
        states = {position.state_path for position in view.commits.shards.values() if position.state}
        rejects = tuple(self._listed(_REJECTS))
        paths = (*sorted(segments), *sorted(states), *self._listed(DIRECTORY), *rejects, *listed)
        return _Moment(view, paths, rejects, rollups)

    def _listed(self, *folders: str) -> list[str]:
        return [path for folder in folders for path in self._source.list(folder)]

    def _take_once(self, moment: _Moment) -> None:
        """Copy the files that are written once. Raises `_Moved` where one has gone that was still needed."""
        self._n_wanted = len(moment.paths)
        self._sizes = {
            path: size for folder in _ONCE for path, size in sizes_of(self._source, folder).items()
        }
        has_gone = False
        for path in moment.paths:
            if path in self._files or path in self._lost:
                continue
            try:
                self._files[path] = self._once(path)
            except NotFound:
                has_gone = True
        if has_gone:
            self._give_up(moment)
            raise _Moved

    def _give_up(self, moment: _Moment) -> None:
        """What was not there and is still named by a newer view is lost: nothing comes back that was deleted."""
        now = self._look(ViewLoader(self._source))
        for path in sorted(set(now.paths) & set(moment.paths) - self._files.keys() - self._lost):
            self._lost.add(path)
            known = self._before.files.get(path)
            if known is not None:
                self._files[path] = known
            kept = "; the backup still has it" if known is not None else ""
            self.report.problems.append(f"{path} is missing in the store{kept}")

    def _journal(self, moment: _Moment) -> list[tuple[str, Buffer]]:
        """The journal's objects, held open: a trim does not take them away any more.

        Raises
        ------
        _Moved : records that the view needs are gone, or rejects have moved from there to their folder.
        """
        held: list[tuple[str, Buffer]] = []
        first_seq = -1
        for path in self._source.list(JOURNAL):
            if _JOURNAL_OBJECT.fullmatch(path) is None:
                continue
            try:
                data = self._source.read(path)
            except NotFound:  # trimmed, and all before it with it
                held, first_seq = [], -1
                continue
            header = ObjectHeader.from_bytes(data)
            if header is not None and not header.is_seal and first_seq < 0:
                first_seq = header.first_seq
            held.append((path, data))
        if held:  # its owner may cut it, and a mapped page that is gone ends a process
            held[-1] = (held[-1][0], bytes(held[-1][1]))
        needed = moment.view.commits.trim_seq(range(SensorDirectory().n_shards)) + 1
        is_trimmed = first_seq > needed > 0
        if is_trimmed and ViewLoader(self._source).load().commits.last != moment.view.commits.last:
            raise _Moved
        if tuple(self._listed(_REJECTS)) != moment.rejects:
            raise _Moved
        if is_trimmed:
            self.report.problems.append(f"the journal begins at record {first_seq}, {needed} is needed")
        return held

    # --- copying -------------------------------------------------------------------------------------

    def _once(self, path: str) -> CataloguedFile:
        """Copy a file that is written once, unless it is there. Raises `NotFound` where it has vanished."""
        known = self._before.files.get(path)
        if known is None or not self._is_there(known):
            data = self._source.read(path)
            self._check(path, data)
            one = CataloguedFile(path, len(data), content_digest(data))
            self._copy(one, data)
            return one
        if path not in self._sizes:
            raise NotFound(f"{path} is gone")
        if path.startswith(COMMITS):
            self._compare(known, self._source.read(path))
        elif self._sizes[path] != known.size_bytes:
            self._changed(path)
        return known

    def _check(self, path: str, data: memoryview) -> None:
        """Tell of a segment that is not what its name says; what there is of it is copied all the same."""
        named = _NAMED.fullmatch(path)
        if named is not None and named[1] != xxhash.xxh3_64_hexdigest(data):
            text = "its content has another checksum than its name; headrace store verify says what is lost"
            self.report.problems.append(f"damaged in the store: {path}: {text}")

    def _compare(self, known: CataloguedFile, data: memoryview) -> None:
        """Commits name everything else: where they are the same, so is the store."""
        if content_digest(data) == known.xxh64:
            return
        try:
            unsealed_json(data, known.path)
        except CorruptionError:
            self._changed(known.path)
        else:
            raise ConfigError(
                f"{known.path} says something else in the backup: it is of another store; name another folder"
            )

    def _changed(self, path: str) -> None:
        text = f"{path} was damaged since it was copied; the backup keeps what it was"
        if text not in self.report.problems:
            self.report.problems.append(text)

    def _is_there(self, one: CataloguedFile) -> bool:
        return self._there.get(one.place) == one.size_bytes

    def _changing(self) -> list[str]:
        """Files that grow or are replaced: all but those written once, the journal and what only an engine needs."""
        return [
            path
            for path in self._source.list("")
            if path.split("/")[0] not in _ONCE
            and path not in (RUNNING_FILE, MARKER_FILE, ROLLUP_STATE)
            and _JOURNAL_OBJECT.fullmatch(path) is None
        ]

    def _take_changing(self, paths: list[str]) -> None:
        """Copy the present state of each, unless it is there; of one that vanishes, nothing."""
        self._n_wanted = len(self._files) + len(paths)
        for path in paths:
            stamp = _stamp(self._source, path)
            known = self._files.get(path) or self._before.files.get(path)
            try:
                same = known is not None and stamp and known.stamp == stamp and self._is_there(known)
                if same and known is not None and self._source.size(path) == known.size_bytes:
                    self._files[path] = known
                else:
                    self._take_version(path, bytes(self._source.read(path)), stamp)
            except NotFound:
                self._files.pop(path, None)

    def _take_version(self, path: str, data: Buffer, stamp: int = 0) -> None:
        digest = content_digest(data)
        one = CataloguedFile(path, memoryview(data).nbytes, digest, stamp, f"{path}~{digest}")
        self._copy(one, data)
        self._files[path] = one

    def _copy(self, one: CataloguedFile, data: Buffer) -> None:
        """Put a file in its place; what a backup that was cut left there is kept where it is the same."""
        if self._is_there(one):
            try:
                read_catalogued(self._target, one)
                return
            except CorruptionError:
                pass
        self._tell(len(self._files), max(self._n_wanted, len(self._files) + 1), one.path)
        if not self._target.put_if_absent(one.place, data):
            self._target.replace(one.place, data)
        self._there[one.place] = one.size_bytes
        self.report.n_copied += 1
        self.report.n_copied_bytes += one.size_bytes

    def _prune(self, catalogue: Catalogue) -> None:
        """Delete what the catalogue does not list."""
        used = {one.place for one in catalogue.files.values()}
        for path in sorted(self._there):
            if path not in used:
                self._target.delete(path)
                self.report.n_removed += 1


def _catalogue_of(target: Disk) -> tuple[Catalogue, bytes | None]:
    """What is there, and its bytes."""
    try:
        return read_catalogue(target), bytes(target.read(CATALOGUE))
    except NotFound:
        pass
    others = [path for path in target.list("") if not path.startswith(FILES + "/")]
    if others:
        raise ConfigError(f"it holds {others[0]} and is no backup; name an empty one, or one that is")
    return Catalogue(), None


def _stamp(disk: Disk, path: str) -> int:
    """When a file was last changed, ns; 0 where the disk does not tell."""
    local = local_of(disk)
    if local is None:
        return 0
    try:
        return int((local.root / path).stat().st_mtime_ns)
    except OSError:
        return 0


def back_up(
    store: Path | Disk,
    to: Path | str,
    clock: Clock,
    tell: Tell = lambda n, total, path: None,
) -> BackupReport:
    """Copy a store into the backup at `to`; see `Backup`.

    Parameters
    ----------
    store : its folder, or the whole of it where that is open. to : a folder, or the url of a bucket and a prefix in it.

    Raises
    ------
    Unreachable : there is no store. ConfigError : `to` is in the store, or the other way round.
    """
    source = store if not isinstance(store, Path) else open_disk(store)
    local = local_of(source)
    if local is None or not is_store(local.root):
        where = store if local is None else local.root
        raise Unreachable(f"{where} holds no store; name the folder of one, or a plant file")
    if is_cloud(to):
        return Backup(source, _bucket_beside(source, str(to)), clock, tell).take()
    target = _folder_beside(local, Path(to))
    target.lock()
    try:
        return Backup(source, target, clock, tell).take()
    finally:
        target.unlock()


def _folder_beside(local: LocalDisk, to: Path) -> LocalDisk:
    one, other = local.root.resolve(), to.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ConfigError(f"{to} and the store {local.root} are one in the other; name a folder beside it")
    if to.exists() and not to.is_dir():
        raise ConfigError(f"{to} is a file; name a folder")
    return LocalDisk(to)


def _bucket_beside(source: Disk, to: str) -> Disk:
    if isinstance(source, SplitDisk):
        one, other = (f"{url.rstrip('/')}/" for url in (source.url, to))
        if one.startswith(other) or other.startswith(one):
            raise ConfigError(
                f"{to} and the store {source.url} are one in the other; name a prefix beside it"
            )
    return bucket_disk(to)
