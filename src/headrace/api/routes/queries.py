"""Samples and aggregates, in several forms, of any size."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.api.answers import PatientResponse
from headrace.api.backend import Backend
from headrace.api.forms import RowForm, form_of
from headrace.api.routes.asked import PROBLEMS, Asked
from headrace.core.errors import ConfigError
from headrace.core.paths import parse_duration_ns
from headrace.core.spans import parse_range
from headrace.runtime.slices import AnswerPlace, Question

router = APIRouter(prefix="/api/v1", tags=["query"], responses=PROBLEMS)

JSON_ROWS = 10_000
LIMIT_MAX = 200_000
_EXAMPLE = {
    "rows": [
        {"path": "leon/paint/line1/oven1/temperature", "ts": "2026-03-02T06:00:00.000000000Z", "mean": 181.25}
    ],
    "fresh_to": "2026-03-02T06:10:31.250000000Z",
    "sources": {"segments": 2, "warm_rows": 0, "hot_rows": 4, "warm_headers": 1, "engine_frames": 31},
    "missing": [],
    "resolution": None,
    "notes": [],
    "truncated": False,
    "cursor": None,
}
_CSV = "path,ts,mean\nleon/paint/line1/oven1/temperature,2026-03-02T06:00:00.000000000Z,181.25\n"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Rows sensor by sensor, each by time. Headers say how it ended: `Headrace-Cursor` continues it.",
        "content": {
            RowForm.JSON: {"schema": {"type": "object"}, "example": _EXAMPLE},
            RowForm.CSV: {"schema": {"type": "string"}, "example": _CSV},
            RowForm.ARROW: {"schema": {"type": "string", "format": "binary"}},
            RowForm.PARQUET: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class WantedRows(BaseModel):
    """What is asked, in the words of ``headrace query``."""

    pattern: str = Field(
        "", description="whole paths: `*` one level, `**` any number of levels, `{a,b}` either", max_length=4_096,
        examples=["**/line1/**/temperature"],
    )  # fmt: skip
    last: str | None = Field(None, description="back from the present", examples=["10m", "1h", "7d"])
    from_: str | None = Field(
        None, alias="from", description="first time; plant time unless it has an offset",
        examples=["2026-03-01T06:00:00Z"],
    )  # fmt: skip
    to: str | None = Field(None, description="end, outside; default: the present")
    every: str | None = Field(None, description="length of the windows that `agg` is of", examples=["1m"])
    agg: str = Field(
        "",
        description="count, sum, min, max, first, last, mean, var, twa; parted by commas",
        examples=["mean,max"],
    )
    limit: int | None = Field(
        None, ge=1, le=LIMIT_MAX, description=f"rows at most; JSON has {JSON_ROWS:,} unless you say"
    )
    cursor: str | None = Field(
        None, description="of an answer that ended at its limit: go on behind its last row", max_length=16_384
    )


@router.get("/query", responses=_RESPONSES, response_class=Response)
async def query(
    backend: Asked, asked: Annotated[WantedRows, Query()], accept: Annotated[str, Header()] = "*/*"
) -> Response:
    """Samples of the sensors that match, or aggregates of windows.

    `Accept` chooses JSON, CSV, an Arrow stream or Parquet. Without a limit CSV, Arrow and Parquet hold all rows,
    however many there are: they are read and sent piece by piece.

        curl 'http://127.0.0.1:8844/api/v1/query?pattern=**/temperature&last=10m&every=1m&agg=mean'
        curl -H 'Accept: text/csv' 'http://127.0.0.1:8844/api/v1/query?pattern=**&last=1h' > rows.csv
    """
    form = form_of(accept)
    if form is None:
        raise HTTPException(406, f"Accept: {accept[:200]} has none of {', '.join(RowForm)}")
    after = None if asked.cursor is None else AnswerPlace.from_text(asked.cursor)
    question = await _question(backend, asked) if after is None else after.question
    limit = asked.limit or (JSON_ROWS if form is RowForm.JSON else None)
    if limit is not None:
        answer = await backend.answer(question, form, limit, after)
        return PatientResponse(
            answer.parts(backend.blocking), headers=answer.headers(), media_type=form.value
        )
    backend.large_answers.take()
    try:
        answer = await backend.answer(question, form, None, after)
    except BaseException:
        backend.large_answers.give_back()
        raise
    return PatientResponse(
        answer.parts(backend.blocking), headers=answer.headers(), media_type=form.value,
        at_end=backend.large_answers.give_back,
    )  # fmt: skip


async def _question(backend: Backend, asked: WantedRows) -> Question:
    if not asked.pattern:
        raise ConfigError("say which sensors: a pattern, as **/temperature", "pattern")
    # A plant's present is inside "the last hour": the sample of this very moment counts.
    now_ns = await backend.now_ns() + 1
    span = parse_range(now_ns, backend.zone, last=asked.last, start=asked.from_, end=asked.to)
    every_ns = None if asked.every is None else parse_duration_ns(asked.every)
    words = tuple(word.strip() for word in asked.agg.split(",") if word.strip())
    if every_ns is not None and not words:
        words = ("mean",)
    return Question(asked.pattern, span.start_ns, span.end_ns, every_ns, words)
