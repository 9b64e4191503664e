"""Errors are orders: each kind says what its receiver must do; the text says what happened to whom.

The text of an error answers four questions: what, which (``adapter=modbus device=...``), expected against
got, what to do. A bad reading is not an error but a value: see `RejectCode` in `headrace.core.events`.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Any error that Headrace raises on purpose."""


class ConfigError(HeadraceError):
    """The configuration is wrong: say so before anything starts (exit code 2).

    Parameters
    ----------
    message : what is wrong and what is allowed.
    where : the key (``adapters.ovens.interval``) or file and line.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where
        self.message = message


class NotConnected(HeadraceError):
    """The peer is away: the supervisor reconnects with back-off."""


class RetryLater(HeadraceError):
    """Try the same again after `wait_s` seconds."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Overloaded(HeadraceError):
    """A bounded queue is full: slow the source; it may try again after `wait_s` seconds."""

    def __init__(self, message: str, wait_s: float = 1.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Rejected(HeadraceError):
    """The input will always fail: journal it as a reject and acknowledge it."""


class CorruptionError(HeadraceError):
    """Stored bytes fail their checksum or their grammar: quarantine them, never skip silently."""


class StorageError(HeadraceError):
    """The disk refuses (full, read-only, vanished): keep what is there, stop acknowledging, tell."""


class Undecided(StorageError):
    """A write was sent and its answer lost: it may be there, or come to be; ask before you write otherwise."""


class Fenced(HeadraceError):
    """Another owner took over this journal: stop at once, acknowledge nothing more."""


class Closed(HeadraceError):
    """The object was closed: the caller's work has ended."""


class NotFound(HeadraceError):
    """What was asked for does not exist (exit code 1)."""


class ChangedMeanwhile(HeadraceError):
    """What was to be changed is not any more as the caller saw it: look again (exit code 1)."""


class Unreachable(HeadraceError):
    """The target process or store can't be reached (exit code 3)."""


class NotAllowed(HeadraceError):
    """The target refuses what was asked: no token, the wrong one, or one that may not (exit code 4)."""


class PluginError(HeadraceError):
    """A plug-in is missing, clashes with another, or broke its contract."""
