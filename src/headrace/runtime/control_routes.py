"""What each address of the control port answers.

It runs in the engine's event loop. Reading has nothing to lock; what takes longer than a moment (the tail of many
sensors) runs in a thread. What changes something is handed to the plant's method of that name; a plant that has no
such method answers 501. The methods are those of `headrace.runtime.operations`.

==================================================  ==============================================================
``GET /livez /readyz /metrics``                     open to every program of this machine
``GET /api/v1/status``                              `Plant.status`
``GET /api/v1/tiers``                               `Plant.tiers`
``GET /api/v1/adapters[/{name}]``                   `adapter_summary`, `adapter_report`
``GET /api/v1/directory?after=n``                   definitions of the slots from n on, Parquet
``POST /api/v1/tail``                               unflushed frames, see `tail_format`
``GET /api/v1/events?after=n``                      one JSON object a line, for ever
``GET /api/v1/rejects``, ``/rejects/{id}``          `Operations.rejects`, `Operations.reject`
``GET /api/v1/config``                              `Operations.present_config`
``POST /api/v1/adapters/{name}/pause`` and others   `Operations.pause`, ``resume``, ``reload``: JSON or 204
``GET /api/v1/adapters/{name}/capture``             `Operations.capture`: JSON lines
``POST /api/v1/adapters/{name}/probe``              `Operations.probe`: JSON
``POST /api/v1/adapters/{name}/scan``               `Operations.scan`: JSON
``GET /api/v1/adapters/{name}/tags?stale=true``      `Plant.tags`: JSON
``GET /api/v1/adapters/{name}/tail?pattern=p``      `Operations.follow`: one JSON object a line
``POST /api/v1/receive/{name}``                     ``await plant.receive(name, pushed)``: 204 once it is durable
``POST /api/v1/rejects/replay``                     ``await plant.replay_rejects(document)``: JSON
``PUT /api/v1/config?dry_run=true``                 ``await plant.change_config(document, if_match, dry_run)``: JSON
==================================================  ==============================================================
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from headrace.adapters.base import PartlyRejected, Pushed, Receipt
from headrace.core.clock import NS, Clock, SystemClock, monotonic_ns
from headrace.core.errors import (
    ChangedMeanwhile,
    ConfigError,
    HeadraceError,
    NotAllowed,
    NotConnected,
    NotFound,
    Overloaded,
    PluginError,
    Rejected,
    RetryLater,
    Unreachable,
)
from headrace.core.registry import nearest
from headrace.metrics.exposition import CONTENT_TYPE
from headrace.runtime.announcement import BEHIND_HEADER
from headrace.runtime.audit import ACTOR_HEADER
from headrace.runtime.diagnostics import (
    TAGS_SHOWN,
    TAGS_SHOWN_MAX,
    TagsWish,
    adapter_report,
    adapter_summary,
)
from headrace.runtime.tail_format import tail_parts
from headrace.runtime.times import rfc3339

if TYPE_CHECKING:
    from headrace.runtime.assemble import Plant

MAX_BODY_BYTES = 64 << 20
SAMPLES_HEADER = "Headrace-Samples"
"""How many samples of a pushed body are durable."""
_BEHIND_S, _BEHIND_LOOK_S = 2.0, 0.002
"""For how long a question about the newest frames waits for an engine that is behind its intake, and how often it looks."""
_LOOK_S = 0.2
"""How often somebody who follows events is told of new ones."""
_HEARTBEAT_S = 10.0
PROBLEM_CODES = {
    400: "bad-request", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "method-not-allowed",
    406: "not-acceptable", 408: "too-slow", 409: "conflict", 412: "changed-meanwhile", 413: "too-large", 415: "unsupported-type",
    422: "bad-request", 429: "overloaded", 500: "internal", 501: "not-available", 503: "not-ready",
}  # fmt: skip
"""The closed set of codes of problems, by status."""
_STATUS: tuple[tuple[type[HeadraceError], int], ...] = (
    (NotFound, 404), (ConfigError, 400), (Rejected, 400), (Overloaded, 429), (RetryLater, 503), (NotAllowed, 403),
    (Unreachable, 503), (ChangedMeanwhile, 412), (NotConnected, 503), (PluginError, 501),
)  # fmt: skip


def problem(
    status: int, detail: str, code: str = "", headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """An error as RFC 9457 says: `detail` is a plain sentence, `code` from a closed set; `more` are its extensions."""
    code = code or PROBLEM_CODES.get(status, "internal")
    body = {
        "type": "about:blank",
        "title": code.replace("-", " "),
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def problem_of(error: Exception) -> JSONResponse:
    """The problem that says what `error` says."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    for kind, status in _STATUS:
        if isinstance(error, kind):
            wait_s = getattr(error, "wait_s", 1.0 if status in (429, 503) else None)
            headers = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
            return problem(status, str(error), headers=headers)
    if isinstance(error, HeadraceError):
        return problem(500, str(error))
    return problem(500, f"unexpected {type(error).__name__}: {error}")


async def body_of(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body, where it is not too large."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes:,} bytes")
    return bytes(data)


class ControlRoutes:
    """The routes over a plant, which may not have started yet."""

    def __init__(self, plant: Plant, clock: Clock) -> None:
        self.plant, self._clock = plant, clock

    def all(self) -> list[Route]:
        """All routes."""
        adapter = "/api/v1/adapters/{name}"
        return [
            Route("/livez", self.live),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/api/v1/status", self.status),
            Route("/api/v1/tiers", self.tiers),
            Route("/api/v1/adapters", self.adapters),
            Route(adapter, self.adapter),
            Route("/api/v1/directory", self.directory),
            Route("/api/v1/tail", self.tail, methods=["POST"]),
            Route("/api/v1/events", self.events),
            Route(adapter + "/tags", self.tags),
            Route(adapter + "/tail", self.follow),
            Route(adapter + "/capture", self.capture),
            Route(adapter + "/probe", self.probe, methods=["POST"]),
            Route(adapter + "/scan", self.scan, methods=["POST"]),
            Route(adapter + "/{verb:str}", self.steer, methods=["POST"]),
            Route("/api/v1/receive/{name}", self.receive, methods=["POST"]),
            Route("/api/v1/rejects", self.rejects),
            Route("/api/v1/rejects/replay", self.replay, methods=["POST"]),
            Route("/api/v1/rejects/{id}", self.reject),
            Route("/api/v1/config", self.config),
            Route("/api/v1/config", self.change_config, methods=["PUT"]),
        ]

    # --- health and reading --------------------------------------------------------------------------

    async def live(self, _: Request) -> Response:
        """Whether this process answers."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Whether the plant runs and the disk takes what comes."""
        if self.plant.state != "running":
            return problem(503, self.plant.failure or f"the plant is {self.plant.state}")
        refusal = self.plant.journal.refusal
        return problem(503, refusal) if refusal else PlainTextResponse("ready\n")

    async def metrics(self, _: Request) -> Response:
        """All metrics, OpenMetrics."""
        self._started()
        return Response(self.plant.metrics.expose(), media_type=CONTENT_TYPE)

    async def status(self, _: Request) -> Response:
        self._started()
        return JSONResponse(self.plant.status())

    async def tiers(self, _: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.plant.tiers))

    async def adapters(self, _: Request) -> Response:
        return JSONResponse([adapter_summary(a) for a in self.plant.adapters()])

    async def adapter(self, request: Request) -> Response:
        name = self._adapter_name(request)
        found = next(a for a in self.plant.adapters() if a.name == name)
        return JSONResponse(adapter_report(found, self._clock.now_ns()))

    async def tags(self, request: Request) -> Response:
        """When each signal of an adapter was last good: ``stale`` ones only, ``stale_after_ns``, at most ``limit``."""
        self._started()
        wish = TagsWish(
            _number(request, "stale_after_ns") or self.plant.config.runtime.stale_after,
            request.query_params.get("stale", "false").lower() in ("true", "1"),
            min(_number(request, "limit") or TAGS_SHOWN, TAGS_SHOWN_MAX),
        )
        return JSONResponse(self.plant.tags(self._adapter_name(request), wish))

    def _adapter_name(self, request: Request) -> str:
        name = str(request.path_params["name"])
        known = [a.name for a in self.plant.adapters()]
        if name not in known:
            raise HTTPException(404, f"no adapter {name!r}{nearest(name, known)}")
        return name

    async def directory(self, request: Request) -> Response:
        """Definitions of the slots from ``after`` on, as `SensorDirectory.to_bytes` writes them."""
        self._started()
        after = min(_number(request, "after"), self.plant.directory.n_slots)
        data = self.plant.directory.to_bytes(after) if after < self.plant.directory.n_slots else b""
        return Response(data, media_type="application/vnd.apache.parquet")

    async def tail(self, request: Request) -> Response:
        """Unflushed frames of slots (u32, little-endian), or of the sensors of ``{"pattern": ...}``."""
        self._started()
        body = await body_of(request)
        slots = await asyncio.to_thread(self._slots, request.headers.get("content-type", ""), body)
        n_behind = await self._worked_off()
        batches = await asyncio.to_thread(self.plant.tail, slots)
        headers = {BEHIND_HEADER: str(n_behind)} if n_behind else {}
        return StreamingResponse(
            tail_parts(batches), headers=headers, media_type="application/vnd.headrace.frames"
        )

    async def _worked_off(self) -> int:
        """Wait a moment until all that was taken before is worked off, as who has its receipt asks for it; how much is not."""
        clock, taken_seq = SystemClock(), self.plant.progress()[0]
        until_ns = monotonic_ns() + int(_BEHIND_S * NS)
        while (n_behind := taken_seq - self.plant.progress()[1]) > 0 and monotonic_ns() < until_ns:
            await clock.sleep(_BEHIND_LOOK_S)
        return max(0, n_behind)

    def _slots(self, content_type: str, body: bytes) -> npt.NDArray[np.uint32]:
        directory = self.plant.directory
        if content_type.startswith("application/json"):
            try:
                pattern = json.loads(body)["pattern"]
                found = directory.find(str(pattern))
            except (ValueError, KeyError, TypeError, HeadraceError) as e:
                raise HTTPException(400, f'the body is not {{"pattern": "..."}}: {e}') from e
            groups = directory.group_id[np.unique(found.slot)]
            # Frames of a group's earlier layouts may wait as well.
            return np.flatnonzero(np.isin(directory.group_id, groups)).astype(np.uint32)
        if len(body) % 4:
            raise HTTPException(400, f"{len(body)} bytes are no list of slots: 4 bytes each")
        slots = np.frombuffer(body, np.uint32)
        if len(slots) and int(slots.max()) >= directory.n_slots:
            raise HTTPException(404, f"slot {int(slots.max())} is not known; there are {directory.n_slots}")
        return slots

    def _started(self) -> None:
        if self.plant.state not in ("running", "stopping"):
            raise HTTPException(503, f"the plant is {self.plant.state}; ask again in a moment")

    # --- following -----------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Events numbered above ``after`` as they come, one JSON object a line; an empty line says that we live."""
        return StreamingResponse(
            self._event_lines(_number(request, "after")), media_type="application/x-ndjson"
        )

    async def _event_lines(self, after: int) -> AsyncIterator[str]:
        clock, quiet_s = SystemClock(), 0.0
        if after > self.plant.events.n_ever:
            after = 0  # the number of an engine before this one
        while True:
            new = self.plant.events.since(after)
            for after, event in new:
                document = {
                    "id": after,
                    "ts": rfc3339(event.ts_ns),
                    "kind": event.kind,
                    "text": event.text,
                    "fields": event.fields,
                }
                yield json.dumps(document) + "\n"
            quiet_s = 0.0 if new else quiet_s + _LOOK_S
            if quiet_s >= _HEARTBEAT_S:
                quiet_s = 0.0
                yield "\n"
            await clock.sleep(_LOOK_S)

    async def follow(self, request: Request) -> Response:
        """What an adapter takes in, as it comes, one JSON object a line."""
        self._started()
        pattern = request.query_params.get("pattern", "**")
        documents: AsyncIterator[Any] = self._plants("follow")(self._adapter_name(request), pattern)

        async def lines() -> AsyncIterator[str]:
            async for document in documents:
                # An empty line says that we live.
                yield (json.dumps(document) if document else "") + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def capture(self, request: Request) -> Response:
        """What an adapter receives, byte by byte, one JSON object a line."""
        self._started()
        documents: AsyncIterator[Any] = self._plants("capture")(self._adapter_name(request))

        async def lines() -> AsyncIterator[str]:
            async for document in documents:
                yield (json.dumps(document) if document else "") + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    # --- changing ------------------------------------------------------------------------------------

    async def steer(self, request: Request) -> Response:
        """``pause``, ``resume``, ``reload`` of one adapter."""
        self._started()
        name, verb = self._adapter_name(request), request.path_params["verb"]
        if verb not in ("pause", "resume", "reload"):
            raise HTTPException(404, f"an adapter can't {verb!r}; it can pause, resume, reload, probe, scan")
        return _answer(await self._plants(verb)(name, await _change(request)))

    async def probe(self, request: Request) -> Response:
        """One reading of a device, which is not stored."""
        self._started()
        name = self._adapter_name(request)
        return _answer(await self._plants("probe")(name, await _document(request)))

    async def scan(self, request: Request) -> Response:
        """What an adapter's source offers; nothing is stored."""
        self._started()
        name = self._adapter_name(request)
        return _answer(await self._plants("scan")(name, await _document(request)))

    async def receive(self, request: Request) -> Response:
        """Hand a body to an adapter that is pushed to; answers when everything in it is durable."""
        self._started()
        name = self._adapter_name(request)
        pushed = Pushed(
            body=await body_of(request),
            content_type=request.headers.get("content-type", ""),
            parameters=dict(request.query_params),
            key=request.headers.get("idempotency-key", ""),
            arrival_ns=self._clock.now_ns(),
        )
        try:
            receipt: Receipt = await self._plants("receive")(name, pushed)
        except PartlyRejected as e:
            one = e.receipt
            return problem(
                400, str(e), taken=one.n_samples, refused=one.n_refused, reason=one.reason, read=one.is_read
            )
        return Response(status_code=204, headers={SAMPLES_HEADER: str(receipt.n_samples)})

    async def rejects(self, request: Request) -> Response:
        """Counts of rejects and the newest: ``adapter, code, from_ns, to_ns, limit``."""
        self._started()
        wanted: dict[str, Any] = dict(request.query_params)
        wanted |= {k: _number(request, k) for k in ("limit", "from_ns", "to_ns") if k in wanted}
        return _answer(await self._plants("rejects")(wanted))

    async def reject(self, request: Request) -> Response:
        """One reject with its bytes."""
        self._started()
        return _answer(await self._plants("reject")(str(request.path_params["id"])))

    async def replay(self, request: Request) -> Response:
        """Take rejected input in again."""
        self._started()
        return _answer(await self._plants("replay_rejects")(await _document(request)))

    async def config(self, _: Request) -> Response:
        """The configuration that runs; its hash is the entity tag."""
        self._started()
        found = self._plants("present_config")()
        return JSONResponse(found, headers={"ETag": f'"{found["hash"]}"'})

    async def change_config(self, request: Request) -> Response:
        """Make another plant file the running one; ``dry_run`` only says what would differ."""
        self._started()
        is_dry = request.query_params.get("dry_run", "false").lower() in ("true", "1")
        if_match = request.headers.get("if-match", "").strip('"')
        return _answer(await self._plants("change_config")(await _change(request), if_match, is_dry))

    def _plants(self, method: str) -> Any:
        found = getattr(getattr(self.plant, "operations", self.plant), method, None)
        if found is None:
            raise HTTPException(501, f"this engine can't {method.replace('_', ' ')} while it runs")
        return found


def _answer(document: Any) -> Response:
    return Response(status_code=204) if document is None else JSONResponse(document)


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not text.isdecimal() or len(text) > 19:  # a time in ns has 19 digits
        raise HTTPException(400, f"{name}={text[:40]!r} is not a number")
    return int(text)


async def _change(request: Request) -> dict[str, Any]:
    """What is to be changed, and by whom: the api process knows better than the body who asks it."""
    found, actor = await _document(request), request.headers.get(ACTOR_HEADER)
    return {**found, "by": actor} if actor else found


async def _document(request: Request) -> dict[str, Any]:
    """The body, a JSON object; an empty one where there is none."""
    body = await body_of(request)
    try:
        found = json.loads(body) if body else {}
    except ValueError as e:
        raise HTTPException(400, f"the body is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return found
