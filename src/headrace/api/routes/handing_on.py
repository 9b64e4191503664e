"""Answers of the engine, handed on as they are."""

from __future__ import annotations

import httpx
from starlette.responses import Response

_HEADERS = ("content-type", "etag", "retry-after")


def handed_on(answer: httpx.Response) -> Response:
    """The same answer to our own caller."""
    headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
    return Response(answer.content, answer.status_code, headers)
