"""The built-in operators by name: one line each, nothing imported before it is used."""

from collections.abc import Mapping
from typing import Any

from headrace.core.errors import ConfigError
from headrace.core.registry import Registry, nearest
from headrace.pipeline.operators.base import Operator

OPERATORS = Registry(
    "operators",
    {
        "clamp": "headrace.pipeline.operators.range:ClampOperator",
        "dead_band": "headrace.pipeline.operators.dead_band:DeadBandOperator",
        "map": "headrace.pipeline.operators.map:MapOperator",
        "range": "headrace.pipeline.operators.range:RangeOperator",
        "resample": "headrace.pipeline.operators.resample:ResampleOperator",
        "scale": "headrace.pipeline.operators.scale:ScaleOperator",
        "sliding": "headrace.pipeline.operators.sliding:SlidingOperator",
        "time_weighted_mean": "headrace.pipeline.operators.time_weighted_mean:TimeWeightedMeanOperator",
        "window": "headrace.pipeline.operators.window:WindowOperator",
    },
)
"""``op`` of a step → operator class; third parties: entry-point group ``headrace.operators``."""


def operator_of(step: Mapping[str, Any], where: str) -> Operator:
    """The operator that a step describes.

    Raises
    ------
    ConfigError : no such operator, or keys that it does not take.
    """
    name = step.get("op")
    if not isinstance(name, str) or name not in OPERATORS:
        raise ConfigError(f"unknown operator {name!r}{nearest(str(name), OPERATORS.names())}", f"{where}.op")
    operator: Operator = OPERATORS.load(name).from_step(step, where)
    return operator
