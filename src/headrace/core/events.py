"""What parts tell upwards: rejects of bad input and events of note, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_RAW_BYTES = 1 << 20
"""What is kept of one refused input: a longer one can be looked at, but not decoded again."""
PACKED_RAW_BYTES = 4_096
"""Small inputs that are refused one after the other for the same reason share a reject up to this size."""


class RejectCode(StrEnum):
    """Why input was refused. A closed set: metric label, journal field and page of the documentation."""

    MALFORMED = "malformed"
    """The bytes are not what the payload format says."""
    TOO_LARGE = "too-large"
    """The payload passes the size limit."""
    UNKNOWN_TOPIC = "unknown-topic"
    """No topic rule matches."""
    UNKNOWN_TAG = "unknown-tag"
    """A field or register that no rule or profile names."""
    WRONG_TYPE = "wrong-type"
    """A value whose type its sensor can't take."""
    BAD_TIME = "bad-time"
    """A time that can't be read, or lies outside what the time policy allows."""
    BAD_PATH = "bad-path"
    """The topic or file gives a path that can't name a sensor."""
    DEVICE_ERROR = "device-error"
    """The device answered with an error of its own."""
    INTERNAL = "internal"
    """A decoder failed unexpectedly: a defect of ours; the input is kept."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One refused input.

    Parameters
    ----------
    adapter : the adapter instance; source : topic, device, file, or how pushed input is written.
    detail : what was expected and what came.
    raw : the input itself or the part of it that was refused, its first MiB.
    n_samples : samples that are lost with it, at least 1.
    """

    code: RejectCode
    adapter: str
    source: str
    detail: str
    raw: bytes = b""
    arrival_ns: int = 0
    n_samples: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; `raw` as hexadecimal."""
        return {
            "code": str(self.code), "adapter": self.adapter, "source": self.source, "detail": self.detail,
            "raw": self.raw[:MAX_RAW_BYTES].hex(), "arrival_ns": self.arrival_ns, "n_samples": self.n_samples,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Reject:
        """The inverse of `to_dict`. Raises ValueError, TypeError or KeyError where `data` is none."""
        found = cls(**{**data, "code": RejectCode(data["code"]), "raw": bytes.fromhex(data["raw"])})
        texts, numbers = (found.adapter, found.source, found.detail), (found.arrival_ns, found.n_samples)
        if not all(type(text) is str for text in texts) or not all(type(n) is int for n in numbers):
            raise TypeError("a reject has texts and whole numbers")
        return found


@dataclass(frozen=True, slots=True)
class Event:
    """Something of note: connected, lost, recovered, compacted. `kind` is a dotted name."""

    ts_ns: int
    kind: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
