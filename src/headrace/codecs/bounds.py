"""Error bounds as users declare them, and what the codecs of a chunk get of them.

A bound is *absolute* (in the sensor's unit), a share of the sensor's *range*, or a share of each *value*. The first two
are one number for all values of a sensor, which `headrace.codecs.base.LossyCodec` keeps. A share of each value is kept by
`headrace.codecs.relative`, on the logarithm, and beside it by any other lossy codec with the share of the smallest value
of the chunk; the smaller body wins. Zeros come back as zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from headrace.codecs.base import Array
from headrace.core.errors import ConfigError

BoundKind = Literal["absolute", "range", "value"]
KINDS: tuple[BoundKind, ...] = ("absolute", "range", "value")
_USAGE = "write { absolute = 0.1 } in the sensor's unit, { range = 0.005 } or { value = 0.01 } as shares"


class Reach(NamedTuple):
    """How far values may be from what they were, as codecs take it; both 0 for lossless.

    Parameters
    ----------
    eps : ``|decoded - value| <= eps``, in the sensor's unit. share : ``|decoded - value| <= share * |value|``.
    """

    eps: float = 0.0
    share: float = 0.0

    @property
    def is_lossless(self) -> bool:
        """Whether nothing may be lost."""
        return not (self.eps > 0.0 or self.share > 0.0)

    def within(self, values: Array) -> float:
        """About the largest absolute bound that keeps the reach for all of ``values: T[n]``; 0 where there is none.

        Of a share that is the share of the smallest value: 0 where one of them is. A float32, where there is one just below:
        it stands in front of every body.
        """
        eps = self.eps
        if self.share > 0.0 and values.size:
            eps = self.share * float(np.abs(values.astype(np.float64)).min())
        return _single_below(eps)

    def kept(self, decoded: Array, values: Array) -> bool:
        """Whether no value is further off than it may be; false where one is not finite."""
        x = values.astype(np.float64)
        error = np.abs(decoded.astype(np.float64) - x)
        allowed = self.share * np.abs(x) if self.share > 0.0 else self.eps
        return bool((error <= allowed).all())


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound as declared.

    Parameters
    ----------
    kind : what `size` is a share of; of absolute ones it is the bound itself. size : above 0; shares of a value below 1.

    Examples
    --------
    >>> Bound.parse({"range": 0.005}).reach(low=20.0, high=80.0)
    Reach(eps=0.3, share=0.0)
    """

    kind: BoundKind
    size: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no bound {self.kind!r}; {_USAGE}")
        if isinstance(self.size, bool) or not isinstance(self.size, int | float):
            raise ValueError(f"a bound is a number, got {self.size!r}; {_USAGE}")
        if not (math.isfinite(self.size) and self.size > 0):
            raise ValueError(f"a bound is a number above 0, got {self.size}; leave it out for lossless")
        if self.kind == "value" and self.size >= 1:
            raise ValueError(f"a share of each value is below 1, got {self.size}; 0.01 is one percent")

    @classmethod
    def absolute(cls, size: float) -> Self:
        """The largest error, in the sensor's unit."""
        return cls("absolute", size)

    @classmethod
    def range(cls, share: float) -> Self:
        """The largest error as a share of the sensor's range, which is what has been seen of it so far."""
        return cls("range", share)

    @classmethod
    def value(cls, share: float) -> Self:
        """The largest error as a share of each value."""
        return cls("value", share)

    @classmethod
    def parse(cls, written: Any) -> Self:
        """A bound as configurations have it: a table of one key.

        Raises
        ------
        ConfigError : another table, or a number that is no bound.
        """
        if not isinstance(written, Mapping) or len(written) != 1:
            raise ConfigError(f"{written!r} is no bound; {_USAGE}")
        ((kind, size),) = written.items()
        try:
            return cls(kind, size)
        except ValueError as e:
            raise ConfigError(str(e)) from e

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A bound as command lines have it: ``0.1``, ``0.5%range``, ``1%value``. Raises as `parse`."""
        number, percent, kind = text.strip().partition("%")
        try:
            size = float(number)
        except ValueError:
            raise ConfigError(
                f"{text!r} is no bound; write 0.1 in the sensor's unit, 0.5%range or 1%value"
            ) from None
        if not percent:
            return cls.parse({"absolute": size})
        return cls.parse({kind.strip() or "range": size / 100.0})

    def to_dict(self) -> dict[str, float]:
        """Inverse of `parse`."""
        return {self.kind: self.size}

    def reach(self, low: float, high: float) -> Reach:
        """What codecs get, for a sensor whose values have been from `low` to `high`; lossless where those are no numbers."""
        if self.kind == "value":
            return Reach(share=self.size)
        eps = self.size if self.kind == "absolute" else self.size * (high - low)
        return Reach(eps=eps if math.isfinite(eps) and eps > 0 else 0.0)


def _single_below(number: float) -> float:
    """The largest float32 up to a number, or the number itself where that is less by a millionth."""
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(number)
        below = float(single if float(single) <= number else np.nextafter(single, np.float32(0.0)))
    return below if number * (1.0 - 1e-6) <= below < math.inf else number
