"""How adapters and their devices are, and what can be done about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from headrace.api.answers import PatientResponse
from headrace.api.routes.asked import PROBLEMS, Asked, problems
from headrace.api.routes.handing_on import forwarded, handed_on

router = APIRouter(prefix="/api/v1", tags=["adapters"], responses={**PROBLEMS, **problems(409, 500, 501)})
Name = Annotated[str, Path(description="as the plant file has it", max_length=200, examples=["ovens"])]


def _body(example: Any) -> dict[str, Any]:
    """Description of a body that the engine itself reads, whatever its content type."""
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"content": content}}


class Verb(StrEnum):
    """What can be done to a running adapter."""

    PAUSE = "pause"
    RESUME = "resume"
    RELOAD = "reload"


def _of(name: str, rest: str = "") -> str:
    return f"/api/v1/adapters/{quote(name, safe='')}{rest}"


@router.get("/adapters")
async def adapters(backend: Asked) -> list[dict[str, Any]]:
    """All adapters: state, reason, last good sample, counts."""
    return await backend.adapters()


@router.get("/adapters/{name}")
async def adapter(name: Name, backend: Asked) -> dict[str, Any]:
    """One adapter with all its devices."""
    return await backend.adapter(name)


class WantedTags(BaseModel):
    """Which signals of an adapter."""

    stale: bool = Field(False, description="only those without a usable value for longer than stale_after")
    stale_after_ns: int | None = Field(None, ge=1, lt=2**63, description="default: [runtime] stale_after")
    limit: int = Field(1_000, ge=1, le=100_000, description="so many, the longest silent first")


@router.get("/adapters/{name}/tags")
async def tags(name: Name, backend: Asked, wanted: Annotated[WantedTags, Query()]) -> Response:
    """When each signal of an adapter last gave a usable value, and why it gives none where its device says so."""
    parameters = {key: str(value) for key, value in wanted.model_dump().items() if value is not None}
    return handed_on(await backend.control.get(_of(name, "/tags"), parameters))


@router.get("/adapters/{name}/tail", response_class=Response)
async def tail(
    name: Name,
    backend: Asked,
    pattern: Annotated[str, Query(description="only of sensors that match", max_length=4_096)] = "**",
) -> Response:
    """What an adapter takes in, as it comes: one JSON object a line, for as long as you listen."""
    await backend.adapter(name)
    backend.followers.take()

    async def stream() -> AsyncIterator[str]:
        async with backend.control.lines(_of(name, f"/tail?pattern={quote(pattern, safe='')}")) as lines:
            async for line in lines:
                yield line + "\n"

    return PatientResponse(stream(), media_type="application/x-ndjson", at_end=backend.followers.give_back)


@router.post("/adapters/{name}/probe", openapi_extra=_body({"device": "leon/paint/line1/oven1"}))
async def probe(
    name: Name,
    backend: Asked,
    request: Request,
) -> Response:
    """One reading of a device, shown in every way it can be understood; nothing is stored."""
    answer = await backend.control.send(
        "POST", _of(name, "/probe"), body=await request.body(), headers=forwarded(request)
    )
    return handed_on(answer)


@router.post("/adapters/{name}/scan", openapi_extra=_body({"for": "10s"}))
async def scan(
    name: Name,
    backend: Asked,
    request: Request,
) -> Response:
    """What the source of an adapter offers, sensor or not yet: the beginning of a tag table. Nothing is stored."""
    answer = await backend.control.send(
        "POST", _of(name, "/scan"), body=await request.body(), headers=forwarded(request)
    )
    return handed_on(answer)


@router.post("/adapters/{name}/{verb}", openapi_extra=_body({"reason": "valve is changed"}))
async def steer(
    name: Name,
    verb: Verb,
    backend: Asked,
    request: Request,
) -> Response:
    """Pause an adapter, let it go on, or start it anew with what its files say now.

    `reload` with `{"code": true}` imports its code anew, in a process of its own, also where its own files are the same.
    """
    answer = await backend.control.send(
        "POST", _of(name, f"/{verb.value}"), body=await request.body(), headers=forwarded(request)
    )
    return handed_on(answer)


class WantedRejects(BaseModel):
    """Which rejects."""

    adapter: str | None = Field(None, max_length=200)
    code: str | None = Field(None, description="malformed, unknown-topic, wrong-type, ...", max_length=40)
    from_ns: int | None = Field(None, ge=0, lt=2**63)
    to_ns: int | None = Field(None, ge=0, lt=2**63)
    limit: int = Field(100, ge=1, le=1_000, description="the newest so many")


@router.get("/rejects")
async def rejects(backend: Asked, wanted: Annotated[WantedRejects, Query()]) -> Response:
    """Refused input that is kept: counts by code, and the newest with adapter, source and reason."""
    parameters = {name: str(value) for name, value in wanted.model_dump().items() if value is not None}
    return handed_on(await backend.control.get("/api/v1/rejects", parameters))


@router.get("/rejects/{id}")
async def reject(
    backend: Asked, id_: Annotated[str, Path(alias="id", max_length=100, description="as the list has it")]
) -> Response:
    """One reject with its bytes."""
    return handed_on(await backend.control.get(f"/api/v1/rejects/{quote(id_, safe='')}"))


@router.post("/rejects/replay", openapi_extra=_body({"code": "unknown-topic"}))
async def replay(
    backend: Asked,
    request: Request,
) -> Response:
    """Take rejected input in again, after what was wrong with it has been mended."""
    answer = await backend.control.send(
        "POST", "/api/v1/rejects/replay", body=await request.body(), headers=forwarded(request)
    )
    return handed_on(answer)
