"""Functions of instant vectors and scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.api.promql.nodes import PromQlError
from headrace.api.promql.vectors import ScalarSteps, VectorSteps

Value = ScalarSteps | VectorSteps
_MATHS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs, "ceil": np.ceil, "floor": np.floor, "sqrt": np.sqrt, "exp": np.exp, "ln": np.log,
    "log2": np.log2, "log10": np.log10, "sgn": np.sign,
}  # fmt: skip


def call(name: str, arguments: list[Value], n_steps: int) -> Value:
    """A function by its name. Raises `PromQlError` where an argument is not of its type."""
    if name == "vector":
        scalar = _scalar(name, arguments[0])
        return VectorSteps([{}], scalar.values[None, :], np.ones((1, n_steps), np.bool_))
    vector = _vector(name, arguments[0])
    if name == "scalar":
        one = len(vector) == 1
        return ScalarSteps(
            np.where(vector.there[0], vector.values[0], np.nan) if one else np.full(n_steps, np.nan)
        )
    if name in ("sort", "sort_desc"):
        last = np.where(vector.there[:, -1], vector.values[:, -1], np.nan)
        return vector.take(np.argsort(last if name == "sort" else -last, kind="stable"))
    numbers = [_scalar(name, one).values for one in arguments[1:]]
    with np.errstate(all="ignore"):
        return vector.with_values(np.asarray(_mapped(name, vector.values, numbers), np.float64))


def _mapped(name: str, values: Any, numbers: list[Any]) -> Any:
    if name in _MATHS:
        return _MATHS[name](values)
    if name == "clamp_min":
        return np.maximum(values, numbers[0])
    if name == "clamp_max":
        return np.minimum(values, numbers[0])
    if name == "clamp":
        return np.where(
            numbers[0] > numbers[1], np.nan, np.minimum(np.maximum(values, numbers[0]), numbers[1])
        )
    step = numbers[0] if numbers else 1.0
    return np.floor(values / step + 0.5) * step  # round: halves go up


def _vector(name: str, value: Value) -> VectorSteps:
    if isinstance(value, ScalarSteps):
        raise PromQlError(f"{name} wants an instant vector, not a scalar")
    return value


def _scalar(name: str, value: Value) -> ScalarSteps:
    if isinstance(value, VectorSteps):
        raise PromQlError(f"{name} wants a scalar here, not a vector")
    return value
