"""``[tiers.NAME]``: what becomes of samples as they age."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headrace.core.clock import NS
from headrace.core.paths import format_duration
from headrace.core.settings import DurationNs, PathPattern, Section, SizeBytes
from headrace.core.specificity import ties

STAGES = ("warm", "cold", "rollups", "delete")
"""What samples become, in this order; each where a rule says when."""

COLD_BLOCK = 16_384


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _date(value: Any) -> Any:
    """Nanoseconds of a date in UTC; TOML knows dates, JSON has them as text."""
    try:
        text = value.isoformat() if hasattr(value, "isoformat") else str(value)
        found = datetime.fromisoformat(text)
    except ValueError as e:
        raise ValueError(f"{value!r} is not a date; write until = 2030-12-31") from e
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * NS


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("a resolution is there twice; name each once")
    return value


Resolutions = Annotated[
    tuple[Literal["1s", "1m", "1h", "1d"], ...], Field(strict=False), AfterValidator(_once)
]
RESOLUTIONS: Resolutions = ("1s", "1m", "1h", "1d")
"""How long windows of rollups can be."""

Share = Annotated[float, BeforeValidator(_number, json_schema_input_type=float), Field(gt=0, le=0.5)]
Amount = Annotated[float, BeforeValidator(_number, json_schema_input_type=float), Field(gt=0)]


class TierAges(Section):
    """At which age samples become what; each later than the one before. What is left out never happens."""

    warm: DurationNs | None = Field(
        default=None, description="chunks of single sensors, lossless; left out: an hour after the day's end"
    )
    cold: DurationNs | None = Field(
        default=None, description="long chunks, 30 days together, within `bound` where there is one"
    )
    rollups: DurationNs | None = Field(default=None, description="only the rollups are left")
    delete: DurationNs | None = Field(default=None, description="nothing is left")

    @model_validator(mode="after")
    def _ascending(self) -> TierAges:
        known = [(name, age) for name in STAGES if (age := getattr(self, name)) is not None]
        for (before, younger), (name, older) in itertools.pairwise(known):
            if older <= younger:
                raise ValueError(
                    f"{name} = {format_duration(older)!r} does not come after {before} = {format_duration(younger)!r}; "
                    "ages rise: warm, cold, rollups, delete"
                )
        return self


class TierBound(Section):
    """How far samples of the cold tier may be from what was measured, ever; one of three."""

    range: Share | None = Field(
        default=None, description="a share of the sensor's range, which is fixed when it first gets cold"
    )
    absolute: Amount | None = Field(default=None, description="in the sensor's unit")
    value: Share | None = Field(
        default=None,
        description="a share of each value; of registers, and where there is an offset, of the smallest in each chunk",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_of_three(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and len(data.keys() & {"range", "absolute", "value"}) != 1 and (
            data.keys() <= {"range", "absolute", "value"}
        ):  # fmt: skip
            raise ValueError("a bound is one of { range = 0.005 }, { absolute = 0.1 } and { value = 0.01 }")
        return data

    @property
    def text(self) -> str:
        """As it is written: ``range = 0.005``."""
        kind, amount = next((k, v) for k, v in self if v is not None)
        return f"{kind} = {amount:g}"


class TierHold(Section):
    """A legal hold that ends: ``hold = { until = 2030-12-31 }``."""

    until: Annotated[int, BeforeValidator(_date, json_schema_input_type=str)] = Field(
        description="date on which it ends, UTC"
    )


class TierSection(Section):
    """``[tiers.<name>]``: what becomes of the sensors of a pattern as their samples age.

    A sensor obeys the most specific pattern that matches it. A hold holds whatever it matches, whichever rule they obey.
    """

    match: PathPattern = Field(
        description="pattern of the sensors; the most specific one that matches counts"
    )
    after: TierAges = Field(
        default=TierAges(), description='ages: { warm = "1d", cold = "30d", rollups = "1y", delete = "10y" }'
    )
    bound: TierBound | None = Field(
        default=None,
        description="of the cold tier: { range = 0.005 }, { absolute = 0.1 } or { value = 0.01 }; left out: lossless",
    )
    cold_block: Annotated[int, Field(ge=64, le=131_072)] = Field(
        default=COLD_BLOCK, description="samples of a cold chunk, at most: what is decoded to read one"
    )
    size: SizeBytes | None = Field(
        default=None, description="bytes these sensors may take; above, the oldest samples age early"
    )
    hold: bool | TierHold = Field(
        default=False,
        description="legal hold: nothing is deleted or made lossy; true, or { until = 2030-12-31 }",
    )
    rollups: Annotated[Resolutions, Field(min_length=1)] = Field(
        default=("1m",), description="resolutions that are left when samples are gone"
    )

    @property
    def held_until_ns(self) -> int:
        """When its hold ends: far from now where it does not, 0 where there is none."""
        if isinstance(self.hold, TierHold):
            return self.hold.until
        return 2**63 - 1 if self.hold else 0

    @property
    def governs(self) -> bool:
        """Whether it says more than a hold, so that it competes for sensors."""
        return not self.hold or bool(self.model_fields_set - {"match", "hold"})


def tier_problems(tiers: Mapping[str, TierSection]) -> list[tuple[str, str]]:
    """(name, sentence) of what no rule can know alone."""
    names = [name for name, one in tiers.items() if one.governs]
    found = []
    for i, j in ties([tiers[name].match for name in names]):
        found.append((
            names[j],
            f"{tiers[names[j]].match!r} is as specific as {tiers[names[i]].match!r} of [tiers.{names[i]}], and sensors may "
            "match both; make one of them more specific",
        ))  # fmt: skip
    for name, one in tiers.items():
        if one.after.cold is None and one.bound is not None:
            found.append((name, 'has a bound but no cold tier to keep it in; write after = { cold = "30d" }'))
        if one.size is not None and one.after.cold is one.after.rollups is one.after.delete is None:
            found.append(
                (name, "has a size, but samples never become anything smaller; write after = { ... }")
            )
    return found
