"""A disk in memory that forgets what was not synced, fills up, goes read-only and rots, by a seed.

It keeps the promises that `headrace.core.disk.Disk` makes and no others: appended bytes that were not synced
are lost, torn or full of holes after a crash; `put_if_absent`, `replace` and `truncate` are done or not done;
deletions may be undone, the newest first.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.core.disk import AppendFile, Buffer, MappedFile, storage_error
from headrace.core.errors import NotFound
from headrace.core.faults import FaultPoints
from headrace.sim.faults import Crashed

_SECTOR_BYTES = 512


@dataclass(slots=True)
class _Content:
    data: bytearray = field(default_factory=bytearray)
    n_synced: int = 0


class _SimulatedAppendFile:
    def __init__(self, disk: SimulatedDisk, path: str, content: _Content) -> None:
        self._disk, self._path, self._content = disk, path, content
        self._is_open = True

    def write(self, data: list[Buffer]) -> None:
        joined = b"".join(data)
        room = self._disk.check_writable("write", self._path, self._is_open)
        with_fault = len(joined) // 2
        self._content.data += joined[: min(with_fault, room)]
        self._disk.faults.reach("disk.write")
        self._content.data += joined[with_fault:][: max(room - with_fault, 0)]
        if len(joined) > room:
            self._is_open = False
            raise storage_error("write", self._path, OSError(errno.ENOSPC, ""))

    def sync(self) -> None:
        self._disk.check_writable("sync", self._path, self._is_open)
        self._disk.faults.reach("disk.sync")
        self._content.n_synced = len(self._content.data)

    def close(self) -> None:
        self._is_open = False


class SimulatedDisk:
    """A `Disk` in memory.

    Parameters
    ----------
    seed : decides what a crash leaves of unsynced bytes, and whether an operation during which the process
        ended was done.
    capacity_bytes : size of the disk; writes beyond it are refused as a full disk does, after what fits.
    faults : reached at every operation, as ``disk.append``, ``disk.write``, ``disk.sync``, ``disk.put``, ...

    `capacity_bytes`, `is_read_only` and `faults` may be changed at any time.
    """

    n_reads_at_once = 1

    def __init__(
        self, seed: int = 0, capacity_bytes: int = 1 << 40, faults: FaultPoints | None = None
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.faults = faults or FaultPoints()
        self.is_read_only = False
        self._rng = np.random.default_rng(seed)
        self._files: dict[str, _Content] = {}
        self._deleted: list[tuple[str, _Content]] = []
        self._is_dead = False

    # --- the contract --------------------------------------------------------------------------------

    def read(self, path: str) -> memoryview:
        """A copy of the file as it is now, unsynced bytes included."""
        return memoryview(bytes(self._content(path).data))

    def open(self, path: str, size_bytes: int | None = None) -> MappedFile:
        """A copy, to be read in parts."""
        return MappedFile(self.read(path))

    def prefetch(self, paths: Sequence[str]) -> None:
        """Nothing: it is all in memory."""

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        """Create a file, done or not done."""
        self._check_room("write", path, len(data))
        if path in self._files:
            return False
        self._atomically("disk.put", path, lambda: self._store(path, data))
        return True

    def replace(self, path: str, data: Buffer) -> None:
        """Create or swap a file, done or not done."""
        self._check_room("write", path, len(data))
        self._atomically("disk.replace", path, lambda: self._store(path, data))

    def append(self, path: str) -> AppendFile:
        """Create a growing file; that it exists is durable."""
        self.check_writable("create", path)
        if path in self._files:
            raise FileExistsError(path)
        self._atomically("disk.append", path, lambda: self._store(path, b""))
        return _SimulatedAppendFile(self, path, self._files[path])

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut a file, done or not done; what is left is durable."""
        self.check_writable("repair", path)
        content = self._content(path)

        def cut() -> None:
            del content.data[size_bytes:]
            content.n_synced = len(content.data)

        self._atomically("disk.truncate", path, cut)

    def list(self, folder: str) -> list[str]:
        """Paths below `folder`, sorted; all for ""."""
        self._check_alive()
        prefix = f"{folder}/" if folder else ""
        return sorted(p for p in self._files if p.startswith(prefix))

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return len(self._content(path).data)

    def delete(self, path: str) -> None:
        """Remove a file; a crash may bring it back, until something is created in its folder."""
        self.check_writable("delete", path)
        self.faults.reach("disk.delete")
        content = self._files.pop(path, None)
        if content is not None:
            self._deleted.append((path, content))

    def free_bytes(self) -> int:
        """Free space."""
        self._check_alive()
        return max(self.capacity_bytes - sum(len(c.data) for c in self._files.values()), 0)

    # --- faults --------------------------------------------------------------------------------------

    def crash(self) -> SimulatedDisk:
        """What the next process finds; this disk, and every file opened on it, is dead from now on."""
        self._is_dead = True
        survivor = SimulatedDisk(int(self._rng.integers(2**63)), self.capacity_bytes)
        n_gone = int(self._rng.integers(len(self._deleted) + 1))
        found = dict(self._deleted[n_gone:]) | self._files
        for path in sorted(found):
            data = self._after_crash(found[path])
            survivor._files[path] = _Content(data, len(data))
        return survivor

    def _after_crash(self, content: _Content) -> bytearray:
        """Synced bytes, then none, some or all of the others, perhaps with sectors that were never written."""
        rng, first, whole = self._rng, content.n_synced, len(content.data)
        end = [first, whole, int(rng.integers(first, whole + 1))][rng.choice(3, p=[0.2, 0.2, 0.6])]
        data = content.data[:end]
        if end > first and rng.random() < 0.5:
            hole = int(rng.integers(first, end))
            stop = min(hole + _SECTOR_BYTES - hole % _SECTOR_BYTES, end)
            data[hole:stop] = bytes(stop - hole)
        return data

    def flip_bit(self, path: str, byte: int, bit: int = 0) -> None:
        """Let one bit of a file rot."""
        self._content(path).data[byte] ^= 1 << bit

    def check_writable(self, action: str, path: str, is_open: bool = True) -> int:
        """Bytes that may still be written; raises where nothing may."""
        self._check_alive()
        if self.is_read_only:
            raise storage_error(action, path, OSError(errno.EROFS, ""))
        if not is_open:
            raise storage_error(action, path, OSError(errno.EBADF, "the file was closed or has failed"))
        return self.free_bytes()

    def _check_room(self, action: str, path: str, n_bytes: int) -> None:
        if n_bytes > self.check_writable(action, path):
            raise storage_error(action, path, OSError(errno.ENOSPC, ""))

    def _atomically(self, point: str, path: str, effect: Callable[[], None]) -> None:
        """Reach `point` before or after the effect: an operation during which the process ends is done or not."""
        before = self._rng.random() < 0.5
        if before:
            self.faults.reach(point)
        effect()
        if not before:
            self.faults.reach(point)
        folder = path.rpartition("/")[0]
        self._deleted = [d for d in self._deleted if d[0].rpartition("/")[0] != folder]

    def _store(self, path: str, data: Buffer) -> None:
        self._files[path] = _Content(bytearray(data), len(data))

    def _content(self, path: str) -> _Content:
        self._check_alive()
        if path not in self._files:
            raise NotFound(f"{path} does not exist")
        return self._files[path]

    def _check_alive(self) -> None:
        if self._is_dead:
            raise Crashed("the disk of a process that has ended")
