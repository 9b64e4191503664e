"""The plant as a whole: how it is, what happens, what its file says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from headrace.api.answers import PatientResponse
from headrace.api.routes.asked import PROBLEMS, Asked, problems
from headrace.api.routes.handing_on import forwarded, handed_on

router = APIRouter(prefix="/api/v1", tags=["plant"], responses=PROBLEMS)
_EVENTS = 'id: 17\nevent: store.refused\ndata: {"id": 17, "ts": "2026-03-02T06:00:00.000000000Z", "kind": '
_EVENTS += '"store.refused", "text": "the disk is full; free some space", "fields": {}}\n\n'


@router.get("/status")
async def status(backend: Asked) -> dict[str, Any]:
    """State, rates, lag, what is in the store, and how the adapters are."""
    return await backend.status()


@router.get("/tiers")
async def tiers(backend: Asked) -> dict[str, Any]:
    """What each rule of `[tiers]` holds, in which tier, how small and how exact, and what is due."""
    return await backend.tiers()


@router.get(
    "/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}}},
)
async def events(
    backend: Asked,
    after: Annotated[int, Query(ge=0, le=2**53, description="number of the last event that is known")] = 0,
    last_event_id: Annotated[str | None, Header(description="the same, as browsers say it")] = None,
) -> Response:
    """What happens, as server-sent events: the last ones at once, new ones as they come.

    On a command line:

        curl -N http://127.0.0.1:8844/api/v1/events
    """
    if last_event_id is not None and last_event_id.isdecimal() and len(last_event_id) < 17:
        after = int(last_event_id)
    backend.followers.take()

    async def stream() -> AsyncIterator[str]:
        yield ": events\n\n"
        async with backend.control.lines(f"/api/v1/events?after={after}") as lines:
            async for line in lines:
                if not line:
                    yield ": still here\n\n"
                    continue
                document = json.loads(line)
                yield f"id: {document['id']}\nevent: {document['kind']}\ndata: {line}\n\n"

    return PatientResponse(
        stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"},
        at_end=backend.followers.give_back,
    )  # fmt: skip


@router.get("/config", responses=problems(501))
async def config(backend: Asked) -> Response:
    """The plant file that runs, without secrets, and its `ETag`."""
    return handed_on(await backend.control.get("/api/v1/config"))


@router.put(
    "/config",
    responses=problems(409, 412, 500, 501),
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def change_config(
    request: Request,
    backend: Asked,
    dry_run: Annotated[bool, Query(description="only say what would differ")] = False,
    if_match: Annotated[str | None, Header(description="the `ETag` that the change starts from")] = None,
) -> Response:
    """Make another plant file the running one; only what differs is touched."""
    headers = forwarded(request, **({} if if_match is None else {"If-Match": if_match}))
    parameters = {"dry_run": "true"} if dry_run else {}
    answer = await backend.control.send(
        "PUT", "/api/v1/config", body=await request.body(), headers=headers, parameters=parameters
    )
    return handed_on(answer)
