"""Which adapter runs where: in the engine, or in a gateway process of its own.

In the engine, unless its section says ``process = "own"``, or its code has changed on the disk and was loaded anew: a
process imports a module once, so the new code needs another process, and stays there until the engine is restarted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from headrace.adapters.base import Adapter
from headrace.adapters.pacing import ConnectPacer
from headrace.adapters.registry import ADAPTERS
from headrace.core.clock import Clock
from headrace.core.config import PlantConfig
from headrace.runtime.adapter_making import make_adapter
from headrace.runtime.diagnostics import versions_of
from headrace.runtime.gateway import GatewayAdapter
from headrace.runtime.gateway_end import Spawn, spawn_gateway
from headrace.runtime.plugin_code import ImportedCode


class Gateways:
    """Makes the adapters of one plant, in the engine or with a gateway.

    Parameters
    ----------
    kind_of : as `make_adapter`. spawn : how a gateway process is started.
    """

    def __init__(
        self, clock: Clock, kind_of: Callable[[str], Any] = ADAPTERS.load, spawn: Spawn = spawn_gateway
    ) -> None:
        self._clock, self._kind_of, self._spawn = clock, kind_of, spawn
        self._imported: dict[str, ImportedCode | None] = {}
        self._renewed: set[str] = set()

    def make(self, config: PlantConfig, name: str, pacer: ConnectPacer | None = None) -> Adapter:
        """One adapter, not started. Raises ConfigError; one with new code is checked there, when it is prepared."""
        if name in self._renewed:
            return GatewayAdapter(name, config, self._clock, spawn=self._spawn)
        adapter = make_adapter(config, name, pacer, self._kind_of)
        section = config.adapters[name]
        if section.protocol not in self._imported:
            self._imported[section.protocol] = ImportedCode.of(ADAPTERS, section.protocol)
        if section.process == "engine":
            return adapter
        return GatewayAdapter(name, config, self._clock, adapter, self._spawn)

    def is_stale(self, config: PlantConfig, name: str, running: Adapter) -> bool:
        """Whether the code of a running adapter is not what lies on the disk by now. Reads its files."""
        protocol = config.adapters[name].protocol
        code = self._imported.get(protocol)
        if isinstance(running, GatewayAdapter):
            code = running.code
        return code is not None and code.has_changed(ADAPTERS, protocol)

    @contextlib.contextmanager
    def renewing(self, name: str) -> Iterator[None]:
        """From now on make an adapter with the code that lies on the disk; not where what is done here fails."""
        was_renewed = name in self._renewed
        self._renewed.add(name)
        try:
            yield
        except BaseException:
            if not was_renewed:
                self._renewed.discard(name)
            raise
        versions_of.cache_clear()
