"""The contract of operators: a step of a pipeline as written, and the stage that it becomes.

An operator is a frozen dataclass whose fields are the keys of its step: ``{ op = "clamp", min = 0 }`` is
``ClampOperator(min=0)``. It says what it does to a layout, and makes a stage for each shard and class of equal
layouts. Adding one is a file here, a line in `registry.py`, and its tests (`headrace.testing.operators`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Protocol, Self

from headrace.core.errors import ConfigError
from headrace.core.layouts import Layout
from headrace.core.registry import nearest
from headrace.core.sensors import SensorDirectory
from headrace.pipeline.base import Stage


@dataclass(frozen=True, slots=True)
class Context:
    """Where a stage will work.

    Parameters
    ----------
    flow : the pipeline's name. layout : of the frames that reach the stage.
    derived : for each output of the flow, an array-like by source slot: the derived group's slot.
    """

    flow: str
    directory: SensorDirectory
    shard: int
    layout: Layout
    derived: list[Any]


class Operator(Protocol):
    """A step as written. Raises `ConfigError` from its constructor for values that make no sense."""

    ends_flow: ClassVar[bool]
    """Whether its stage writes the derived frames itself, so that it must be the last step."""

    remembers: ClassVar[bool]
    """Whether what it hands on depends on earlier frames; windows behind it are not revised by late data."""

    def layout(self, layout: Layout) -> Layout:
        """Layout of what the stage hands on."""
        ...

    def stage(self, context: Context) -> Stage | None:
        """The stage, or None where the change of layout is all there is to do."""
        ...


class FromStep:
    """Mixin: build the dataclass from a step's table."""

    @classmethod
    def from_step(cls, step: Mapping[str, Any], where: str) -> Self:
        """Build from ``{op = ..., key = value}``.

        Raises
        ------
        ConfigError : a key is missing, unknown, or of the wrong type.
        """
        known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
        given = {k: v for k, v in step.items() if k != "op"}
        for key in given:
            if key not in known:
                raise ConfigError(
                    f"operator {step['op']} has no {key!r}{nearest(key, list(known))}", f"{where}.{key}"
                )
        for name, field in known.items():
            if name not in given and field.default is MISSING:
                raise ConfigError(f"operator {step['op']} needs {name!r}", where)
        for key, value in given.items():
            if not _fits(value, str(known[key].type)):
                raise ConfigError(
                    f"{value!r} is not {_KINDS[str(known[key].type).split(' ')[0]]}", f"{where}.{key}"
                )
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        except ConfigError as e:
            raise ConfigError(e.message, where) from e


_KINDS = {"float": "a number", "str": "text", "Any": "text", "tuple[str,": "a list of texts"}


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("float"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind.startswith("tuple"):
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    return isinstance(value, str)
