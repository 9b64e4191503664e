"""How adapters and their devices are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from headrace.api.routes.asked import Asked

router = APIRouter(prefix="/api/v1/adapters", tags=["adapters"])


@router.get("")
async def adapters(backend: Asked) -> list[dict[str, Any]]:
    """All adapters: state, reason, last good sample, counts."""
    return await backend.adapters()


@router.get("/{name}")
async def adapter(name: str, backend: Asked) -> dict[str, Any]:
    """One adapter with all its devices."""
    return await backend.adapter(name)
