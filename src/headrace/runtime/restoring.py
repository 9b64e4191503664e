"""Backups looked through, and made a store again."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.disk import Disk, LocalDisk, storage_error, sync_folder
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Unreachable
from headrace.runtime.backup import Tell
from headrace.runtime.soundness import verify_folder
from headrace.store.backups import BackupDisk, Catalogue, check_files, read_catalogue, read_catalogued
from headrace.store.verify import Harm


@dataclass(slots=True)
class BackupCheck:
    """What a backup holds, and what of it is not as it was written."""

    catalogue: Catalogue
    n_samples: int = 0
    harms: list[Harm] = field(default_factory=list)


def open_catalogue(folder: Path) -> Catalogue:
    """The catalogue of a backup folder.

    Raises
    ------
    Unreachable : it is no backup. CorruptionError : its catalogue is damaged.
    """
    try:
        return read_catalogue(LocalDisk(folder))
    except NotFound as e:
        raise Unreachable(
            f"{folder} is no backup: it has no catalogue, which a backup that was not finished has not either; "
            "headrace store backup --to FOLDER makes one"
        ) from e


def check_backup(folder: Path, tell: Tell = lambda n, total, path: None) -> BackupCheck:
    """Read every file of a backup, then decode everything as `verify_folder` does, without restoring it.

    Raises
    ------
    As `open_catalogue`.
    """
    return check_catalogued(LocalDisk(folder), open_catalogue(folder), tell)


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


def fill(target: Disk, source: Disk, catalogue: Catalogue, tell: Tell) -> None:
    """Put every file in its place in an empty store. Raises `CorruptionError`: one is not what was copied."""
    for n, (_, one) in enumerate(sorted(catalogue.files.items())):
        tell(n, len(catalogue.files), one.path)
        target.put_if_absent(one.path, read_catalogued(source, one))


def restore(folder: Path, to: Path, tell: Tell = lambda n, total, path: None) -> Catalogue:
    """Make a store of a backup: in a folder beside `to`, which gets its name once all is there and checked.

    Raises
    ------
    ConfigError : `to` exists and is not empty. CorruptionError : a file of the backup is damaged; nothing was made.
    Others as `open_catalogue`.
    """
    catalogue, source = open_catalogue(folder), LocalDisk(folder)
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise ConfigError(f"{to} is not empty; name a new folder, and move it into place afterwards")
    making = to.resolve().with_name(f".{to.resolve().name}.restoring")
    if making.exists():
        shutil.rmtree(making)  # of a restore that was cut
    target = LocalDisk(making)
    try:
        fill(target, source, catalogue, tell)
    except HeadraceError:
        shutil.rmtree(making, ignore_errors=True)
        raise
    making.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(making, to.resolve())
        sync_folder(to.resolve().parent)
    except OSError as e:
        shutil.rmtree(making, ignore_errors=True)
        raise storage_error("restore to", to, e) from e
    return catalogue
