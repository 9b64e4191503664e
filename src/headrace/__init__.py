"""Headrace: industrial sensor data, from device to query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.runtime.history import Pipeline
    from headrace.runtime.reader import open_store

__all__ = ["Pipeline", "open_store"]

# Where each name lives; nothing is imported before it is asked for.
_HOMES = {"Pipeline": "headrace.runtime.history", "open_store": "headrace.runtime.reader"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("headrace")
    if name not in _HOMES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
