"""Values of a query over its steps: scalars, and series with a value or none at each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.api.promql.labels import Labels

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ScalarSteps:
    """One number at each step: float64[T]."""

    values: F64


@dataclass(frozen=True, slots=True, eq=False)
class VectorSteps:
    """Series over the steps: ``values: float64[S, T]``, ``there: bool[S, T]``; a NaN that is there is a value."""

    labels: list[Labels]
    values: F64
    there: Bools

    def __len__(self) -> int:
        return len(self.labels)

    def with_values(self, values: F64) -> VectorSteps:
        """The same series with other values, which have no metric's name any more."""
        return VectorSteps([without_name(one) for one in self.labels], values, self.there)

    def take(self, index: I64) -> VectorSteps:
        """Some of the series."""
        return VectorSteps([self.labels[i] for i in index.tolist()], self.values[index], self.there[index])


@dataclass(frozen=True, slots=True)
class TextValue:
    """A string, which is the same at all steps."""

    value: str


@dataclass(frozen=True, slots=True, eq=False)
class RawSeries:
    """Stored samples of one series, by time: ``ts_ns: int64[n]``, ``values: float64[n]``.

    Where windows stand in for samples, `values` is the window's value and `weight` its count.
    """

    labels: Labels
    ts_ns: I64
    values: F64
    weight: F64 | None = None


def empty(n_steps: int) -> VectorSteps:
    """No series."""
    return VectorSteps([], np.empty((0, n_steps)), np.empty((0, n_steps), np.bool_))


def without_name(labels: Labels) -> Labels:
    """Labels without the metric's name: what a computed series has."""
    return {name: value for name, value in labels.items() if name != "__name__"}
