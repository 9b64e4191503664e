"""Backups looked through, and made a store again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.disk import Disk, LocalDisk, storage_error, sync_folder
from headrace.core.errors import ConfigError, CorruptionError, HeadraceError, NotFound, Unreachable
from headrace.runtime.backup import Tell
from headrace.runtime.soundness import verify_folder
from headrace.store.backups import (
    CATALOGUE,
    BackupDisk,
    Catalogue,
    check_files,
    read_catalogue,
    read_catalogued,
)
from headrace.store.commits import FOLDER as COMMITS
from headrace.store.disks import (
    OBJECT_FOLDERS,
    SplitDisk,
    bucket_disk,
    is_cloud,
    local_of,
    mark_folder,
    sizes_of,
)
from headrace.store.verify import Harm


@dataclass(slots=True)
class BackupCheck:
    """What a backup holds, and what of it is not as it was written."""

    catalogue: Catalogue
    n_samples: int = 0
    harms: list[Harm] = field(default_factory=list)


def backup_disk(where: Path | str) -> Disk:
    """Where a backup is: a folder, or what is below a bucket's url."""
    return bucket_disk(str(where)) if is_cloud(where) else LocalDisk(where)


def open_catalogue(where: Path | str) -> Catalogue:
    """The catalogue of a backup.

    Raises
    ------
    Unreachable : it is no backup. CorruptionError : its catalogue is damaged.
    """
    try:
        return read_catalogue(backup_disk(where))
    except NotFound as e:
        raise Unreachable(
            f"{where} is no backup: it has no catalogue, which a backup that was not finished has not either; "
            "headrace store backup --to makes one"
        ) from e


def is_backup(where: Path | str) -> bool:
    """Whether there is a backup's catalogue, whatever it says."""
    if not is_cloud(where):
        return (Path(where) / CATALOGUE).is_file()
    try:
        return backup_disk(where).size(CATALOGUE) >= 0
    except NotFound:
        return False


def check_backup(where: Path | str, tell: Tell = lambda n, total, path: None) -> BackupCheck:
    """Read every file of a backup, then decode everything as `verify_folder` does, without restoring it.

    Raises
    ------
    As `open_catalogue`.
    """
    return check_catalogued(backup_disk(where), open_catalogue(where), tell)


def check_catalogued(
    disk: Disk, catalogue: Catalogue, tell: Tell = lambda n, total, path: None
) -> BackupCheck:
    """As `check_backup`, of a catalogue that was read."""
    found = BackupCheck(catalogue)
    for n, (one, sentence) in enumerate(check_files(disk, catalogue)):
        tell(n, len(catalogue.files), one.path)
        if sentence:
            found.harms.append(Harm(one.path, sentence))
    if found.harms:
        return found
    store = BackupDisk(disk, catalogue)
    verified = verify_folder(store, tell)
    found.n_samples, found.harms = verified.n_samples, verified.harms
    return found


def fill(target: Disk, source: Disk, catalogue: Catalogue, tell: Tell, put: list[str] | None = None) -> None:
    """Put every file in its place; commits last, which name all others. What was not there before is added to `put`.

    Raises
    ------
    CorruptionError : one is not what was copied. ConfigError : something else is in its place.
    """
    in_order = sorted(catalogue.files.values(), key=lambda one: (one.path.startswith(COMMITS), one.path))
    for n, one in enumerate(in_order):
        tell(n, len(in_order), one.path)
        data = read_catalogued(source, one)
        if target.put_if_absent(one.path, data):
            if put is not None:
                put.append(one.path)
        elif target.read(one.path) != data:
            raise ConfigError(f"{one.path} is there already, and is none of the backup; name an empty place")


def restore(where: Path | str, to: Path | SplitDisk, tell: Tell = lambda n, total, path: None) -> Catalogue:
    """Make a store of a backup: in a folder beside `to`, which gets its name once all is there and checked.

    Parameters
    ----------
    to : the folder, new or empty; or the folder and the bucket of a store that has both. In the bucket commits come last, so
        that there is no store before it is whole, and one that was cut is gone on with by the next call.

    Raises
    ------
    ConfigError : `to` is not empty. CorruptionError : a file of the backup is damaged; nothing was made.
    Others as `open_catalogue`.
    """
    catalogue, source = open_catalogue(where), backup_disk(where)
    if isinstance(to, Path):
        with _made(to) as local:
            fill(local, source, catalogue, tell)
        return catalogue
    folder = local_of(to)
    assert folder is not None
    _check_prefix(to, catalogue)
    put: list[str] = []
    try:
        with _made(folder.root) as local:
            target = SplitDisk(local, to.objects, to.place)
            fill(target, source, catalogue, tell, put)
            mark_folder(target)
    except (CorruptionError, ConfigError):
        for path in reversed(put):
            if path.partition("/")[0] in OBJECT_FOLDERS:
                to.objects.delete(path)
        raise
    return catalogue


def _check_prefix(to: SplitDisk, catalogue: Catalogue) -> None:
    """See that all that is in the bucket is of the backup, by a restore that was cut. Raises `ConfigError`."""
    for path, size in sorted(sizes_of(to.objects, "").items()):
        known = catalogue.files.get(path)
        if known is None or known.size_bytes != size:
            raise ConfigError(f"{to.url} holds {path}; name a prefix with nothing below it")


@contextmanager
def _made(to: Path) -> Iterator[LocalDisk]:
    """A folder that gets the name `to` at the end, and vanishes where something fails."""
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise ConfigError(f"{to} is not empty; name a new folder, and move it into place afterwards")
    making = to.resolve().with_name(f".{to.resolve().name}.restoring")
    if making.exists():
        shutil.rmtree(making)  # of a restore that was cut
    try:
        yield LocalDisk(making)
        making.mkdir(parents=True, exist_ok=True)
        os.replace(making, to.resolve())
        sync_folder(to.resolve().parent)
    except HeadraceError:
        shutil.rmtree(making, ignore_errors=True)
        raise
    except OSError as e:
        shutil.rmtree(making, ignore_errors=True)
        raise storage_error("restore to", to, e) from e
