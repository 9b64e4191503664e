"""One time axis for the sensors of a device: a reference to times that another row holds.

A device that answers one poll with all of its registers gives every sensor the same times. They are written once, by any
codec, and the others refer to them by checksum. A codec keeps nothing between calls, so whoever reads hands in the axes
that it has (`Axes`); without them the error says which one is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import xxhash

from headrace.codecs.base import I64, SeriesCodec, Unfit

KEY_BYTES = 16


class Axes:
    """Times by their checksum. Arrays that are added are kept as they are: do not change them.

    Parameters
    ----------
    axes : each ``ts_ns: int64[n]``.
    """

    def __init__(self, axes: Iterable[I64] = ()) -> None:
        self._axes: dict[bytes, I64] = {}
        for ts_ns in axes:
            self.add(ts_ns)

    def __len__(self) -> int:
        return len(self._axes)

    def add(self, ts_ns: I64) -> bytes:
        """Keep times for those that refer to them; returns their key."""
        key = axis_key(ts_ns)
        self._axes.setdefault(key, ts_ns)
        return key

    def find(self, key: bytes) -> I64 | None:
        """The times of a key."""
        return self._axes.get(key)


def axis_key(ts_ns: I64) -> bytes:
    """What ``ts_ns: int64[n]`` are found by: XXH3-128 of their bytes, big endian as its authors write it."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(ts_ns, "<i8").tobytes())


@dataclass(frozen=True, slots=True)
class SharedTime(SeriesCodec):
    """The body is the 16 bytes of the axis' key.

    Parameters
    ----------
    axes : those that may be referred to, which the reader must have too; no setting of the codec.

    Examples
    --------
    >>> import numpy as np
    >>> ts_ns = np.cumsum(np.random.default_rng(0).integers(1, 10**9, 1000))
    >>> codec = SharedTime(Axes([ts_ns]))
    >>> payload = codec.encode(ts_ns.copy())
    >>> len(payload), bool((codec.decode(payload, 1000) == ts_ns).all())
    (21, True)
    """

    axes: Axes = field(default_factory=Axes, compare=False, repr=False)
    name: ClassVar[str] = "shared"

    def to_dict(self) -> dict[str, Any]:
        """The name: axes are no setting."""
        return {"name": self.name}

    def pack(self, ts_ns: I64) -> bytes:
        """A reference to ``ts_ns: int64[n]``; `Unfit` where no axis has these times."""
        key = axis_key(ts_ns)
        found = self.axes.find(key)
        if found is None or not np.array_equal(found, ts_ns):
            raise Unfit("no axis has these times")
        return key

    def unpack(self, body: bytes, n: int) -> I64:
        """The n times of the axis that is referred to; CorruptionError where there is none, or one of another length."""
        if len(body) != KEY_BYTES:
            raise self.damaged(f"{len(body)} bytes, {KEY_BYTES} expected")
        found = self.axes.find(body)
        if found is None:
            raise self.damaged(
                f"the time axis {body.hex()} that it refers to is not among the {len(self.axes):,} at hand"
            )
        if found.size != n:
            raise self.damaged(f"its time axis has {found.size:,} times, {n:,} expected")
        return found.copy()
