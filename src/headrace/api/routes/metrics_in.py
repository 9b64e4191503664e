"""Metrics that are pushed: Prometheus' remote write, of both versions, and OTLP over HTTP.

Both wait for the journal, as every write does. What of a body can never be taken a sender is told as its specification
has it, and does not send again: Prometheus by a 400 with the number of samples that were written, OTLP by a partial
success.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.adapters.payloads.wire import varint, wrap
from headrace.api.control import EngineRefused
from headrace.api.routes.asked import PROBLEMS, Asked, problems
from headrace.api.routes.pushing import push
from headrace.core.errors import HeadraceError
from headrace.runtime.control_routes import problem, problem_of

router = APIRouter(tags=["write"])
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_PROTOS = ("prometheus.writerequest", "io.prometheus.write.v2.request")
_WRITTEN = "X-Prometheus-Remote-Write-{}-Written"
_GRPC_CODES = {
    400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 3, 415: 3, 429: 8, 500: 13, 501: 12, 503: 14,
}  # fmt: skip
"""Of google.rpc.Status, by HTTP's."""
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_Adapter = Annotated[str, Query(description="its name; any where there is only one", max_length=200)]


def _written(n_samples: int) -> dict[str, str]:
    """Headers that say what was written; native histograms and exemplars never are."""
    counts = {"Samples": n_samples, "Histograms": 0, "Exemplars": 0}
    return {_WRITTEN.format(what): str(n) for what, n in counts.items()}


@router.post(
    "/prometheus/api/v1/write", status_code=204, response_class=Response,
    openapi_extra={"requestBody": {"content": {PROTOBUF: _BINARY}}},
    responses={**PROBLEMS, **problems(408, 415, 500, 501), 204: {"description": "everything is durable"}},
)  # fmt: skip
async def remote_write(backend: Asked, request: Request, adapter: _Adapter = "") -> Response:
    """Prometheus' remote write 1.0 and 2.0, snappy; 204 when the journal has it.

    In prometheus.yml:

        remote_write:
          - url: http://127.0.0.1:8844/prometheus/api/v1/write
    """
    kind, *rest = (part.strip() for part in request.headers.get("content-type", PROTOBUF).split(";"))
    protos = [part[6:].strip('"').lower() for part in rest if part.startswith("proto=")]
    if kind.lower() != PROTOBUF or any(proto not in _PROTOS for proto in protos):
        known = " or ".join(
            f"{PROTOBUF};proto={proto}"
            for proto in ("prometheus.WriteRequest", "io.prometheus.write.v2.Request")
        )
        return problem(415, f"a content type that can't be read; send {known}")
    try:
        n_samples = await push(backend, request, adapter, {})
    except EngineRefused as e:
        if e.status != 400:
            raise
        taken = e.document.get("taken", 0)
        return problem(
            400, str(e), headers=_written(taken), taken=taken, refused=e.document.get("refused", 1)
        )
    return Response(status_code=204, headers=_written(n_samples))


@router.post(
    "/v1/metrics", response_class=Response,
    openapi_extra={"requestBody": {"content": {PROTOBUF: _BINARY, JSON: {"schema": {"type": "object"}}}}},
    responses={
        200: {"description": "an ExportMetricsServiceResponse: what is not told to be refused is durable", "content": {PROTOBUF: _BINARY, JSON: {"schema": {"type": "object"}}}},
        **{
            status: {"description": text, "content": {PROTOBUF: _BINARY, JSON: {"schema": {"type": "object"}}}}
            for status, text in (
                (400, "nothing of it can be read"), (404, "no adapter takes what is pushed"),
                (408, "it came too slowly"), (413, "too large"), (415, "a content type that can't be read"),
                (429, "come again after `Retry-After` seconds"), (500, "a defect"), (501, "this engine can't"),
                (503, "the engine is not ready"),
            )
        },
        **problems(401, 403, 422),
    },
)  # fmt: skip
async def otlp(backend: Asked, request: Request, adapter: _Adapter = "") -> Response:
    """OTLP metrics over HTTP, protobuf or JSON; answered when the journal has them.

    `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:8844/v1/metrics`
    """
    kind = request.headers.get("content-type", PROTOBUF).partition(";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        return _status(415, f"a content type that can't be read; send {PROTOBUF} or {JSON}", PROTOBUF)
    try:
        await push(backend, request, adapter, {"form": "otlp"})
    except EngineRefused as e:
        if e.document.get("read", False):
            return _partly(kind, e.document)
        return _status(503 if e.status == 401 else e.status, str(e), kind, e.retry_after)
    except HTTPException as e:
        return _status(e.status_code, str(e.detail), kind)
    except HeadraceError as e:
        answer = problem_of(e)
        return _status(answer.status_code, str(e), kind, answer.headers.get("retry-after"))
    return Response(b"{}" if kind == JSON else b"", media_type=kind)


def _partly(kind: str, document: Mapping[str, Any]) -> Response:
    """An ExportMetricsServiceResponse with how many points were refused, and why the first was."""
    refused, reason = int(document.get("refused", 0)), str(document.get("reason", ""))
    if kind == JSON:
        content = {"partialSuccess": {"rejectedDataPoints": str(refused), "errorMessage": reason}}
        return Response(json.dumps(content), media_type=kind)
    return Response(wrap(1, varint(1 << 3) + varint(refused) + wrap(2, reason.encode())), media_type=kind)


def _status(status: int, text: str, kind: str, retry_after: str | None = None) -> Response:
    """An error as OTLP says it: a google.rpc.Status in the form of the request."""
    code = _GRPC_CODES.get(status, 2)
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    if kind == JSON:
        return Response(json.dumps({"code": code, "message": text}), status, headers, media_type=kind)
    return Response(varint(1 << 3) + varint(code) + wrap(2, text.encode()), status, headers, media_type=kind)
