"""An answer on its way to a client: read slice by slice in a thread, sent as fast as the client takes it.

What a slow client costs is one slice and its place among few; a client that takes nothing for a while loses both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from headrace.api.forms import AnswerFacts, Encoder, RowForm, encoder_of, part_of
from headrace.core.paths import format_duration
from headrace.runtime.slices import SlicedAnswer
from headrace.store.result import QueryResult

PATIENCE_S = 30.0
"""How long a client may take for the next part of an answer."""
_PART_BYTES = 1 << 18


class PatientResponse(StreamingResponse):
    """A streamed answer that gives up a client which takes nothing any more.

    Parameters
    ----------
    at_end : called once, however the answer ends.
    """

    def __init__(self, content: Any, *, at_end: Callable[[], None] | None = None, **more: Any) -> None:
        super().__init__(content, **more)
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._at_end is not None:
                self._at_end()

    async def stream_response(self, send: Send) -> None:
        """Send part by part."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self.body_iterator:
            data = part.encode() if isinstance(part, str) else part
            for first in range(0, len(data), _PART_BYTES):
                body = {
                    "type": "http.response.body",
                    "body": bytes(data[first : first + _PART_BYTES]),
                    "more_body": True,
                }
                async with asyncio.timeout(PATIENCE_S):
                    await send(body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class OpenAnswer:
    """A question whose first slices are read. All methods but `parts` block.

    Parameters
    ----------
    limit : rows at most; None for all of them. An answer with a limit is whole in memory.
    """

    def __init__(self, sliced: SlicedAnswer, form: RowForm, limit: int | None) -> None:
        self._sliced, self.form, self._limit = sliced, form, limit
        self._slices: Iterator[QueryResult] = iter(sliced)
        self._first: list[QueryResult] = []
        self.facts = AnswerFacts(sliced.fresh_to_ns)
        self._rest: QueryResult | None = None
        if limit is None:
            self._first = [next(self._slices)]
            self._rest = next(self._slices, None)
        else:
            self._gather(limit)
        self._encoder: Encoder = encoder_of(
            form, (limit is None and self._rest is None) or len(self._first) == 1
        )
        self._settle()

    def _gather(self, limit: int) -> None:
        n, last = 0, None
        for result in self._slices:
            if n + result.n_rows > limit or (n == limit and result.n_rows):
                cut = part_of(result, 0, limit - n)
                last = cut if cut.n_rows else last
                self._first += [cut] if cut.n_rows else []
                assert last is not None
                path, ts_ns = str(last.paths[last.sensor[-1]]), int(last.ts_ns[-1])
                self.facts.cursor = self._sliced.place(path, ts_ns).to_text()
                return
            self._first.append(result)
            n += result.n_rows
            last = result if result.n_rows else last

    def _settle(self) -> None:
        sliced, facts = self._sliced, self.facts
        facts.fresh_to_ns, facts.missing, facts.sources = sliced.fresh_to_ns, sliced.missing, sliced.sources
        facts.resolution_ns, facts.notes = sliced.resolution_ns, sliced.notes

    def _next(self) -> bytes | None:
        """The next bytes; None behind the last."""
        if self._first:
            return self._encoder.rows(self._first.pop(0))
        if self._rest is None:
            return None
        result, self._rest = self._rest, None
        data = self._encoder.rows(result)
        self._rest = next(self._slices, None)
        self._settle()
        return data

    async def parts(self, run: Any) -> AsyncIterator[bytes]:
        """All bytes. `run` calls what blocks in a thread."""
        while (data := await run(self._next)) is not None:
            yield data
        yield await run(self._encoder.end, self.facts)

    def headers(self) -> dict[str, str]:
        """What is known before the first byte."""
        found = {"Headrace-Truncated": "true" if self.facts.cursor else "false"}
        if self.facts.cursor is not None:
            found["Headrace-Cursor"] = self.facts.cursor
        if self.facts.missing:
            found["Headrace-Missing"] = _ascii("; ".join(self.facts.missing))
        if self.facts.resolution_ns:
            found["Headrace-Resolution"] = format_duration(self.facts.resolution_ns)
        return found


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:2_000]
