"""The files below folders, remembered while nothing was added to or removed from them.

Every query looks for new commits, and mostly there are none. To open a folder and look when it was last changed takes a tenth
of reading its names. It is opened for that, not only looked at, as file systems of a network promise to ask their
server only then.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from headrace.core.clock import NS, monotonic_ns

_SETTLED_NS = 3 * NS  # the longest step of a file system's times is 2 s, FAT's
_TRUSTED_NS = 30 * NS  # for as long at most, as some file systems give their folders no times
_KEPT, _NAMES_MAX = 64, 20_000  # folders, and names below one

_Stamp = tuple[int, int, int, int] | None
"""Device, number and times of change of a folder; None for one that is not there."""


class _Listing(NamedTuple):
    """``names`` below a folder, read at `read_ns`; `stamps` of it and of those below, all seen by `since_ns` for the first time."""

    names: list[str]
    read_ns: int
    stamps: dict[str, _Stamp]
    since_ns: int

    def is_settled(self, now_ns: int) -> bool:
        """Whether it holds while the stamps do."""
        return self.read_ns - self.since_ns >= _SETTLED_NS and now_ns - self.read_ns < _TRUSTED_NS


class Listings:
    """Lists folders; for any thread.

    A file system's times have steps, so that two changes may leave the same time. Names are therefore trusted only
    where they were read some seconds after all times had been seen: what changes after that has another time.

    Parameters
    ----------
    now_ns : a clock that never goes back.
    """

    def __init__(self, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._now_ns = now_ns
        self._known: OrderedDict[str, _Listing] = OrderedDict()

    def list(self, top: str, prefix: str = "") -> list[str]:
        """Paths of all files below a folder, from there, sorted; none where it does not exist. Raises `OSError`.

        Parameters
        ----------
        prefix : what they begin with; for a folder always the same.
        """
        begun_ns = self._now_ns()
        known = self._known.get(top)
        if known is None or not (known.is_settled(begun_ns) and _are_as_before(known.stamps)):
            stamps: dict[str, _Stamp] = {}
            names: list[str] = []
            _gather(top, prefix, stamps, names)
            names.sort()
            since_ns = known.since_ns if known is not None and known.stamps == stamps else self._now_ns()
            known = _Listing(names, begun_ns, stamps, since_ns)
            if len(names) <= _NAMES_MAX:
                self._known[top] = known
        with suppress(KeyError):  # another thread may have let go of it
            self._known.move_to_end(top)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known.names.copy()


def _are_as_before(stamps: dict[str, _Stamp]) -> bool:
    for folder, stamp in stamps.items():
        fd = _opened(folder)
        if fd is None:
            if stamp is not None:
                return False
            continue
        try:
            if _stamp(fd) != stamp:
                return False
        finally:
            os.close(fd)
    return True


def _opened(folder: str) -> int | None:
    """None where it does not exist."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _stamp(fd: int) -> _Stamp:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _gather(folder: str, prefix: str, stamps: dict[str, _Stamp], names: list[str]) -> None:
    """Files below a folder; `os.walk` takes twice as long."""
    fd = _opened(folder)
    if fd is None:
        stamps[folder] = None
        return
    try:
        stamps[folder] = _stamp(fd)  # before its names: what is added while they are read changes it
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _gather(os.path.join(folder, entry.name), f"{prefix}{entry.name}/", stamps, names)
                elif not entry.name.startswith("."):
                    names.append(prefix + entry.name)
    finally:
        os.close(fd)
