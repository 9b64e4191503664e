"""Configuration of the sim adapter: ``[adapters.<name>]`` with ``protocol = "sim"``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from headrace.core.layouts import Column, Kind
from headrace.core.settings import DurationNs, PathPattern, Section

Shape = Literal["sine", "ramp", "walk", "square", "counter"]


class SimSignal(Section):
    """How one signal of every device goes."""

    shape: Shape = Field(
        default="sine",
        description="sine, ramp and square repeat; walk wanders; counter counts and begins anew each period",
    )
    mean: float = Field(default=0.0, description="middle of sine, ramp, square and walk")
    amplitude: float = Field(
        default=1.0, ge=0, description="from the middle to the extremes, which none passes"
    )
    period: DurationNs | None = Field(
        default=None, description="after which it repeats; default: 10m, 1d for a counter"
    )
    rate: float = Field(default=1.0, ge=0, description="of a counter, a second")
    noise: float = Field(default=0.0, ge=0, description="standard deviation of what is added to each value")
    unit: str = Field(default="", description="engineering unit of the values")
    labels: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="names of the two states of a square, which then is 0 and 1"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.labels and (self.shape != "square" or len(self.labels) != 2):
            raise ValueError("labels are two names, of the states of a square")
        return self

    @property
    def dtype(self) -> str:
        """The value type: whole numbers of a counter, 0 and 1 of a square with names, else f64."""
        return "i64" if self.shape == "counter" else "u8" if self.labels else "f64"

    def column(self, name: str) -> Column:
        """The signal as a column."""
        kind = {"i64": Kind.COUNTER, "u8": Kind.DISCRETE, "f64": Kind.ANALOG}[self.dtype]
        return Column(name, kind, self.unit, labels=self.labels)


class SimFault(Section):
    """What goes wrong with some sensors, and when."""

    match: PathPattern = Field(default="**", description="pattern of the sensors")
    kind: Literal["stuck", "silent", "drift"] = Field(
        description="stuck: the value stays; silent: none comes; drift: it leaves by `by` a second"
    )
    by: float = Field(default=0.0, description="of a drift, in units a second")
    after: DurationNs | None = Field(default=None, description="since the start; default: at once")
    lasts: DurationNs | None = Field(default=None, description="how long; default: for ever")
    every: DurationNs | None = Field(default=None, description="comes again after so long; default: once")


DEFAULT_SIGNALS = {
    "temperature": SimSignal(mean=180.0, amplitude=5.0, noise=0.2, unit="degC"),
    "pressure": SimSignal(shape="walk", mean=4.0, amplitude=1.0, unit="bar"),
    "running": SimSignal(shape="square", labels=("stopped", "running")),
    "pieces": SimSignal(shape="counter", rate=0.5),
}


class SimConfig(Section):
    """Simulated devices, all with the same signals."""

    protocol: Literal["sim"] = "sim"
    path: str | None = Field(
        default=None,
        description="path of the devices, {n} being their number: leon/paint/line1/oven{n}. Default: by the "
        "plant's levels, as in site1/area1/line1/device{n}",
    )
    count: int = Field(default=3, ge=1, le=1_000_000, description="devices")
    interval: DurationNs = Field(default="1s", validate_default=True, description="between two values")
    seed: int = Field(default=1, ge=0, lt=2**63, description="other seeds give other values")
    signals: dict[str, SimSignal] = Field(
        default=DEFAULT_SIGNALS,
        description="by name; default: temperature, pressure, running and pieces",
        min_length=1,
    )
    faults: Annotated[tuple[SimFault, ...], Field(strict=False)] = Field(
        default=(), description='what goes wrong: [{ match = "**/oven2/*", kind = "stuck", after = "5m" }]'
    )
