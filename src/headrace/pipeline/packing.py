"""State as bytes: named arrays, one after the other, each with its type and shape."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.errors import CorruptionError

Arrays = dict[str, npt.NDArray[Any]]
_LENGTH = struct.Struct("<I")


def pack(arrays: Arrays) -> bytes:
    """Arrays by name as bytes; the inverse is `unpack`."""
    head = json.dumps([[name, a.dtype.str, a.shape] for name, a in arrays.items()]).encode()
    return b"".join(
        [_LENGTH.pack(len(head)), head, *(np.ascontiguousarray(a).tobytes() for a in arrays.values())]
    )


def unpack(data: bytes | memoryview) -> Arrays:
    """Arrays by name; copies, so that they can be changed.

    Raises
    ------
    CorruptionError : the bytes are no packed arrays.
    """
    try:
        (n_head,) = _LENGTH.unpack_from(data)
        at = _LENGTH.size + n_head
        out: Arrays = {}
        for name, dtype, shape in json.loads(bytes(data[_LENGTH.size : at])):
            count = int(np.prod(shape, dtype=np.int64))
            out[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
            at += out[name].nbytes
        return out
    except (struct.error, ValueError, TypeError) as e:
        raise CorruptionError(f"{len(data):,} bytes are not packed state: {e}") from e


def pack_parts(parts: list[bytes]) -> bytes:
    """Several byte strings as one."""
    return b"".join([_LENGTH.pack(len(parts)), *(_LENGTH.pack(len(p)) for p in parts), *parts])


def unpack_parts(data: bytes | memoryview) -> list[memoryview]:
    """The inverse of `pack_parts`. Raises `CorruptionError`."""
    view = memoryview(data)
    try:
        (n,) = _LENGTH.unpack_from(view)
        lengths = [_LENGTH.unpack_from(view, 4 * (i + 1))[0] for i in range(min(n, len(view) // 4))]
    except struct.error as e:
        raise CorruptionError(f"{len(view):,} bytes are not packed state: {e}") from e
    at = 4 * (n + 1)
    if at + sum(lengths) != len(view):
        raise CorruptionError(f"packed state has {len(view):,} bytes, its parts say {at + sum(lengths):,}")
    out = []
    for length in lengths:
        out.append(view[at : at + length])
        at += length
    return out
