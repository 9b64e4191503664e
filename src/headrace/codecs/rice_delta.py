"""Differences with Rice codes: the block kernels' columns for one sensor; the fast codec at any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from headrace.codecs.base import Array, SeriesCodec

PIECE_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class RiceDeltaCodec(SeriesCodec):
    """The body is a byte with the value type, an index into `headrace.core.layouts.DTYPES`, then a series.

    `headrace.codecs.series_kernels` has the layout of a series.

    Parameters
    ----------
    piece : values that share one Rice parameter, order and decimal grid; 16 to 65,536.

    Examples
    --------
    >>> import numpy as np
    >>> codec = RiceDeltaCodec()
    >>> payload = codec.encode(np.tile([20.1, 20.2, 20.1, 20.3], 100))
    >>> len(payload), codec.decode(payload, 400, np.dtype(np.float64))[:4].tolist()
    (138, [20.1, 20.2, 20.1, 20.3])
    """

    piece: int = 1024
    name: ClassVar[str] = "rice_delta"

    def __post_init__(self) -> None:
        if not 16 <= self.piece <= PIECE_MAX:
            raise ValueError(f"piece of {self.piece} values, 16 to {PIECE_MAX} allowed")

    def pack(self, values: Array) -> bytes:
        """Encode ``values: T[n]``. Cost 2 to 4 ns an integer, 4 to 8 ns a float."""
        from headrace.codecs.series_kernels import series_body

        return _type_byte(values.dtype) + series_body(values, self.piece)

    def unpack(self, body: bytes, n: int, dtype: np.dtype[Any]) -> Array:
        """Decode n values; CorruptionError where the payload holds others."""
        from headrace.codecs.series_kernels import series_values

        same_type = body[:1] == _type_byte(dtype)
        values = series_values(body[1:], n, dtype, self.piece) if same_type else None
        if values is None:
            raise self.damaged(f"it does not hold {n} values of {dtype}")
        return values


def _type_byte(dtype: np.dtype[Any]) -> bytes:
    from headrace.codecs.values import form_of

    return bytes([form_of(dtype).code])
