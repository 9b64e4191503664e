"""Integers of one sensor predicted from the values of sensors beside it, which were read at the same times.

Power follows from current, a sum from its parts. A prediction is a sum of products in float64, rounded: of each value of the
siblings, as it is decoded, with a weight, one behind the other: ``floor(y1 * w1 + 0.5)``, or ``floor((y1 * w1 + y2 * w2) + 0.5)``.
No step of that is fused, so it is the same on every machine. Where it is no number, or 2**52 and more, the prediction before it
holds, at first 0. The body of the codec that the values would have by themselves then holds, instead of its integers, what
they are above the prediction, modulo 2**64. There is no constant: integers are coded by their differences, or around a centre.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import I64, Array, SeriesCodec
from headrace.codecs.integers import decode_integers, encode_integers

F64 = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]

SIBLINGS_MAX = 2
_LIMIT = 2.0**52
_WEIGHT = np.dtype("<f4")


class IntegerCodec(Protocol):
    """A codec of values whose bodies end in integers (`headrace.codecs.integers`)."""

    def pack(self, values: Array) -> bytes:
        """As every codec."""

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """As every codec."""

    def integers_at(self, body: bytes) -> int:
        """Where the integers of a body begin. Raises ValueError, IndexError or struct.error where it is no such body."""

    def of_integers(self, head: bytes, numbers: I64, dtype: np.dtype[Any]) -> Array:
        """What a body without its integers, and these, are decoded to. Raises as `unpack`."""


@dataclass(frozen=True, slots=True)
class SiblingCodec(SeriesCodec):
    """The body is a count, as a byte; of each sibling its weight, as float32; and the body of the other codec, with integers above the prediction.

    It has no name in the registry, since it needs what others hold: `headrace.store.siblings` says where.

    Parameters
    ----------
    inner : what the values would be coded with by themselves. siblings : ``T[n]`` each, as they are decoded; two at most.
    weights : of the siblings; what `pack` predicts with.
    """

    inner: IntegerCodec
    siblings: tuple[Array, ...] = ()
    weights: tuple[float, ...] = ()
    name: ClassVar[str] = "sibling"

    @property
    def eps(self) -> float:
        """The bound of the other codec; 0 where it is lossless."""
        return float(getattr(self.inner, "eps", 0.0))

    def to_dict(self) -> dict[str, Any]:
        """The name alone: its parts say themselves."""
        return {"name": self.name}

    def pack(self, values: Array) -> bytes:
        """The body of ``values: T[n]``. Raises `Unfit` where the other codec does."""
        return self.predict(self.inner.pack(values), values.size)

    def unpack(self, body: bytes, n: int, *dtype: Any) -> Array:
        """The n values of a body. Raises `CorruptionError`."""
        head, numbers = self._numbers(body, n)
        return self.inner.of_integers(head, numbers, *dtype)

    def predict(self, plain: bytes, n: int) -> bytes:
        """The body of n values from their body by the other codec."""
        at = self.inner.integers_at(plain)
        numbers = decode_integers(plain[at:], n) - predicted(self.siblings, self.weights, n)
        weights = np.array(self.weights, _WEIGHT)
        return b"".join([bytes([len(weights)]), weights.tobytes(), plain[:at], encode_integers(numbers)])

    def plain(self, body: bytes, n: int) -> bytes:
        """Inverse of `predict`: a body of the other codec. Raises `CorruptionError`."""
        head, numbers = self._numbers(body, n)
        return head + encode_integers(numbers)

    def _numbers(self, body: bytes, n: int) -> tuple[bytes, I64]:
        """The other codec's body without its integers, and these."""
        if not body or body[0] != len(self.siblings) or any(len(one) != n for one in self.siblings):
            raise self.damaged(f"it is not of {n} values and {len(self.siblings)} siblings")
        first = 1 + _WEIGHT.itemsize * body[0]
        try:
            weights = np.frombuffer(body[1:first], _WEIGHT)
            rest = body[first:]
            at = self.inner.integers_at(rest)
        except (ValueError, IndexError, struct.error) as e:
            raise self.damaged(str(e)) from e
        return rest[:at], decode_integers(rest[at:], n) + predicted(self.siblings, weights, n)


def predicted(siblings: Sequence[Array], weights: Sequence[float] | Weights, n: int) -> I64:
    """What siblings say of n integers: int64[n]; see the module's text.

    Examples
    --------
    >>> predicted([np.array([1.0, 2.0, np.nan])], [10.0], 3).tolist()
    [10, 20, 20]
    """
    total = np.zeros(n)
    with np.errstate(all="ignore"):  # what is no number is met below
        for number, (one, weight) in enumerate(zip(siblings, weights, strict=True)):
            product = one.astype(np.float64) * float(np.float32(weight))
            total = product if not number else total + product
        total = np.floor(total + 0.5)
        known = np.abs(total) < _LIMIT
    if not known.all():
        last = np.maximum.accumulate(np.where(known, np.arange(n), -1))
        total = np.where(last >= 0, total[last], 0.0)
    return total.astype(np.int64)
