"""Whether the process lives, whether the plant is ready, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from headrace.api.routes.asked import Asked, problems

router = APIRouter(tags=["health"], responses=problems(401, 403, 413))
_TEXT = {"schema": {"type": "string"}}
_METRICS = {
    **_TEXT,
    "example": "# TYPE headrace_samples_stored counter\nheadrace_samples_stored_total 7\n# EOF\n",
}


@router.get("/livez", response_class=PlainTextResponse)
async def live() -> str:
    """Say `ok` while this process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse, responses=problems(503))
async def ready(backend: Asked) -> str:
    """Say `ready` while the plant runs and the disk takes what comes; else 503 with the reason."""
    return (await backend.control.get("/readyz")).text


@router.get(
    "/metrics",
    response_class=Response,
    responses={**problems(503), 200: {"content": {"application/openmetrics-text": _METRICS}}},
)
async def metrics(backend: Asked) -> Response:
    """The plant's metrics, OpenMetrics 1.0."""
    found = await backend.control.get("/metrics")
    return Response(found.content, media_type=found.headers["content-type"])
