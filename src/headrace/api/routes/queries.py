"""Samples and aggregates."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from headrace.api.routes.asked import Asked
from headrace.core.quality import word
from headrace.runtime.times import rfc3339

router = APIRouter(prefix="/api/v1", tags=["query"])


class Question(BaseModel):
    """What is asked, in the words of ``headrace query``."""

    pattern: str = Field(description="whole paths: `*` one level, `**` any number of levels, `{a,b}` either")
    last: str | None = Field(None, description="back from the present: `10m`, `1h`, `7d`")
    from_: str | None = Field(
        None, alias="from", description="first time; plant time unless it has an offset"
    )
    to: str | None = Field(None, description="end, outside; default: the present")
    every: str | None = Field(None, description="length of the windows that `agg` is of")
    agg: str = Field("", description="count, sum, min, max, first, last, mean, var; parted by commas")
    limit: int = Field(10_000, ge=1, le=100_000, description="rows at most")


@router.get("/query")
async def query(backend: Asked, asked: Annotated[Question, Query()]) -> dict[str, Any]:
    """Samples of the sensors that match, or aggregates of windows."""
    found = await backend.query(
        asked.pattern,
        last=asked.last,
        from_=asked.from_,
        to=asked.to,
        every=asked.every,
        agg=[one.strip() for one in asked.agg.split(",") if one.strip()],
        limit=asked.limit,
    )
    rows = found.to_rows(labels=True)
    for row in rows:
        row["ts"] = rfc3339(row["ts"])
        if "quality" in row:
            row["quality"] = word(row["quality"])
    return {
        "rows": rows,
        "fresh_to": rfc3339(found.fresh_to_ns),
        "sources": found.sources,
        "missing": list(found.missing),
        "truncated": found.truncated,
    }
