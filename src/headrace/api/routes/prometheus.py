"""Prometheus' HTTP interface, so that Grafana's Prometheus source reads the store as it is.

Errors have Prometheus' form here, not that of problems: its clients read nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from headrace.api.backend import Backend
from headrace.api.promql.answers import PromAnswer
from headrace.api.promql.lexer import duration_ns
from headrace.api.promql.nodes import PromQlError
from headrace.api.routes.asked import Asked
from headrace.core.errors import ConfigError, HeadraceError, Overloaded
from headrace.core.spans import parse_time_ns
from headrace.runtime.version import version

_FORM_BYTES_MAX = 1 << 20
_FIELDS_MAX = 500
_LIMIT = 10_000
_NS = 10**9
_METRIC = {"__name__": "temperature", "site": "leon", "area": "paint", "line": "line1", "device": "oven1"}
_VECTOR = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": _METRIC, "value": [1772431200.0, "181.25"]}]},
}
_ERROR = {"status": "error", "errorType": "bad_data", "error": "1:7: parse error: unexpected end of input"}


def _described(example: Any) -> dict[int | str, dict[str, Any]]:
    """Responses as Prometheus has them."""
    error = {"description": "Prometheus' own error", "content": {"application/json": {"example": _ERROR}}}
    return {
        200: {"content": {"application/json": {"example": example}}},
        **dict.fromkeys((400, 401, 403, 408, 413, 422, 429, 503), error),
    }


def _parameters(*names: str) -> dict[str, Any]:
    """Description of parameters, which a form in a POST's body may have as well."""
    known = {
        "query": ("PromQL", 'avg by (line) (avg_over_time(temperature{area="paint"}[5m]))'),
        "time": ("seconds since 1970, or RFC 3339; default: the present", "1772431200"),
        "start": ("seconds since 1970, or RFC 3339", "1772427600"),
        "end": ("seconds since 1970, or RFC 3339", "1772431200"),
        "step": ("seconds, or a duration", "15s"),
        "match[]": ("a selector; may be repeated", 'temperature{line="line1"}'),
        "limit": ("results at most", "1000"),
        "metric": ("only of this metric", "temperature"),
    }
    return {
        "parameters": [
            {
                "name": name, "in": "query", "description": known[name][0], "example": known[name][1],
                "schema": {"type": "string"},
            }
            for name in names
        ]
    }  # fmt: skip


class PromParameters:
    """Parameters of a request, from its address and from a form in its body."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def one(self, name: str, default: str | None = None) -> str:
        """A parameter's value. Raises `PromQlError` where it is needed and not there."""
        for known, value in self._fields:
            if known == name:
                return value
        if default is None:
            raise PromQlError(f"invalid parameter {name!r}: it is missing")
        return default

    def all(self, name: str) -> list[str]:
        """All values of a parameter."""
        return [value for known, value in self._fields if known == name]

    def time_ns(self, name: str, default_ns: int | None = None) -> int:
        """A time. Raises `PromQlError`."""
        text = self.one(name, "" if default_ns is not None else None)
        if not text and default_ns is not None:
            return default_ns
        found = _seconds_ns(text)
        if found is None:
            try:
                found = parse_time_ns(text, UTC)
            except (ConfigError, OverflowError) as e:
                raise PromQlError(
                    f"invalid parameter {name!r}: cannot parse {text[:60]!r} to a valid timestamp"
                ) from e
        if not 0 <= found < 2**62:
            raise PromQlError(f"invalid parameter {name!r}: {text[:60]!r} is before 1970 or after 2116")
        return found

    def step_ns(self) -> int:
        """The step between points. Raises `PromQlError`."""
        text = self.one("step")
        found = _seconds_ns(text)
        if found is None:
            found = duration_ns(text) or None
        if found is None or abs(found) >= 2**62:
            raise PromQlError(f"invalid parameter 'step': cannot parse {text[:60]!r} to a valid duration")
        return found

    def limit(self) -> int:
        """How many results there may be; 0 and nothing mean our own bound."""
        text = self.one("limit", "0")
        if not text.isdecimal() or len(text) > 9:
            raise PromQlError("invalid parameter 'limit': it is no number")
        return min(int(text) or _LIMIT, _LIMIT)


def _seconds_ns(text: str) -> int | None:
    if len(text) > 40:
        return None
    try:
        value = Decimal(text)
        return int(value * _NS) if value.is_finite() and abs(value) < 10**10 else None
    except (InvalidOperation, ValueError):
        return None


async def _form(request: Request) -> PromParameters:
    fields = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        body = await request.body()
        if len(body) > _FORM_BYTES_MAX:
            raise HTTPException(413, f"the form is larger than {_FORM_BYTES_MAX:,} bytes")
        if kind in ("", "application/x-www-form-urlencoded"):
            try:
                fields += parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
            except ValueError as e:
                raise HTTPException(400, f"the form can't be read: {e}") from e
    return PromParameters(fields)


Fields = Annotated[PromParameters, Depends(_form)]
router = APIRouter(prefix="/prometheus/api/v1", tags=["prometheus"])


async def _answered(backend: Backend, ask: Callable[[Any], PromAnswer]) -> Response:
    """Ask in a thread; the answer, or the error as Prometheus says it."""
    try:
        store = await backend.prometheus()
        body = await backend.blocking(lambda: _success(ask(store)))
        return Response(body, media_type="application/json")
    except PromQlError as e:
        return prom_error(422 if e.kind == "execution" else 400, e.kind, str(e))
    except Overloaded as e:
        return prom_error(429, "unavailable", str(e))
    except HeadraceError as e:
        return prom_error(503, "unavailable", str(e))


def _success(found: PromAnswer) -> bytes:
    document: dict[str, Any] = {"status": "success", "data": found.data}
    if found.warnings:
        document["warnings"] = found.warnings
    return json.dumps(document, separators=(",", ":")).encode()


def prom_error(status: int, kind: str, text: str) -> Response:
    """An error as Prometheus says it."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"status": "error", "errorType": kind, "error": text}, status, headers)


def _route(path: str, example: Any, *parameters: str) -> Callable[[Callable[..., Awaitable[Response]]], Any]:
    """A route for GET, and for POST with a form, as Grafana asks."""

    def add(call: Callable[..., Awaitable[Response]]) -> Any:
        more: dict[str, Any] = {"responses": _described(example), "openapi_extra": _parameters(*parameters)}
        router.get(path, operation_id=f"prometheus_get_{call.__name__}", **more)(call)
        form = {"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}}
        more["openapi_extra"] = {**more["openapi_extra"], "requestBody": form}
        router.post(path, operation_id=f"prometheus_post_{call.__name__}", **more)(call)
        return call

    return add


@_route("/query", _VECTOR, "query", "time")
async def instant(backend: Asked, fields: Fields) -> Response:
    """A query at one time.

    Here are selectors, `*_over_time`, `rate`, `increase`, `delta`, aggregations, arithmetic, comparisons, `offset`.
    """
    return await _answered(
        backend,
        lambda store: store.instant(fields.one("query"), fields.time_ns("time", backend.clock.now_ns())),
    )


@_route("/query_range", _VECTOR, "query", "start", "end", "step")
async def ranged(backend: Asked, fields: Fields) -> Response:
    """A query at many times, `step` apart; of long spans the store's windows are read instead of samples."""
    return await _answered(
        backend,
        lambda store: store.ranged(
            fields.one("query"), fields.time_ns("start"), fields.time_ns("end"), fields.step_ns()
        ),
    )


@_route("/labels", {"status": "success", "data": ["__name__", "area", "device", "line", "site"]}, "match[]")
async def labels(backend: Asked, fields: Fields) -> Response:
    """Names of labels."""
    return await _answered(backend, lambda store: PromAnswer(store.label_names(fields.all("match[]")), []))


@_route("/series", {"status": "success", "data": [_METRIC]}, "match[]", "limit")
async def series(backend: Asked, fields: Fields) -> Response:
    """Series that match."""
    return await _answered(
        backend, lambda store: PromAnswer(store.series(fields.all("match[]"), fields.limit()), [])
    )


@router.get("/label/{name}/values", responses=_described({"status": "success", "data": ["line1", "line2"]}),
            openapi_extra=_parameters("match[]", "limit"))  # fmt: skip
async def label_values(
    name: Annotated[str, Path(description="a label", max_length=200)], backend: Asked, fields: Fields
) -> Response:
    """Values of a label."""
    return await _answered(
        backend, lambda store: PromAnswer(store.label_values(name, fields.all("match[]"), fields.limit()), [])
    )


@router.get("/metadata", responses=_described({"status": "success", "data": {}}),
            openapi_extra=_parameters("metric", "limit"))  # fmt: skip
async def metadata(backend: Asked, fields: Fields) -> Response:
    """Type and unit of metrics."""
    return await _answered(
        backend, lambda store: PromAnswer(store.metadata(fields.one("metric", ""), fields.limit()), [])
    )


@router.get("/status/buildinfo")
async def build_info() -> dict[str, Any]:
    """Which version of Prometheus' interface this is, for Grafana, and of which program."""
    return {
        "status": "success",
        "data": {"version": "2.42.0", "application": "Headrace", "revision": version(), "branch": "", "buildUser": "",
                 "buildDate": "", "goVersion": ""},
    }  # fmt: skip
