"""Samples that clients push: line protocol as InfluxDB takes it, so that Telegraf's outputs work unchanged.

The body is handed to an adapter of the protocol ``http``, and the answer waits for the journal. Errors have InfluxDB's
form here: its clients read nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from headrace.api.backend import Backend
from headrace.api.control import EngineRefused
from headrace.api.routes.asked import PROBLEMS, Asked, problems
from headrace.api.routes.pushing import push
from headrace.core.errors import HeadraceError, NotFound, Rejected
from headrace.runtime.version import version

router = APIRouter(tags=["write"])
_CODES = {
    400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "not found", 408: "invalid", 413: "request too large",
    415: "invalid", 429: "too many requests", 500: "internal error", 503: "unavailable",
}  # fmt: skip
_EXAMPLE = {"code": "invalid", "message": "1 of 3 lines can't be taken: line 2: expected a field"}
_INFLUX: dict[int | str, dict[str, Any]] = {
    204: {"description": "everything is durable"},
    **{
        status: {"description": text, "content": {"application/json": {"example": _EXAMPLE}}}
        for status, text in (
            (400, "some of it, or all, can never be taken; the rest is durable"), (401, "no token"),
            (403, "not with this token"), (404, "no adapter takes what is pushed"), (413, "the body is too large"),
            (415, "an encoding that can't be read"), (429, "come again after `Retry-After` seconds"),
            (500, "a defect"), (501, "this engine can't"), (503, "the engine is not ready"),
        )
    },
}  # fmt: skip
_LINES = {
    "requestBody": {
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "oven,site=leon,line=line1,host=oven1 temperature=181.25 1772431200000000000\n",
            }
        }
    }
}
Precision = Annotated[str, Query(description="of times: ns, us, ms, s, m, h", max_length=10, examples=["ns"])]


async def _as_influx(backend: Backend, request: Request, wanted: str, precision: str) -> Response:
    try:
        await push(backend, request, wanted, {"precision": precision} if precision else {})
    except EngineRefused as e:
        return influx_error(e.status if e.status != 401 else 503, str(e), e.retry_after)
    except HTTPException as e:
        return influx_error(e.status_code, str(e.detail))
    except HeadraceError as e:
        status = 404 if isinstance(e, NotFound) else 400 if isinstance(e, Rejected) else 503
        return influx_error(status, str(e), "1" if status == 503 else None)
    return Response(status_code=204)


def influx_error(status: int, text: str, retry_after: str | None = None) -> Response:
    """An error as InfluxDB says it."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return JSONResponse({"code": _CODES.get(status, "internal error"), "message": text}, status, headers)


@router.post(
    "/api/v2/write", status_code=204, responses=_INFLUX, openapi_extra=_LINES, response_class=Response
)
async def write_v2(
    backend: Asked,
    request: Request,
    bucket: Annotated[
        str, Query(description="name of the adapter; any where there is only one", max_length=200)
    ] = "",
    org: Annotated[str, Query(description="not used", max_length=200)] = "",
    precision: Precision = "ns",
) -> Response:
    """Line protocol, as InfluxDB 2 and Telegraf's `influxdb_v2` output write it; 204 when the journal has it.

    In telegraf.conf:

        [[outputs.influxdb_v2]]
        urls = ["http://127.0.0.1:8844"]
        bucket = "telegraf"
    """
    return await _as_influx(backend, request, bucket, precision)


@router.post("/write", status_code=204, responses=_INFLUX, openapi_extra=_LINES, response_class=Response)
async def write_v1(
    backend: Asked,
    request: Request,
    db: Annotated[
        str, Query(description="name of the adapter; any where there is only one", max_length=200)
    ] = "",
    precision: Precision = "ns",
) -> Response:
    """Line protocol, as InfluxDB 1 and Telegraf's `influxdb` output (with `skip_database_creation`) write it."""
    return await _as_influx(backend, request, db, {"n": "ns", "u": "us"}.get(precision, precision))


@router.post(
    "/api/v1/write", status_code=204, response_class=Response, openapi_extra=_LINES,
    responses={**PROBLEMS, **problems(408, 415, 500, 501), 204: {"description": "everything is durable"}},
)  # fmt: skip
async def write(
    backend: Asked,
    request: Request,
    adapter: Annotated[str, Query(description="its name; any where there is only one", max_length=200)] = "",
    precision: Precision = "",
) -> Response:
    """Line protocol (`text/plain`), JSON (`application/json`) or JSON lines (`application/x-ndjson`).

    204 when the journal has it. `Idempotency-Key` makes sending it again harmless.
    """
    await push(backend, request, adapter, {"precision": precision} if precision else {})
    return Response(status_code=204)


@router.get("/ping", status_code=204, response_class=Response)
@router.head("/ping", status_code=204, response_class=Response, include_in_schema=False)
@router.get("/api/v2/ping", status_code=204, response_class=Response)
@router.head("/api/v2/ping", status_code=204, response_class=Response, include_in_schema=False)
async def ping() -> Response:
    """Say that somebody is there, as InfluxDB does."""
    return Response(status_code=204, headers={"X-Influxdb-Version": f"2.0-headrace-{version()}"})


@router.get("/health")
async def health(backend: Asked) -> Response:
    """Whether what is pushed would be taken, as InfluxDB says it."""
    try:
        await backend.control.get("/readyz")
        status, text = "pass", "ready for queries and writes"
    except (EngineRefused, HeadraceError) as e:
        status, text = "fail", str(e)
    document = {"name": "influxdb", "message": text, "status": status, "checks": [], "version": version()}
    return JSONResponse(document, 200 if status == "pass" else 503)
