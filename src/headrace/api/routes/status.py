"""One screen of facts about the plant."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from headrace.api.routes.asked import Asked

router = APIRouter(prefix="/api/v1", tags=["plant"])


@router.get("/status")
async def status(backend: Asked) -> dict[str, Any]:
    """State, rates, lag, what is in the store, and how the adapters are."""
    return await backend.status()
