"""Requests to the engine and its answers, handed on."""

from __future__ import annotations

import httpx
from starlette.requests import Request
from starlette.responses import Response

from headrace.runtime.audit import ACTOR_HEADER

_HEADERS = ("content-type", "etag", "retry-after")


def handed_on(answer: httpx.Response) -> Response:
    """The same answer to our own caller."""
    headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
    return Response(answer.content, answer.status_code, headers)


def forwarded(request: Request, **more: str) -> dict[str, str]:
    """Headers of a request that is handed on: who asks, and what is in the body."""
    role = request.scope.get("state", {}).get("role", "")
    client = request.client.host if request.client else "unknown"
    return {
        ACTOR_HEADER: f"{role} at {client}",
        "Content-Type": request.headers.get("content-type", "application/json"),
        **more,
    }
