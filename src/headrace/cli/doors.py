"""Where a running plant answers: the public port, which the api process serves, and the engine's control port."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import TYPE_CHECKING

from headrace.api.settings import ApiSettings, settings_clock
from headrace.cli.api_process import ApiProcess
from headrace.cli.certificate_watch import CertificateWatch
from headrace.core.clock import Clock
from headrace.core.disk import LocalDisk
from headrace.core.errors import ConfigError
from headrace.core.events import Event
from headrace.core.tls import TlsFiles, tls_files
from headrace.runtime.audit import AuditLog
from headrace.runtime.server import Access, ControlServer, address_of, announced, bind_port, new_key

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant


class Web(Enum):
    """Who answers on the public port."""

    PROCESS = auto()
    """The api process: page, queries, everything."""
    ENGINE = auto()
    """The engine itself: health, metrics, status, adapters; nothing else is started."""


def installed_web() -> Web:
    """The api process, where its libraries are installed."""
    return Web.PROCESS if importlib.util.find_spec("fastapi") else Web.ENGINE


class Doors:
    """Both ports of one plant.

    Order of calls: `bind`, `start`, `announced`, `stop`.
    """

    def __init__(self, plant: Plant, clock: Clock, web: Web) -> None:
        self._plant, self._clock, self._web = plant, clock, web
        access = Access.KEYED if web is Web.PROCESS else Access.OPEN_READS
        audit = AuditLog(plant.config.store_folder, clock)
        self._control = ControlServer(plant, clock, new_key(), access, audit)
        self._public: socket.socket | None = None
        self._tokens: dict[str, str] = {}
        self._tls: TlsFiles | None = None
        self._watch: CertificateWatch | None = None
        self._watching: list[asyncio.Task[None]] = []
        self.child: ApiProcess | None = None
        """The api process, once started."""

    def bind(self, port: int | None = None) -> None:
        """Take the ports; a port in use is an error at once.

        Parameters
        ----------
        port : another one than the plant file's.

        Raises
        ------
        ConfigError : a port is in use, or not ours to take; a token or a certificate can't be read, or nobody is
            there who speaks TLS.
        """
        config = self._plant.config
        api = config.api
        self._tokens = api.tokens.read(config.folder)
        self._tls = tls_files(api, config.folder, "api")
        port = api.port if port is None else port
        if self._web is Web.ENGINE:
            if self._tls is not None:
                raise ConfigError(
                    "only the api process speaks TLS, and without it this port is for this machine alone: remove "
                    "cert_file, or run without --no-web and with pip install 'headrace[web]'",
                    "api.cert_file",
                )
            self._control.bind(api.host, port)
            return
        self._public = bind_port(api.host, port)
        self._control.bind()

    @property
    def address(self) -> str:
        """The public one, once bound."""
        if self._public is None:
            return self._control.address
        return address_of(self._public, "http" if self._tls is None else "https")

    @property
    def has_page(self) -> bool:
        """Whether a browser finds the plant's page at `address`."""
        return self._web is Web.PROCESS and importlib.util.find_spec("nicegui") is not None

    async def start(self) -> None:
        """Answer: the control port at once, the public one when its process is up."""
        await self._control.start()
        if self._public is not None:
            self.child = ApiProcess(self._settings(self._public), self._public, self._tell)
            self.child.start()
            if self._tls is not None:
                self._watch = CertificateWatch(
                    self._tls, self._clock, self.child.renew_certificate, self._tell
                )
                self._watching = [asyncio.create_task(self._watch.run(), name="headrace-certificate")]

    def _settings(self, public: socket.socket) -> ApiSettings:
        config = self._plant.config
        return ApiSettings(
            store=str(config.store_folder.absolute()),
            control=self._control.address,
            key=self._control.key,
            pid=os.getpid(),
            fd=public.fileno(),
            levels=config.plant.levels,
            timezone=config.plant.timezone,
            tokens=self._tokens,
            tls=self._tls,
            **settings_clock(self._clock),
        )

    def _tell(self, kind: str, text: str) -> None:
        self._plant.events.append(Event(self._clock.now_ns(), kind, text))

    def announced(self) -> AbstractAsyncContextManager[None]:
        """While entered, the store says where to ask."""
        return announced(LocalDisk(self._plant.config.store_folder), self.address, self._control, self._clock)

    def renew(self) -> None:
        """Look now whether the certificate is another one; nothing to do without one."""
        if self._watch is not None:
            self._watching = [task for task in self._watching if not task.done()]
            self._watching.append(asyncio.create_task(self._watch.look(), name="headrace-certificate-now"))

    async def stop(self) -> None:
        """Close both. May be called twice, and before `start`."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self.child is not None:
            await self.child.stop()
        if self._public is not None:
            self._public.close()
        await self._control.stop()
