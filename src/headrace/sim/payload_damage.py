"""How payloads get damaged on their way, or were never right: by a seed."""

from __future__ import annotations

import re
from enum import StrEnum, auto

import numpy as np

_NUMBER = re.compile(rb"-?\d[\d.]*")
_WRONG = (
    b'"five"', b"[1]", b"{}", b"1e999", b"-", b"nan", b"null", b"true", b"", b"9" * 400, b"0x10", b"\xff\xfe",
    b"99999999999999999999",
)  # fmt: skip
_EXTREMES = (b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"\xff\xff\xff\xff\x0f", b"\x80" * 10)
_ABSURD_BYTES = 1_200_000
_FLIPS_MAX = 4


class PayloadDamage(StrEnum):
    """What happened to a payload."""

    FLIPPED = auto()
    """Some of its bits."""
    CUT = auto()
    """It ends too early, or begins too late."""
    WRONG_TYPE = auto()
    """Something else stands where a number was."""
    LENGTH = auto()
    """It says that something in it is absurdly long, or is."""
    NOISE = auto()
    """It is something else altogether."""


def damaged(payload: bytes, kind: PayloadDamage, rng: np.random.Generator) -> bytes:
    """The payload with a damage of a kind."""
    data = bytearray(payload)
    at = int(rng.integers(len(data)))
    if kind is PayloadDamage.FLIPPED:
        for place in rng.integers(0, 8 * len(data), int(rng.integers(1, _FLIPS_MAX + 1))).tolist():
            data[place // 8] ^= 1 << (place % 8)
    elif kind is PayloadDamage.CUT:
        data = data[:at] if rng.random() < 0.7 else data[at:]
    elif kind is PayloadDamage.WRONG_TYPE:
        return _with_wrong_type(payload, rng)
    elif kind is PayloadDamage.LENGTH:
        if rng.random() < 0.1:
            return payload + b"7" * _ABSURD_BYTES
        data[at:at] = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    else:
        return rng.bytes(int(rng.integers(0, 200)))
    return bytes(data)


def n_values_most(n_values: int, kind: PayloadDamage, payload: bytes) -> int:
    """How many samples and refused samples a damaged payload can give, by how many values it had before.

    A flipped bit makes at most one more separator, which parts one value, or a line of two, from the others.
    """
    if kind is PayloadDamage.NOISE:
        return 1 + len(payload) // 2  # each has a byte, and something that ends it
    return n_values + 2 * _FLIPS_MAX


def _with_wrong_type(payload: bytes, rng: np.random.Generator) -> bytes:
    """Something else instead of a number; of bytes that are no text, of some of them."""
    found = list(_NUMBER.finditer(payload)) if payload.isascii() else []
    if not found:
        extreme = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
        at = int(rng.integers(len(payload)))
        return payload[:at] + extreme + payload[at + len(extreme) :]
    one = found[int(rng.integers(len(found)))]
    return payload[: one.start()] + _WRONG[int(rng.integers(len(_WRONG)))] + payload[one.end() :]
