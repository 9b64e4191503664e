"""What routes are handed: the backend of the application they belong to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from headrace.api.backend import Backend


def _backend(request: Request) -> Backend:
    found: Backend = request.app.state.backend
    return found


Asked = Annotated[Backend, Depends(_backend)]
"""The plant's backend, as a parameter of a route."""
