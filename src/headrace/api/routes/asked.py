"""What routes share: the backend of the application they belong to, and how their problems are described."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from headrace.api.backend import Backend


def _backend(request: Request) -> Backend:
    found: Backend = request.app.state.backend
    return found


Asked = Annotated[Backend, Depends(_backend)]
"""The plant's backend, as a parameter of a route."""

_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "a plain sentence: what is wrong and what to do"},
        "code": {"type": "string", "description": "of a closed set"},
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of a route that may be problems with these statuses."""
    words = {
        400: "What was asked can't be", 401: "No token, or one that is not known", 403: "Not with this token",
        404: "There is no such thing", 405: "Not with this method", 406: "No form that is accepted", 408: "It came too slowly", 409: "It clashes with what is there",
        412: "It was changed meanwhile", 413: "Too large", 415: "A content type that can't be read",
        422: "Nothing of it can be taken", 429: "Too much at once: ask again after `Retry-After` seconds",
        500: "A defect", 501: "This engine can't", 503: "The engine or its store is not ready",
    }  # fmt: skip
    content = {"application/problem+json": {"schema": _SCHEMA}}
    return {status: {"description": words[status], "content": content} for status in statuses}


PROBLEMS = problems(400, 401, 403, 404, 405, 406, 408, 413, 422, 429, 503)
"""Of most routes."""
