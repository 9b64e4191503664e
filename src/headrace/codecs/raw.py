"""The values as they are: where nothing else is smaller, or verification failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import Array, SeriesCodec


@dataclass(frozen=True, slots=True)
class RawCodec(SeriesCodec):
    """The body is the values' bytes, little endian."""

    name: ClassVar[str] = "raw"

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``."""
        return values.tobytes()

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the length is another."""
        if len(body) != n * dtype.itemsize:
            raise self.damaged(f"{len(body)} bytes for {n} values of {dtype}")
        return np.frombuffer(body, dtype)
