"""Planes of bytes, compressed by zlib."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.codecs.base import SeriesCodec


@dataclass(frozen=True, slots=True)
class ZlibPlanesCodec(SeriesCodec):
    """Byte 0 of all values, then byte 1 of all, ...: zlib of that is the body.

    Parameters
    ----------
    level : zlib's, 1 to 9.
    """

    level: int = 6
    name: ClassVar[str] = "zlib_planes"

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 9:
            raise ValueError(f"level {self.level}, 1 to 9 allowed")

    def pack(self, values: npt.NDArray[Any]) -> bytes:
        """Encode ``values: T[n]``."""
        planes = np.frombuffer(values.tobytes(), np.uint8).reshape(-1, values.dtype.itemsize).T
        return zlib.compress(planes.tobytes(), self.level)

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Decode n values; CorruptionError where the body holds others. Takes no more memory than they need."""
        size, unzip = n * dtype.itemsize, zlib.decompressobj()
        try:
            planes = unzip.decompress(body, size + 1)
        except zlib.error as e:
            raise self.damaged(str(e)) from e
        if len(planes) != size or not unzip.eof or unzip.unused_data:
            raise self.damaged(f"it does not hold {n} values of {dtype}")
        rows = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, n).T
        return np.frombuffer(rows.tobytes(), dtype)
