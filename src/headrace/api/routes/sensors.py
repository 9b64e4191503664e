"""Which sensors there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from headrace.api.routes.asked import Asked

router = APIRouter(prefix="/api/v1/sensors", tags=["sensors"])


@router.get("")
async def sensors(
    backend: Asked,
    pattern: Annotated[
        str, Query(description="whole paths: `*` one level, `**` any number, `{a,b}` either")
    ] = "**",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> dict[str, Any]:
    """Sensors whose path matches."""
    return {"sensors": [{"path": path} for path in await backend.sensors(pattern, limit)]}
