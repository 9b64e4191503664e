"""Configuration of the replay adapter: ``[adapters.<name>]`` with ``protocol = "replay"``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace.adapters.payloads.base import TimeUnit
from headrace.core.settings import Section


class ReplayConfig(Section):
    """Files that are played as if a device sent them."""

    protocol: Literal["replay"] = "replay"
    files: str | Annotated[tuple[str, ...], Field(strict=False)] = Field(
        description="names or patterns (history/*.parquet) from the plant file's folder; .parquet or .csv"
    )
    path: str = Field(
        default="", description="of the sensors of a wide file (a column each): site/line1/oven1/{key}; long files have a "
        "column path or sensor"
    )  # fmt: skip
    time: str = Field(default="ts", description="column of the time")
    time_unit: TimeUnit = Field(
        default="auto", description="of times given as numbers; auto goes by their size"
    )
    value: str = Field(default="value", description="column of the values in a long file")
    columns: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="columns of a wide file to take; default: all"
    )
    speed: Literal["max"] | Annotated[float, Field(gt=0)] = Field(
        default="max", description="plant seconds a second, or as fast as it is taken"
    )
    shift: bool = Field(default=False, description="move times so that the first one is now")
    follow: bool = Field(default=False, description="go on looking for new files when all have been played")
    max_sensors: int = Field(
        default=1_000_000, ge=1, description="sensors that long files may name; more are refused"
    )
