"""Whether the process lives, whether the plant is ready, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from headrace.api.routes.asked import Asked

router = APIRouter(tags=["health"])


@router.get("/livez", response_class=PlainTextResponse)
async def live() -> str:
    """Say `ok` while this process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def ready(backend: Asked) -> str:
    """Say `ready` while the plant runs and the disk takes what comes; else 503 with the reason."""
    return (await backend.control.get("/readyz")).text


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(backend: Asked) -> Response:
    """The plant's metrics, OpenMetrics 1.0."""
    found = await backend.control.get("/metrics")
    return Response(found.content, media_type=found.headers["content-type"])
