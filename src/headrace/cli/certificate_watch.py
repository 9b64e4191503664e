"""The files of the public port's certificate: seen when they change, checked, and read anew without a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from headrace.core.clock import Clock
from headrace.core.errors import ConfigError
from headrace.core.tls import TlsFiles, check_files

LOOK_S = 60.0
Stamp = tuple[tuple[int, int, int] | None, ...]


class CertificateWatch:
    """Looks once a minute, and when asked, whether the files are others than those that are in use.

    What can't be used, as where the certificate is there already and its key not yet, is told once and left alone: the
    port goes on with what it has.

    Parameters
    ----------
    files : as they were read last. renew : makes the port read them; False where it can't now, and does so later.
    tell : told ``(kind, sentence)``.
    """

    def __init__(
        self, files: TlsFiles, clock: Clock, renew: Callable[[], bool], tell: Callable[[str, str], None]
    ) -> None:
        self._files, self._clock, self._renew, self._tell = files, clock, renew, tell
        self._read: Stamp = _stamp(files)
        self._refused: Stamp = ()
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self._clock.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look now."""
        async with self._looking:
            stamp = await asyncio.to_thread(_stamp, self._files)
            if stamp in (self._read, self._refused):
                return
            try:
                await asyncio.to_thread(check_files, self._files, "api")
            except ConfigError as e:
                self._refused = stamp
                self._tell(
                    "api.certificate-refused",
                    f"the files of the certificate have changed; the port keeps what it has: {e}",
                )
                return
            if self._renew():
                self._read, self._refused = stamp, ()
                self._tell(
                    "api.certificate",
                    f"{self._files.cert_file} has changed: new connections get the new certificate",
                )


def _stamp(files: TlsFiles) -> Stamp:
    """What changes with the files; None for one that is not there."""
    return tuple(
        _look(path) for path in (files.cert_file, files.key_file, files.client_ca_file) if path is not None
    )


def _look(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
