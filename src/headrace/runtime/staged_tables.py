"""Tables beside a plant file, written together: all of them or none, whenever the program or the machine dies.

One file is swapped in one step. Before several are, what they are to say is written down in a note of its own, hidden
beside the plant file; from then on they are as good as written. The note goes when all have their names. A start that
finds one has been preceded by a crash between two of them, and ends what was begun.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from headrace.core.config import PlantConfig
from headrace.core.disk import LocalDisk, storage_error, sync_folder
from headrace.core.errors import ConfigError, StorageError
from headrace.core.profile_tables import read_table

_NOTE = ".headrace-tables.{}.json"
_log = logging.getLogger("headrace.runtime.tables")


class StagedTables:
    """Tables that are written beside a plant file, all of them or none.

    Parameters
    ----------
    texts : by name; None for a file that is to go. known : what each is believed to say now.
    """

    def __init__(self, folder: Path, texts: Mapping[str, str | None], known: Mapping[str, str]) -> None:
        self._folder, self._texts, self._known = folder, dict(texts), dict(known)
        self._before: dict[Path, bytes | None] = {}
        for name in texts:
            file = folder / name
            if file.exists() and read_table(file) != known.get(name):
                raise ConfigError(
                    f"{file} was changed by somebody else and is not what runs: take it in with headrace adapters "
                    f"reload or headrace apply first, or put it back"
                )

    @property
    def names(self) -> list[str]:
        """Files that are written, or go."""
        return list(self._texts)

    def stage(self) -> None:
        """Write them under other names, durably. Raises `StorageError`; nothing is left then."""
        try:
            for name, text in self._texts.items():
                if text is not None:
                    _write(self._folder / name, text.encode())
        except OSError as e:
            self.discard()
            raise storage_error("write", self._folder, e) from e

    def commit(self) -> None:
        """Give them their names, durably. Raises `StorageError`: then all are as before, and nothing is left."""
        files = {name: self._folder / name for name in self._texts}
        note = _note_beside(files.values()) if len(files) > 1 else None
        try:
            if note is not None:
                self._write_note(note)
            for name, file in files.items():
                old = file.read_bytes() if file.exists() else None
                _put(file, self._texts[name])
                self._before[file] = old
            _sync(files.values())
            if note is not None:
                _forget(note)
        except (OSError, StorageError) as e:
            self.take_back(note)
            if isinstance(e, StorageError):
                raise
            raise storage_error("write", self._folder, e) from e

    def _write_note(self, note: Path) -> None:
        tables = {name: {"from": self._known.get(name), "to": text} for name, text in self._texts.items()}
        LocalDisk(note.parent).replace(note.name, json.dumps({"tables": tables}).encode() + b"\n")

    def take_back(self, note: Path | None = None) -> None:
        """Make them again what they were before `commit`, and forget a note of it.

        Where the disk refuses that too, the note stays, and the next start goes on.
        """
        try:
            for file, data in self._before.items():
                if data is not None:
                    _write(file, data)
                    _temporary(file).replace(file)
                else:
                    file.unlink(missing_ok=True)
            _sync(self._before)
            if note is not None:
                _forget(note)
        except OSError as e:
            _log.error("%s: its tables may be half changed, and can't be put back: %s", self._folder, e)
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind that was staged."""
        for name in self._texts:
            with contextlib.suppress(OSError):
                _temporary(self._folder / name).unlink(missing_ok=True)


def finish_tables(config: PlantConfig) -> list[str]:
    """End what a crash has interrupted between two tables; what was done, a sentence each.

    A table that says neither what it did nor what it was to was changed by somebody since: it stays as it is.

    Raises
    ------
    ConfigError : a note can't be read. StorageError : the disk refuses, or an engine uses the store: it may be at it.
    """
    files = [config.folder / name for one in config.adapters.values() for name in one.table_names]
    if not _notes(files):
        return []
    disk, said = LocalDisk(config.store_folder), []
    disk.lock()
    try:
        for note in _notes(files):
            said += _finish(note, config.folder)
    finally:
        disk.unlock()
    return said


def _finish(note: Path, folder: Path) -> list[str]:
    try:
        wanted = json.loads(note.read_text(encoding="utf-8"))["tables"]
        changes = [(folder / name, change["from"], change["to"]) for name, change in wanted.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(
            f"{note} says which tables were being changed when the program died, and can't be read ({e!r}): look "
            f"whether they fit each other, then delete it"
        ) from e
    try:
        said = [_finished(*change) for change in changes]
        for file, _, _ in changes:
            _temporary(file, _pid_of(note)).unlink(missing_ok=True)
        _forget(note)
    except OSError as e:
        raise storage_error("write", folder, e) from e
    return [sentence for sentence in said if sentence]


def _finished(file: Path, old: str | None, new: str | None) -> str:
    """Make a file what it was to be. Raises OSError."""
    now = read_table(file) if file.exists() else None
    if now == new:
        return ""
    if (now or "") != (old or ""):
        return (
            f"{file} was being changed when the program died, and somebody has changed it since: it stays so"
        )
    if new is not None:
        _write(file, new.encode())
    _put(file, new)
    _sync([file])
    return f"{file} was being changed when the program died, and is now as it was to be"


def _notes(files: Iterable[Path]) -> list[Path]:
    return sorted(
        {note for parent in {file.parent for file in files} for note in parent.glob(_NOTE.format("*"))}
    )


def _pid_of(note: Path) -> str:
    return note.name.split(".")[2]


def _write(file: Path, data: bytes) -> None:
    """Beside it, under another name, with its rights. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(file).open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    if file.exists():
        shutil.copymode(file, _temporary(file))


def _put(file: Path, text: str | None) -> None:
    """Give what was written its name, or take the file away. Raises OSError."""
    if text is None:
        file.unlink(missing_ok=True)
    else:
        _temporary(file).replace(file)


def _sync(files: Iterable[Path]) -> None:
    """Make their names durable. Raises OSError."""
    for parent in dict.fromkeys(file.parent for file in files):
        if parent.is_dir():
            sync_folder(parent)


def _note_beside(files: Iterable[Path]) -> Path:
    """Where tables are written, so may be a note of them."""
    return min(file.parent for file in files) / _NOTE.format(os.getpid())


def _forget(note: Path) -> None:
    """Durably: one that came back would undo what is changed from now on. Raises OSError."""
    note.unlink(missing_ok=True)
    _sync([note])


def _temporary(file: Path, pid: int | str = "") -> Path:
    return file.with_name(f".{file.name}.{pid or os.getpid()}.new")
