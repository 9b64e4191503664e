"""What a source offers, asked of a running engine, of an adapter of a plant file, or of a url that nobody has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from headrace.adapters.abilities import FoundTag, Scans
from headrace.cli.target import Target
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Unreachable
from headrace.core.registry import nearest

_SCAN_S = 600.0


def found_tags(
    where: Target | None, adapter: str, wanted: dict[str, str], protocol: str = ""
) -> Sequence[FoundTag]:
    """All that is there.

    Parameters
    ----------
    where : the plant, where an adapter of it is named. wanted : in the protocol's words; ``url`` for a source of its own.
    protocol : of that url, where its scheme does not say it.

    Raises
    ------
    NotFound : no such adapter. ConfigError, NotConnected, HeadraceError : see `Scans.scan`; or it can't scan.
    """
    if not adapter:
        return _directly(wanted, protocol)
    assert where is not None
    engine = where.engine()
    if engine is not None:
        engine.timeout_s = _SCAN_S
        found = engine.send("POST", f"/api/v1/adapters/{quote(adapter)}/scan", wanted)
        return [FoundTag(**{k: v for k, v in one.items() if k != "ts"}) for one in found]
    return _by_file(where, adapter, wanted)


def _by_file(where: Target, name: str, wanted: dict[str, str]) -> Sequence[FoundTag]:
    """Without an engine: by the plant file, over a connection of our own."""
    from headrace.runtime.adapter_making import make_adapter

    if where.config is None:
        raise Unreachable(f"no engine runs on {where.text}; name the plant file with -t")
    known = list(where.config.adapters)
    if name not in known:
        raise NotFound(f"no adapter {name!r}{nearest(name, known)}")
    return _scanned(make_adapter(where.config, name), f"adapter {name}", wanted)


def _directly(wanted: dict[str, str], protocol: str) -> Sequence[FoundTag]:
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.clock import SystemClock
    from headrace.runtime.catalogue import schemes

    known = schemes()
    scheme = known.get(urlsplit(wanted["url"]).scheme)
    name = protocol or ("" if scheme is None else scheme.protocol)
    if name not in ADAPTERS:
        raise ConfigError(f"{wanted['url']!r} can't be scanned; write one of {', '.join(known)}://", "--url")
    kind: Any = ADAPTERS.load(name)
    if not hasattr(kind, "scan_url"):
        raise HeadraceError(f"{name} scans only what an adapter of a plant file has; write one, and name it")
    found: Sequence[FoundTag] = asyncio.run(kind.scan_url(wanted, SystemClock()))
    return found


def _scanned(adapter: Any, what: str, wanted: dict[str, str]) -> Sequence[FoundTag]:
    from headrace.core.clock import SystemClock

    if not isinstance(adapter, Scans):
        raise HeadraceError(f"{what} can't tell what its source offers")
    return asyncio.run(adapter.scan(wanted, SystemClock()))
