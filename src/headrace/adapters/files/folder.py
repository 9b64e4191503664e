"""Looking at a folder and reading its files: everything that may block, for a thread of its own."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.adapters.files.patterns import COMPRESSED, CompiledRule
from headrace.adapters.files.positions import HEAD_BYTES, FilePosition, Key, head_hash
from headrace.adapters.meters import reason_of
from headrace.core.disk import sync_folder

CHUNK_BYTES = 512 << 10
LINE_BYTES_MAX = 1 << 20
BATCH_ROWS = 65_536
Cut = Callable[[bytes], int]
"""How many bytes of what was read are whole lines."""


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file of the folder that some rule is for.

    Parameters
    ----------
    name : its path in the folder. rule : number of its rule; -1 where it has one only by the name it had before.
    """

    name: str
    key: Key
    size_bytes: int
    mtime_ns: int
    rule: int


@dataclass(slots=True)
class FolderView:
    """What a look at the folder has found; `troubles`: what could not be looked at, and why."""

    files: list[SeenFile] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)


class ReadingFailed(Exception):
    """A file is not what its name says, or ends early; what was read of it before stands."""


class FileReplaced(Exception):
    """Another file has this name now, or it was cut: it is to be read from its beginning."""


@dataclass(frozen=True, slots=True)
class ReadLines:
    """What was read of a text file.

    Parameters
    ----------
    data : whole lines; all of it at the end of a finished file. rest_bytes : what came behind them, of a line that is
    not whole. head_bytes, head : of the file's beginning, as far as it was read.
    """

    data: bytes
    rest_bytes: int
    head_bytes: int
    head: int


def look(
    root: Path, rules: Sequence[CompiledRule], known: AbstractSet[Key], skipped: Path | None
) -> FolderView:
    """The files of a folder that a rule is for, and others of which a part was read under a name that one was for.

    Parameters
    ----------
    known : files that were read and are not done: they may have got another name. skipped : a folder to leave out.

    Raises
    ------
    OSError : the folder itself can't be read.
    """
    view = FolderView()
    inodes = {inode for _, inode in known}
    depth = max(rule.pattern.depth for rule in rules)
    with os.scandir(root) as entries:  # whatever is wrong with the folder itself is said at once
        todo: list[tuple[str, list[os.DirEntry[str]], int]] = [("", list(entries), 1)]
    while todo:
        prefix, some, level = todo.pop()
        for entry in sorted(some, key=lambda e: e.name):
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    if level < depth and Path(entry.path) != skipped:
                        with os.scandir(entry.path) as inside:
                            todo.append((f"{name}/", list(inside), level + 1))
                elif (seen := _seen(entry, name, rules, inodes)) is not None:
                    view.files.append(seen)
            except FileNotFoundError:
                continue  # it went while we looked
            except OSError as e:
                view.troubles[name] = reason_of(e)
    return view


def _seen(
    entry: os.DirEntry[str], name: str, rules: Sequence[CompiledRule], inodes: AbstractSet[int]
) -> SeenFile | None:
    rule = rule_of(name, rules)
    if rule < 0 and entry.inode() not in inodes:
        return None
    found = entry.stat()
    if not stat.S_ISREG(found.st_mode):
        return None
    return SeenFile(name, (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, rule)


def rule_of(name: str, rules: Sequence[CompiledRule]) -> int:
    """Number of the first rule that is for a file of this name; -1 where none is."""
    return next((n for n, rule in enumerate(rules) if rule.pattern.match(name) is not None), -1)


class LineSource(Protocol):
    """Reads whole lines of one file, from any byte."""

    def read(self, position: FilePosition, start: int, end: int | None, cut: Cut | None) -> ReadLines:
        """Whole lines from `start` on, some hundred kilobytes of them.

        Parameters
        ----------
        position : what is known of the file. end : where to stop, if it must be there. cut : finds whole lines; None
        takes all there is.

        Raises
        ------
        FileReplaced : it is another file. ReadingFailed : it can't be read any further. OSError : not now.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class TextSource:
    """A plain file; it is open only while it is read, so that whoever writes it can do with it what he wants."""

    def __init__(self, path: Path, key: Key) -> None:
        self._path, self._key = path, key

    def read(self, position: FilePosition, start: int, end: int | None, cut: Cut | None) -> ReadLines:
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != self._key or found.st_size < start:
                raise FileReplaced
            size = CHUNK_BYTES if end is None else end - start
            data = os.pread(fd, size, start)
            if cut is not None and end is None and not cut(data) and len(data) == size:
                data = os.pread(fd, LINE_BYTES_MAX, start)  # a long line
            # Looked at last: had it been cut and written anew before, it would begin in another way.
            beginning = os.pread(fd, HEAD_BYTES, 0)
        finally:
            os.close(fd)
        if not position.is_of(beginning):
            raise FileReplaced
        return _lines(data, start, cut if end is None else None, beginning)

    def close(self) -> None:
        return


class GzipSource:
    """A file that was compressed with gzip; positions are those in what was compressed."""

    def __init__(self, path: Path, key: Key) -> None:
        self._path, self._key = path, key
        self._file: gzip.GzipFile | None = None
        self._at = 0
        self._rest = b""
        self._head = b""

    def read(self, position: FilePosition, start: int, end: int | None, cut: Cut | None) -> ReadLines:
        try:
            return self._read(position, start, end, cut)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise ReadingFailed(f"not whole gzip data: {e}") from e

    def _read(self, position: FilePosition, start: int, end: int | None, cut: Cut | None) -> ReadLines:
        if self._file is None or start != self._at - len(self._rest):
            self._open(start)
        assert self._file is not None
        if not position.is_of(self._head):
            raise FileReplaced
        size = CHUNK_BYTES if end is None else end - start
        self._fill(size)
        if cut is not None and end is None and not cut(self._rest[:size]) and len(self._rest) >= size:
            size = LINE_BYTES_MAX
            self._fill(size)
        found = _lines(self._rest[:size], start, cut if end is None else None, self._head)
        self._rest = self._rest[len(found.data) :]
        return found

    def _open(self, start: int) -> None:
        self.close()
        self._file = gzip.open(self._path, "rb")  # noqa: SIM115 - closed by close
        found = os.fstat(self._file.fileno())
        if (found.st_dev, found.st_ino) != self._key:
            raise FileReplaced
        self._head = self._file.read(HEAD_BYTES)
        self._file.seek(start)
        self._at, self._rest = start, b""

    def _fill(self, n_bytes: int) -> None:
        """Have so many bytes to go on with, or all there are."""
        assert self._file is not None
        while len(self._rest) < n_bytes and (part := self._file.read(n_bytes - len(self._rest))):
            self._rest += part
            self._at += len(part)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _lines(data: bytes, start: int, cut: Cut | None, beginning: bytes) -> ReadLines:
    n_bytes = len(data) if cut is None else cut(data)
    head = beginning[: start + n_bytes]
    return ReadLines(data[:n_bytes], len(data) - n_bytes, len(head), head_hash(head))


def open_lines(path: Path, key: Key) -> LineSource:
    """The lines of a file, compressed or not."""
    return GzipSource(path, key) if path.name.endswith(COMPRESSED) else TextSource(path, key)


def read_head(path: Path, n_bytes: int) -> bytes:
    """The beginning of a text file, compressed or not. Raises OSError, `ReadingFailed` among them."""
    try:
        if path.name.endswith(COMPRESSED):
            with gzip.open(path, "rb") as packed:
                return packed.read(n_bytes)
        with path.open("rb") as plain:
            return plain.read(n_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ReadingFailed(f"not whole gzip data: {e}") from e


class ParquetSource:
    """A Parquet file, a row group at a time."""

    def __init__(self, path: Path, key: Key) -> None:
        try:
            file = path.open("rb")
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != key:
                file.close()
                raise FileReplaced
            self.head = file.read(HEAD_BYTES)
            self._raw = file
            self._file = pq.ParquetFile(file)
        except pa.ArrowException as e:
            file.close()
            raise ReadingFailed(f"not Parquet: {e}") from e
        self.n_groups: int = self._file.num_row_groups

    def read(self, group: int) -> Iterator[Any]:
        """The record batches of a row group. Raises `ReadingFailed`."""
        try:
            yield from self._file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
        except (pa.ArrowException, OSError) as e:
            raise ReadingFailed(f"row group {group + 1} of {self.n_groups} can't be read: {e}") from e

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._raw.close()


def dispose(path: Path, seen: SeenFile, target: Path | None) -> str:
    """Move a finished file to `target`, or delete it, if it is as it was `seen`; why it was left, or empty."""
    try:
        found = path.stat()
        key = found.st_dev, found.st_ino
        if (key, found.st_size, found.st_mtime_ns) != (seen.key, seen.size_bytes, seen.mtime_ns):
            return ""  # it grows again, or another one took its name
        if target is None:
            path.unlink()
            return ""
        target.parent.mkdir(parents=True, exist_ok=True)
        at, number = target, 1
        while at.exists():
            at, number = target.with_name(f"{target.name}.{number}"), number + 1
        path.rename(at)
    except FileNotFoundError:
        return ""
    except OSError as e:
        where = "it can't be deleted" if target is None else f"it can't be moved to {target.parent}"
        return f"{where}: {reason_of(e)}"
    with suppress(OSError):
        sync_folder(at.parent)
    return ""
