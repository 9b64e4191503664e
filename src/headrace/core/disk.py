"""Files as the journal and the store need them: durable, created once, in order.

Everything that must survive goes through a `Disk`, so that a simulated disk, which forgets what was not
synced, can stand in for the real one. Paths are relative, parted by ``/``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.core.errors import NotFound, StorageError
from headrace.core.listings import Listings

Buffer = bytes | bytearray | memoryview
BUCKET_SCHEMES = ("s3", "gs", "az")
"""Of urls that name no folder but a bucket: S3, Google Cloud Storage, Azure Blob Storage."""


class AppendFile(Protocol):
    """A file that only grows. One writer."""

    def write(self, data: list[Buffer]) -> None:
        """Append the buffers; not durable before `sync` has returned. After a failure the file is unusable."""
        ...

    def sync(self) -> None:
        """Return when everything written is durable."""
        ...

    def close(self) -> None:
        """Close without a sync."""
        ...


class ReadFile(Protocol):
    """A file that never changes, read in parts; for any thread. Raises `NotFound` where it is gone."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        ...

    def read(self, start: int, end: int) -> Buffer:
        """Bytes [start, end)."""
        ...

    def read_many(self, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        """Several parts, each [start, end), fetched together where they come from afar."""
        ...


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A `ReadFile` that is in memory, or looks as if it were."""

    data: memoryview

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.data)

    def read(self, start: int, end: int) -> Buffer:
        """A view; nothing is copied."""
        return self.data[start:end]

    def read_many(self, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        """Views; nothing is copied."""
        data = self.data
        return [data[a:b] for a, b in zip(starts, ends, strict=True)]


class Disk(Protocol):
    """A folder of files. Every method raises `StorageError` (a plain sentence) where the disk refuses."""

    @property
    def n_reads_at_once(self) -> int:
        """How many reads are worth having under way together: one where they cost CPU, more where they cost time."""
        ...

    def read(self, path: str) -> memoryview:
        """The whole file, mapped rather than copied where possible. Raises `NotFound`."""
        ...

    def open(self, path: str, size_bytes: int | None = None) -> ReadFile:
        """The file, to be read in parts. `size_bytes`: what it should have, which saves asking.

        Raises
        ------
        NotFound : it is gone; where the file is far away perhaps only when it is read.
        """
        ...

    def prefetch(self, paths: Sequence[str]) -> None:
        """A hint that these files are read next, whole, each once; never raises."""
        ...

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        """Create `path` durably and whole; False, and no change, where it exists."""
        ...

    def replace(self, path: str, data: Buffer) -> None:
        """Create or swap `path` durably and atomically."""
        ...

    def append(self, path: str) -> AppendFile:
        """Create a growing file. Raises `FileExistsError` where it exists."""
        ...

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut a file to its first `size_bytes`, durably: how a torn tail is repaired."""
        ...

    def list(self, folder: str) -> list[str]:
        """Paths of all files below `folder` ("" for the whole disk), sorted; none where it does not exist."""
        ...

    def size(self, path: str) -> int:
        """Bytes of a file. Raises `NotFound`."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; no error where it is gone already."""
        ...

    def free_bytes(self) -> int:
        """Free space."""
        ...


_HINTS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file-size limit of this process is reached; raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only; remount it or choose another folder",
    errno.EACCES: "no permission; check the owner of the folder",
    errno.EPERM: "not permitted; check the owner of the folder",
}


def storage_error(action: str, path: str | Path, error: OSError) -> StorageError:
    """A `StorageError` that says what was tried, where, and what to do."""
    hint = _HINTS.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"can't {action} {path}: {hint}")


class _LocalAppendFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._n_written_bytes = self._n_dropped_bytes = 0

    def write(self, data: list[Buffer]) -> None:
        try:
            pending = [memoryview(d).cast("B") for d in data if len(d)]
            while pending:
                n = os.writev(self._fd, pending[:512])
                self._n_written_bytes += n
                while pending and n >= len(pending[0]):
                    n -= len(pending.pop(0))
                if n:
                    pending[0] = pending[0][n:]
        except OSError as e:
            raise storage_error("write", self._path, e) from e

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as e:
            raise storage_error("sync", self._path, e) from e
        self._drop()

    def _drop(self) -> None:
        """Take what is on disk out of the page cache: nobody reads it soon, and its pages serve the next write."""
        first = self._n_dropped_bytes - self._n_dropped_bytes % mmap.PAGESIZE
        self._n_dropped_bytes = self._n_written_bytes
        # Advice only: what was synced is durable, whatever a file system says to it, or a system that has none.
        with contextlib.suppress(OSError, AttributeError):
            os.posix_fadvise(self._fd, first, self._n_written_bytes - first, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)


class LocalDisk:
    """A `Disk` in a local folder, made when it is first written to."""

    n_reads_at_once = 1

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._listings = Listings()
        self._lock_fd: int | None = None

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and what is above it; a new folder is durable once the one above it is synced."""
        if not folder.is_dir():
            self._make_folder(folder.parent)
            # Another thread may be first; a file of that name shows when something is put in it.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            sync_folder(folder.parent)

    def read(self, path: str) -> memoryview:
        full = self.root / path
        try:
            with full.open("rb") as f:
                if os.fstat(f.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as e:
            raise NotFound(f"{full} does not exist") from e
        except OSError as e:
            raise storage_error("read", full, e) from e

    def open(self, path: str, size_bytes: int | None = None) -> MappedFile:
        return MappedFile(self.read(path))

    def prefetch(self, paths: Sequence[str]) -> None:
        return

    def _write_temporary(self, temporary: Path, data: Buffer) -> None:
        self._make_folder(temporary.parent)
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        full = self.root / path
        temporary = _temporary(full)
        try:
            self._write_temporary(temporary, data)
            created = _link(temporary, full)
            # Also where another made it: who is told that it exists may count on it.
            sync_folder(full.parent)
            return created
        except OSError as e:
            raise storage_error("write", full, e) from e
        finally:
            _remove(temporary)

    def replace(self, path: str, data: Buffer) -> None:
        full = self.root / path
        temporary = _temporary(full)
        try:
            self._write_temporary(temporary, data)
            temporary.replace(full)
            sync_folder(full.parent)
        except OSError as e:
            _remove(temporary)
            raise storage_error("write", full, e) from e

    def append(self, path: str) -> AppendFile:
        full = self.root / path
        try:
            self._make_folder(full.parent)
            file = _LocalAppendFile(full)
            sync_folder(full.parent)
            return file
        except FileExistsError:
            raise
        except OSError as e:
            raise storage_error("create", full, e) from e

    def truncate(self, path: str, size_bytes: int) -> None:
        full = self.root / path
        try:
            with full.open("r+b") as f:
                f.truncate(size_bytes)
                os.fsync(f.fileno())
        except OSError as e:
            raise storage_error("repair", full, e) from e

    def list(self, folder: str) -> list[str]:
        top = os.path.join(self.root, folder)
        try:
            return self._listings.list(top, folder and folder + "/")
        except OSError as e:
            raise storage_error("list", top, e) from e

    def size(self, path: str) -> int:
        try:
            return (self.root / path).stat().st_size
        except FileNotFoundError as e:
            raise NotFound(f"{self.root / path} does not exist") from e
        except OSError as e:
            raise storage_error("look at", self.root / path, e) from e

    def delete(self, path: str) -> None:
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as e:
            raise storage_error("delete", self.root / path, e) from e

    def free_bytes(self) -> int:
        folder = self.root
        try:
            while not folder.exists():
                folder = folder.parent
            stat = os.statvfs(folder)
        except OSError as e:
            raise storage_error("look at", folder, e) from e
        return stat.f_bavail * stat.f_frsize

    def lock(self) -> None:
        """Own the folder until this process ends; the lock dies with the process.

        What a writer that was killed left half-written is removed.

        Raises
        ------
        StorageError : another process owns it, or the folder can't be written to.
        """
        try:
            self._make_folder(self.root)
            fd = os.open(self.root / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise storage_error("open", self.root, e) from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StorageError(
                f"store {self.root} is in use by process {owner}; stop it first, or choose another store"
            ) from e
        self._lock_fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except OSError as e:
            self.unlock()
            raise storage_error("write", self.root / ".lock", e) from e
        for left in self.root.rglob(".*.tmp"):
            _remove(left)

    def unlock(self) -> None:
        """Give the folder back; no error where it was not locked."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: files that were created, renamed or deleted there. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temporary(full: Path) -> Path:
    """Where `full` is written before it gets its name: of this thread alone, hidden from `list`."""
    return full.with_name(f".{full.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def _link(temporary: Path, full: Path) -> bool:
    try:
        os.link(temporary, full)
    except FileExistsError:
        return False
    return True


def _remove(path: Path) -> None:
    """Tidy up; a disk that refuses that too has said so already."""
    with contextlib.suppress(OSError):
        path.unlink()
