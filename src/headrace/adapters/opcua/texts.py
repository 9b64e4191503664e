"""Single values of any kind for people: a variant's bytes as a number, text, true or false."""

from __future__ import annotations

import numpy as np

from headrace.adapters.opcua.kinds import BOOLEAN, LOCALIZED_TEXT, LONG_KINDS, NO_PART, native, part_of
from headrace.adapters.opcua.messages import Values
from headrace.adapters.opcua.scanner import ARRAY

_PLAIN = 0x3F


def text_of(raw: bytes) -> str | None:
    """The text of a variant; None where it is no UTF-8."""
    at = 1
    if raw[0] & _PLAIN == LOCALIZED_TEXT:
        mask, at = raw[1], 2
        if mask & 1:
            at += 4 + max(int.from_bytes(raw[at : at + 4], "little", signed=True), 0)
        if not mask & 2:
            return ""
    size = max(int.from_bytes(raw[at : at + 4], "little", signed=True), 0)
    try:
        return raw[at + 4 : at + 4 + size].decode()
    except UnicodeDecodeError:
        return None


def value_at(values: Values, row: int) -> float | bool | str | None:
    """The value of a row; None where it has none, or one that no sensor can hold. Not finite floats are None."""
    kind = int(values.columns.kind[row])
    if not kind or kind & ARRAY or part_of(kind) == NO_PART:
        return None
    if kind in LONG_KINDS:
        return text_of(values.raw(row))
    value = native(values.columns.bits[row : row + 1], kind)[0].item()
    if kind == BOOLEAN:
        return bool(value)
    return value if np.isfinite(value) else None
