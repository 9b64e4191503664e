"""How far each file was read, kept durably: a log of lines of JSON, the newest line of a file counts.

A file is known by device, inode and the hash of its first bytes, up to a KiB of what was read: it keeps them under
another name, and another file that gets its inode has other bytes. A position is noted once everything before it is
durable, so that a process which dies at any moment reads again what was not noted, and never skips anything.

**Ahead.** Lines without a time get that at which they were read. Such a chunk is noted before it is handed on: read
again, it gets the same times, and the store recognises its samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import xxhash

from headrace.core.clock import NS
from headrace.core.disk import LocalDisk, storage_error
from headrace.core.errors import NotFound

HEAD_BYTES = 1_024
FILE = "positions.jsonl"
FORGET_NS = 7 * 86_400 * NS
_SPARE_LINES = 1_000
Key = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """A chunk that was read, perhaps handed on, and is not yet durable: [start, end), and when it was read."""

    start: int
    end: int
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class FilePosition:
    """How far a file was read.

    Parameters
    ----------
    name : under which it was seen last. head_bytes, head : how much of its beginning was hashed, and the hash.
    at : byte to go on from; of Parquet, the row group. line : number of the line there.
    size_bytes, mtime_ns : as of then. is_done : nothing is left of it as it was then.
    is_skipping : `at` lies inside of a line that is too long. noted_ns : when this was noted.
    """

    device: int
    inode: int
    name: str = ""
    head_bytes: int = 0
    head: int = 0
    at: int = 0
    line: int = 1
    size_bytes: int = 0
    mtime_ns: int = 0
    is_done: bool = False
    is_skipping: bool = False
    noted_ns: int = 0
    ahead: tuple[Ahead, ...] = ()

    @property
    def key(self) -> Key:
        """Device and inode."""
        return self.device, self.inode

    def is_of(self, beginning: bytes) -> bool:
        """Whether a file that begins so is the one that was read."""
        n = self.head_bytes
        return not n or (len(beginning) >= n and self.head == head_hash(beginning[:n]))

    def to_json(self) -> str:
        """A line of the log."""
        return json.dumps({k: v for k, v in asdict(self).items() if v or k == "at"})

    @classmethod
    def from_json(cls, text: str) -> FilePosition:
        """The inverse of `to_json`. Raises ValueError, TypeError or KeyError where `text` is none."""
        data = json.loads(text)
        ahead = tuple(Ahead(**one) for one in data.pop("ahead", ()))
        found = cls(**data, ahead=ahead)
        numbers = (
            found.device,
            found.inode,
            found.head_bytes,
            found.head,
            found.at,
            found.line,
            found.noted_ns,
        )
        if not all(type(n) is int and n >= 0 for n in numbers) or not isinstance(found.name, str):
            raise ValueError("a position has whole numbers and a name")
        return found


def head_hash(beginning: bytes) -> int:
    """What a file is known by beside its inode."""
    return xxhash.xxh3_64_intdigest(beginning)


@dataclass(slots=True)
class Positions:
    """The positions of all files of an adapter; in memory only where `folder` is None. For one thread at a time.

    Parameters
    ----------
    folder : where the log is kept.
    """

    folder: Path | None
    by_key: dict[Key, FilePosition] = field(default_factory=dict)
    _fd: int = -1
    _n_lines: int = 0

    def open(self, now_ns: int) -> None:
        """Read what earlier runs have left, and begin to write. Raises `StorageError`.

        What can't be read of it is left out: its files are read again, and the store recognises what it has.
        """
        if self.folder is None or self._fd >= 0:
            return
        try:
            text = bytes(LocalDisk(self.folder).read(FILE)).decode("utf-8", "replace")
        except NotFound:
            text = ""
        for line in text.splitlines():
            with suppress(ValueError, TypeError, KeyError):
                position = FilePosition.from_json(line)
                self.by_key[position.key] = position
        self.forget(frozenset(), now_ns)
        self._rewrite()

    def get(self, key: Key) -> FilePosition | None:
        """How far a file was read; None where it never was."""
        return self.by_key.get(key)

    def forget(self, followed: AbstractSet[Key], now_ns: int) -> None:
        """Forget what was noted long ago, but of files that are still there."""
        oldest_ns = now_ns - FORGET_NS
        self.by_key = {key: p for key, p in self.by_key.items() if p.noted_ns >= oldest_ns or key in followed}

    def unfinished(self) -> set[Key]:
        """Files of which something was left when they were noted last."""
        return {key for key, position in self.by_key.items() if not position.is_done}

    def note(self, positions: Iterable[FilePosition], now_ns: int) -> None:
        """Keep positions durably. Raises `StorageError`; they may be kept all the same, or not."""
        some = [replace(position, noted_ns=now_ns) for position in positions]
        for position in some:
            self.by_key[position.key] = position
        if self.folder is None:
            return
        if self._fd < 0 or self._n_lines > 2 * len(self.by_key) + _SPARE_LINES:
            self._rewrite()
            return
        data = "".join(f"{position.to_json()}\n" for position in some).encode()
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(28, "the disk took only a part")
            os.fdatasync(self._fd)
        except OSError as e:
            self.close()  # the next note writes all of them anew
            raise storage_error("write", self.folder / FILE, e) from e
        self._n_lines += len(some)

    def _rewrite(self) -> None:
        assert self.folder is not None
        self.close()
        text = "".join(f"{position.to_json()}\n" for position in self.by_key.values())
        LocalDisk(self.folder).replace(FILE, text.encode())
        try:
            self._fd = os.open(self.folder / FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as e:
            raise storage_error("write", self.folder / FILE, e) from e
        self._n_lines = len(self.by_key)

    def close(self) -> None:
        """Let go of the log; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
