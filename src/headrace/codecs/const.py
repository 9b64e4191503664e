"""All values are the same: setpoints, states, dead sensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import Array, SeriesCodec, Unfit


@dataclass(frozen=True, slots=True)
class ConstCodec(SeriesCodec):
    """One value for all; the body is its bytes, little endian (empty for no values).

    Examples
    --------
    >>> import numpy as np
    >>> payload = ConstCodec().encode(np.full(1000, 21.5))
    >>> len(payload), ConstCodec().decode(payload, 3, np.dtype(np.float64)).tolist()
    (13, [21.5, 21.5, 21.5])
    """

    name: ClassVar[str] = "const"

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``; `Unfit` unless all have the same bits."""
        first = values[:1].tobytes()
        if values.tobytes() != first * values.size:
            raise Unfit("the values differ")
        return first

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload is not one value of that type."""
        if len(body) != (dtype.itemsize if n else 0):
            raise self.damaged(f"{len(body)} bytes for {n} equal values of {dtype}")
        return np.frombuffer(body * n, dtype)
