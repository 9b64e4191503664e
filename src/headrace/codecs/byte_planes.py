"""Bytes of one weight side by side, then zstd: for floats that are full of noise but share exponents, and repeat.

Source: the shuffle filter of HDF5 and Blosc, BYTE_STREAM_SPLIT in Parquet; zstd is RFC 8878.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from headrace.codecs.base import Array, SeriesCodec, type_byte

LEVEL_MAX = 19


@dataclass(frozen=True, slots=True)
class BytePlanesCodec(SeriesCodec):
    """The body is a byte with the value type, an index into `headrace.core.layouts.DTYPES`, and one zstd frame.

    In the frame lie the lowest bytes of all values, then the next ones, up to the highest.

    Parameters
    ----------
    level : effort of zstd, 1 to 19.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.sin(np.arange(1000)).astype(np.float32)
    >>> codec = BytePlanesCodec()
    >>> payload = codec.encode(values)
    >>> len(payload) < 3500, bool((codec.decode(payload, 1000, values.dtype) == values).all())
    (True, True)
    """

    level: int = 3
    name: ClassVar[str] = "byte_planes"

    def __post_init__(self) -> None:
        if not 1 <= self.level <= LEVEL_MAX:
            raise ValueError(f"level {self.level}, 1 to {LEVEL_MAX} allowed")

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``."""
        planes = np.ascontiguousarray(values).view(np.uint8).reshape(values.size, values.dtype.itemsize).T
        return type_byte(values.dtype) + bytes(
            pa.Codec("zstd", self.level).compress(planes.tobytes(), asbytes=True)
        )

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        if body[:1] != type_byte(dtype):
            raise self.damaged(f"it does not hold {n} values of {dtype}")
        try:
            # Refuses a frame of any other size than this.
            planes = pa.Codec("zstd").decompress(body[1:], decompressed_size=n * dtype.itemsize, asbytes=True)
        except (OSError, pa.ArrowException) as e:
            raise self.damaged(str(e)) from e
        if len(planes) != n * dtype.itemsize:
            raise self.damaged(f"{len(planes)} bytes for {n} values of {dtype}")
        words = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, n)
        return np.ascontiguousarray(words.T).reshape(-1).view(dtype)
