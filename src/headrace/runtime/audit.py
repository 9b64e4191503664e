"""Who changed what, and when: ``audit.jsonl`` in the store's folder, one JSON object a line.

Every request to the control port that is to change something is written down with its outcome, whoever sent it: the
command line or, handed on by the api process, a client of the public port. Samples that are pushed are not.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from headrace.core.clock import Clock
from headrace.runtime.times import rfc3339

AUDIT_FILE = "audit.jsonl"
ACTOR_HEADER = "Headrace-Actor"
"""Who asks, as the api process knows it."""
_SIZE_BYTES_MAX = 16 << 20
_TEXT_MAX = 500

_log = logging.getLogger(__name__)


class AuditLog:
    """The audit log of one store.

    Parameters
    ----------
    folder : the store's. The file is renamed to ``audit.1.jsonl`` when it has 16 MiB, over the one before.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path, self._clock = folder / AUDIT_FILE, clock

    def write(self, actor: str, method: str, path: str, status: int) -> None:
        """Add a line; a disk that refuses is told in the log and stops nobody."""
        document: dict[str, Any] = {
            "ts": rfc3339(self._clock.now_ns()),
            "actor": actor[:_TEXT_MAX] or "this machine",
            "method": method,
            "path": path[:_TEXT_MAX],
            "status": status,
        }
        line = (json.dumps(document, ensure_ascii=False) + "\n").encode()
        try:
            fd = os.open(self._path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640)
            try:
                os.write(fd, line)
                is_full = os.fstat(fd).st_size > _SIZE_BYTES_MAX
            finally:
                os.close(fd)
            if is_full:
                self._path.replace(self._path.with_name("audit.1.jsonl"))
        except OSError as e:
            _log.warning("can't write %s: %s", self._path, e.strerror)
