"""The configurations that a plant has run with, kept in its store: ``config/<n>.json``.

Each says when it came into force, who asked for it, which one was before it, and everything that is needed to go
back: the plant file's content and the tables beside it. The newest is the one in force; the newest fifty
are kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.core.config import PlantConfig, parse_plant
from headrace.core.disk import Disk
from headrace.core.errors import CorruptionError, NotFound
from headrace.runtime.changes import Fingerprints

FOLDER = "config"
VERSIONS_MAX = 50
TAGS = "tags"
"""How a version came about whose tables a tag table has changed."""
_PATH = re.compile(r"config/(\d{6})\.json")


@dataclass(frozen=True)
class AppliedVersion:
    """One configuration that came into force.

    Parameters
    ----------
    n : its number, from 1. previous : number of the one that `undo` goes back to; 0 for none.
    time : RFC 3339. by : who asked for it. how : start, apply, tags, undo or reload. file : the plant file's path.
    """

    n: int
    hash: str
    time: str
    by: str
    how: str
    file: str
    folder: str
    previous: int
    config: dict[str, Any]
    tables: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as it is stored."""
        return dict(vars(self))

    def summary(self) -> dict[str, Any]:
        """The same without its content."""
        return {k: v for k, v in vars(self).items() if k not in ("config", "tables", "folder")}


class Versions:
    """The versions of one store. Raises `StorageError` where the disk refuses."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def numbers(self) -> list[int]:
        """Numbers of all that are kept."""
        found = (_PATH.fullmatch(path) for path in self._disk.list(FOLDER))
        return sorted(int(m[1]) for m in found if m is not None)

    def newest(self) -> AppliedVersion | None:
        """The newest that can be read; None where there is none."""
        for n in reversed(self.numbers()):
            try:
                return self.get(n)
            except CorruptionError:
                continue
        return None

    def get(self, n: int) -> AppliedVersion:
        """One version. Raises `NotFound`; `CorruptionError`: its file is damaged."""
        data = bytes(self._disk.read(_path(n)))
        try:
            return AppliedVersion(**json.loads(data))
        except (ValueError, TypeError) as e:
            raise CorruptionError(f"{_path(n)} can't be read ({e}); that version is lost") from e

    def add(self, prints: Fingerprints, *, time: str, by: str, how: str, previous: int) -> AppliedVersion:
        """Keep what came into force; the oldest beyond fifty go."""
        numbers = self.numbers()
        source = prints.config.source
        version = AppliedVersion(
            (numbers[-1] if numbers else 0) + 1,
            prints.hash,
            time,
            by,
            how,
            "" if source is None else str(source.file),
            str(prints.config.folder),
            previous,
            prints.config.written,
            dict(prints.tables),
        )
        text = json.dumps(version.to_dict(), default=str)
        self._disk.replace(_path(version.n), text.encode() + b"\n")
        for n in numbers[: max(0, len(numbers) + 1 - VERSIONS_MAX)]:
            self._disk.delete(_path(n))
        return version

    def restored(self, version: AppliedVersion) -> PlantConfig:
        """The configuration of a version, with its tables, which may have been changed since.

        Raises
        ------
        InvalidConfig : this program does not take it any more.
        """
        return parse_plant(version.config, Path(version.folder)).with_tables(version.tables)


def _path(n: int) -> str:
    return f"{FOLDER}/{n:06d}.json"


def version_before(versions: Versions, running: AppliedVersion | None) -> AppliedVersion:
    """What `undo` goes back to. Raises `NotFound` where there is nothing before."""
    if running is None or not running.previous:
        raise NotFound("there is nothing to undo: this is the first configuration of the store")
    try:
        return versions.get(running.previous)
    except NotFound:
        raise NotFound(
            f"version {running.previous} is not kept any more; apply a plant file instead"
        ) from None


def tags_before(versions: Versions, running: AppliedVersion | None) -> AppliedVersion:
    """What undoing the newest change of tags goes back to.

    Raises
    ------
    NotFound : there is nothing before, or what runs came about in another way.
    """
    before = version_before(versions, running)
    made = None if running is None else _made(versions, running)
    if made is None or made.how != TAGS:
        raise NotFound(
            "the newest change of the configuration is none of tags; headrace undo takes it back, whatever it was"
        )
    return before


def _made(versions: Versions, running: AppliedVersion) -> AppliedVersion | None:
    """The version that first had the content of `running`, which may have come back by undoing what came later."""
    if running.how != "undo":
        return running
    for n in reversed([n for n in versions.numbers() if n < running.n]):
        try:
            one = versions.get(n)
        except CorruptionError:
            continue
        if (one.hash, one.previous) == (running.hash, running.previous) and one.how != "undo":
            return one
    return None
