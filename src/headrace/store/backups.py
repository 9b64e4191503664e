"""Backups: copies of a store in a folder or a bucket, and the catalogue that says what belongs to the copy.

A backup, a folder or what is below a bucket's url, holds ``catalogue.json``, sealed as commits are, and ``files/``. The catalogue lists every file of the
store with its size and the XXH64 of its content; it is written last, so what it lists is there, whole. Files that
are written once have their own path below ``files/``; of files that grow or are replaced (the journal, rollups, the
audit log) each state is kept as ``<path>~<XXH64>``, so that a backup that is cut harms none before it. What the
catalogue does not list is left over, and goes with the next backup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from headrace.core.disk import AppendFile, Buffer, Disk, ReadFile
from headrace.core.errors import CorruptionError, NotFound, StorageError
from headrace.store.commits import checked, sealed_json, unsealed_json

CATALOGUE = "catalogue.json"
FILES = "files"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class CataloguedFile:
    """One file of a backup.

    Parameters
    ----------
    path : in the store. size_bytes, xxh64 : of its content. stamp : when it was last changed in the store, where
    files can be; 0 for one that is written once. stored : where it is below ``files/``.
    """

    path: str
    size_bytes: int
    xxh64: str
    stamp: int = 0
    stored: str = ""

    @property
    def place(self) -> str:
        """Its path in the backup."""
        return f"{FILES}/{self.stored or self.path}"

    def to_list(self) -> list[Any]:
        """JSON-ready values."""
        return [self.path, self.size_bytes, self.xxh64, self.stamp, self.stored]

    @classmethod
    def from_list(cls, data: list[Any]) -> CataloguedFile:
        """The inverse of `to_list`. Raises TypeError or ValueError where `data` is none."""
        path, size_bytes, digest, stamp, stored = data
        found = cls(
            checked(path, str), checked(size_bytes, int), checked(digest, str), checked(stamp, int), checked(stored, str)
        )  # fmt: skip
        for name in (found.path, found.place):
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{name!r} leads out of the folder")
        return found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a backup holds.

    Parameters
    ----------
    taken_ns : when it began: everything acknowledged before is in it. last : the newest commit, (incarnation, m).
    problems : a sentence for each thing that the store itself could not give.
    """

    taken_ns: int = 0
    last: tuple[int, int] = (0, 0)
    files: dict[str, CataloguedFile] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(one.size_bytes for one in self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "version": _VERSION, "taken_ns": self.taken_ns, "last": list(self.last), "problems": list(self.problems),
            "files": [one.to_list() for _, one in sorted(self.files.items())],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Catalogue:
        """The inverse of `to_dict`. Raises `CorruptionError`."""
        try:
            incarnation, m = data["last"]
            files = [CataloguedFile.from_list(one) for one in data["files"]]
            return cls(
                checked(data["taken_ns"], int), (checked(incarnation, int), checked(m, int)),
                {one.path: one for one in files}, tuple(checked(p, str) for p in data["problems"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as e:
            raise CorruptionError(f"its content is no catalogue: {e!r}") from e


def read_catalogue(disk: Disk) -> Catalogue:
    """The catalogue of a backup. Raises `NotFound` where there is none, `CorruptionError`."""
    try:
        return Catalogue.from_dict(unsealed_json(disk.read(CATALOGUE), CATALOGUE))
    except CorruptionError as e:
        cause = str(e).partition("; restore")[0]
        raise CorruptionError(
            f"{cause}; delete {CATALOGUE} and take the backup anew: what is there already is compared, not copied again"
        ) from e


def write_catalogue(disk: Disk, catalogue: Catalogue, before: Buffer | None = None) -> bool:
    """Put a catalogue in place of the one before, atomically.

    In a bucket, which nobody can lock, only where it still says `before`; False, and no change, where it does not.
    """
    data = sealed_json(catalogue.to_dict())
    swap = getattr(disk, "swap", None)
    if swap is not None:
        return bool(swap(CATALOGUE, before, data))
    disk.replace(CATALOGUE, data)
    return True


def content_digest(data: Buffer) -> str:
    """XXH64 of a file's content, 16 hex digits."""
    return xxhash.xxh64_hexdigest(data)


def read_catalogued(disk: Disk, one: CataloguedFile) -> memoryview:
    """A file's content out of a backup.

    Raises
    ------
    CorruptionError : it is missing, or not what was copied.
    """
    try:
        data = disk.read(one.place)
    except NotFound as e:
        raise CorruptionError(f"{one.place} is missing; take the backup anew") from e
    if len(data) != one.size_bytes or content_digest(data) != one.xxh64:
        raise CorruptionError(
            f"{one.place} is damaged: {len(data):,} bytes with checksum {content_digest(data)}, expected "
            f"{one.size_bytes:,} with {one.xxh64}; delete it and take the backup anew"
        )
    return data


def check_files(disk: Disk, catalogue: Catalogue) -> Iterator[tuple[CataloguedFile, str]]:
    """Read every file: each, and a sentence about what is wrong with it, "" for nothing."""
    for _, one in sorted(catalogue.files.items()):
        try:
            read_catalogued(disk, one)
        except CorruptionError as e:
            yield one, str(e)
        else:
            yield one, ""


class BackupDisk:
    """A backup as the store that it is a copy of: a `Disk` that can only be read."""

    def __init__(self, disk: Disk, catalogue: Catalogue) -> None:
        self._disk, self._files = disk, catalogue.files

    @property
    def n_reads_at_once(self) -> int:
        """As of the disk that it is on."""
        return self._disk.n_reads_at_once

    def read(self, path: str) -> memoryview:
        """The file's content, as it is."""
        return self._disk.read(self._of(path).place)

    def open(self, path: str, size_bytes: int | None = None) -> ReadFile:
        """The file, to be read in parts."""
        return self._disk.open(self._of(path).place, size_bytes)

    def prefetch(self, paths: Sequence[str]) -> None:
        """A hint, passed on."""
        self._disk.prefetch([self._files[path].place for path in paths if path in self._files])

    def size(self, path: str) -> int:
        """Its size."""
        return self._disk.size(self._of(path).place)

    def list(self, folder: str) -> list[str]:
        """Paths in the store."""
        prefix = folder.rstrip("/") + "/" if folder else ""
        return sorted(path for path in self._files if path.startswith(prefix))

    def free_bytes(self) -> int:
        """Free space."""
        return self._disk.free_bytes()

    def _of(self, path: str) -> CataloguedFile:
        if path not in self._files:
            raise NotFound(f"{path} is not in the backup")
        return self._files[path]

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        """Refused, as every change is."""
        raise StorageError(f"can't write {path}: a backup is only read; restore it first")

    def replace(self, path: str, data: Buffer) -> None:
        """Refused."""
        self.put_if_absent(path, data)

    def append(self, path: str) -> AppendFile:
        """Refused."""
        raise StorageError(f"can't write {path}: a backup is only read; restore it first")

    def truncate(self, path: str, size_bytes: int) -> None:
        """Refused."""
        self.put_if_absent(path, b"")

    def delete(self, path: str) -> None:
        """Refused."""
        self.put_if_absent(path, b"")
