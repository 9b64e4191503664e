"""Configuration of the HTTP adapter: ``[adapters.<name>]`` with ``protocol = "http"``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from headrace.adapters.payloads.base import RuleSettings, ValueType
from headrace.core.settings import DurationNs, Section, SizeBytes


class HttpConfig(Section):
    """What clients push, and where it goes."""

    protocol: Literal["http"] = "http"
    path: str | None = Field(
        default=None,
        description="path of the sensors of line protocol; {name} from the tags, {measurement}, and {field} as "
        "the last level. Default: the plant's first levels, {host}, {measurement}, {field}",
    )
    metrics: str | None = Field(
        default=None,
        description="path of the sensors of metrics (remote write, OTLP): {name} from labels or attributes, "
        "{measurement} the metric, {field} the value; where it names no {measurement}, {field} is the metric. "
        "Default: path",
    )
    defaults: dict[str, str] = Field(
        default_factory=dict, description="values of tags that a line does not have, else unknown"
    )
    other_tags: Literal["keep", "drop"] = Field(
        default="keep",
        description="tags that the path does not name: keep adds them to the level before {field}; drop makes "
        "series one that differ in nothing else",
    )
    types: dict[str, ValueType] = Field(
        default_factory=dict, description="value types by field, where not as first sent"
    )
    units: dict[str, str] = Field(default_factory=dict, description="units by field")
    max_body: SizeBytes = Field(
        default="32MB", validate_default=True, description="larger bodies are refused"
    )
    max_devices: int = Field(default=100_000, ge=1, description="devices that may be named; more are refused")
    max_fields: int = Field(
        default=1_024, ge=1, le=65_535, description="fields of one device; more are refused"
    )
    max_sensors: int = Field(default=1_000_000, ge=1, description="fields of all devices; more are refused")
    max_waiting: SizeBytes = Field(
        default="64MB",
        validate_default=True,
        description="bytes of bodies on their way to the journal; beyond it clients are asked to come again",
    )
    remembered_keys: int = Field(default=10_000, ge=0, description="idempotency keys that are remembered")
    answer_within: DurationNs = Field(
        default="10s",
        validate_default=True,
        description="a client that can't be told by then that its data are durable is asked to come again",
    )

    @property
    def rule(self) -> RuleSettings:
        """The part that is the same for all formats: types, units, bounds of a device."""
        return RuleSettings(
            path="{device}/{key}", types=self.types, units=self.units, max_keys=self.max_fields
        )
