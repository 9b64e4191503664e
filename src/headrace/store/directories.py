"""The sensor directory in the store: a file for each growth, named by how many slots are known after it."""

from __future__ import annotations

from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.core.sensors import SensorDirectory

FOLDER = "directory"
_FILES_MAX = 32
_TRIES = 3


def directory_path(n_slots: int) -> str:
    """``directory/<n_slots>.parquet``."""
    return f"{FOLDER}/{n_slots:010d}.parquet"


def _sizes(disk: Disk) -> list[int]:
    names = [p.removeprefix(f"{FOLDER}/").removesuffix(".parquet") for p in disk.list(FOLDER)]
    return sorted(int(n) for n in names if n.isdigit())


def saved_slots(disk: Disk) -> int:
    """How many slots the store's files know; 0 for none."""
    return max(_sizes(disk), default=0)


def save_directory(disk: Disk, directory: SensorDirectory, saved_slots: int) -> str:
    """Save what came after `saved_slots`; the path of the newest file ("" for an empty directory).

    Where many files have gathered, one with everything replaces them.
    """
    n = directory.n_slots
    if n == saved_slots:
        return directory_path(n) if n else ""
    sizes = _sizes(disk)
    first = 0 if len(sizes) >= _FILES_MAX else saved_slots
    disk.put_if_absent(directory_path(n), directory.to_bytes(first))
    if first == 0:
        for old in sizes:
            if old < n:
                disk.delete(directory_path(old))
    return directory_path(n)


def load_directory(disk: Disk, directory: SensorDirectory | None = None) -> SensorDirectory:
    """All sensors that the store knows; what `directory` has already is passed over.

    Files that no commit names yet count too: their slots may be in the journal.

    Raises
    ------
    CorruptionError : a file is damaged or missing.
    """
    found = SensorDirectory() if directory is None else directory
    for _ in range(_TRIES):
        wrong: CorruptionError | None = None
        sizes = [n for n in _sizes(disk) if n > found.n_slots]
        for n in sizes:
            try:
                found.apply_bytes(disk.read(directory_path(n)))
            except NotFound:  # replaced by a whole one meanwhile
                break
            except CorruptionError as e:  # a later file may hold everything
                wrong = CorruptionError(f"{directory_path(n)}: {e}; restore it from a backup")
        if not sizes or found.n_slots >= sizes[-1]:
            return found
        if wrong is not None:
            raise wrong
    raise NotFound(f"the files below {FOLDER}/ changed {_TRIES} times while they were read; try again")
