"""What registers hold, by a reading of our own: values of every type in every byte order, with struct and slices alone.

The decoder of `headrace.adapters.payloads.registers` is held against it, and any other one that reads registers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
_CODES = {"U16": "H", "I16": "h", "U32": "I", "I32": "i", "U64": "Q", "I64": "q", "F32": "f", "F64": "d"}
_N_DIGITS = {"BCD16": 4, "BCD32": 8}
_TEXT = "Ofen 7"


@dataclass(frozen=True, slots=True)
class RegisterCase:
    """A value, where it lies, and its bytes on the wire."""

    address: str
    data: bytes
    value: float | str


def in_order(data: bytes, order: str) -> bytes:
    """Bytes of a value, first the most significant one, as a device of that order sends them."""
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def _values(kind: str, rng: np.random.Generator) -> Iterator[tuple[bytes, float | str]]:
    """Bytes, big-endian, and values of a type: extremes, and one by chance, none of which is the same read backwards."""
    if kind in _N_DIGITS:
        n = _N_DIGITS[kind]
        for digits in ("9" * (n - 1) + "0", "12345678"[:n]):
            yield bytes.fromhex(digits), int(digits)
        return
    code = ">" + _CODES[kind]
    n_bits = 8 * struct.calcsize(code)
    if kind[0] == "F":
        some: list[float] = [-0.1, float(np.finfo(f"f{n_bits // 8}").max), float(rng.normal())]
    else:
        low = -(1 << (n_bits - 1)) if kind[0] == "I" else 1
        some = [low, low + 0x0102, int.from_bytes(rng.bytes(n_bits // 8 - 1)) + 1]
    for value in some:
        data = struct.pack(code, value)
        yield data, struct.unpack(code, data)[0]


def register_cases(has_texts: bool = True, seed: int = 0) -> list[RegisterCase]:
    """Holding registers from the first on: every type in each of its orders, one after the other."""
    rng = np.random.default_rng(seed)
    out: list[RegisterCase] = []
    at = 0
    kinds = [(kind, order) for kind in (*_CODES, *_N_DIGITS) for order in ORDERS]
    for kind, order in kinds:
        for data, value in _values(kind, rng):
            out.append(RegisterCase(f"holding:{at}:{kind};order={order}", in_order(data, order), value))
            at += len(data) // 2
    for order in (
        ("ABCD", "BADC") if has_texts else ()
    ):  # of a text only the bytes of a register can be exchanged
        data = _TEXT.encode().ljust(8, b"\0")
        out.append(RegisterCase(f"holding:{at}:STR[8];order={order}", in_order(data, order), _TEXT))
        at += len(data) // 2
    return out
