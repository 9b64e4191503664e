"""The certificate and authorities of the public port, as they were read last."""

from __future__ import annotations

import ssl
from typing import Any, Self

from headrace.core.tls import TlsFiles


class RenewedContext(ssl.SSLContext):
    """A server's TLS context whose files can be read anew, for connections that come.

    asyncio keeps the context that a server was started with, and a context never forgets an authority, nor a session that
    it vouched for. So each reading makes another context, and this one hands connections on to the newest.

    Parameters
    ----------
    files : what is read, now and by `renew`. Raises OSError, SSLError where it can't be.
    """

    _present: ssl.SSLContext

    def __new__(cls, files: TlsFiles) -> Self:
        """A context is made by `__new__`, which takes a protocol."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self.renew()

    def renew(self) -> None:
        """Read the files; where that fails the port keeps what it has. Raises OSError, SSLError."""
        present = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        present.load_cert_chain(self._files.cert_file, self._files.key_file, password="")
        if self._files.client_ca_file is not None:
            present.load_verify_locations(self._files.client_ca_file)
            present.verify_mode = ssl.CERT_REQUIRED
        self._present = present

    def wrap_bio(self, *given: Any, **more: Any) -> ssl.SSLObject:
        """What asyncio does with each connection."""
        return self._present.wrap_bio(*given, **more)
