"""What OPC UA's built-in types and status codes become: value types of sensors and qualities.

Source: OPC 10000-6, section 5.1.2 (built-in types); OPC 10000-4, section 7.39 (StatusCode).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.adapters.opcua.scanner import ARRAY, TICKS_1970, TICKS_SPAN
from headrace.core.clock import NO_TIME, NS
from headrace.core.layouts import DTYPES, numpy_dtype
from headrace.core.quality import Quality

KIND_NAMES = (
    "nothing", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String", "DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode",
    "QualifiedName", "LocalizedText", "structure", "DataValue", "Variant", "DiagnosticInfo",
)  # fmt: skip
TEXT = "text"
"""The part of a device's group that holds its texts, as codes with a dictionary."""
PARTS: tuple[str, ...] = (*DTYPES, TEXT)
"""Parts of a device's group, one a value type."""
NO_PART = -1
BOOLEAN, STRING, DATE_TIME, LOCALIZED_TEXT = 1, 12, 13, 21
_DTYPES = {
    1: "u8", 2: "i8", 3: "u8", 4: "i16", 5: "u16", 6: "i32", 7: "u32", 8: "i64", 9: "u64", 10: "f32", 11: "f64",
    13: "i64", 19: "u32",
}  # fmt: skip
_TEXTS = (STRING, 16, LOCALIZED_TEXT)
LONG_KINDS = _TEXTS
IS_LONG = np.array([bool(kind & ARRAY) or (kind > 0 and kind not in _DTYPES) for kind in range(256)])
"""Whether values of a kind are not a number of at most eight bytes."""
N_KINDS = 64

# Codes with a quality of their own, by their first 16 bits; others go by their severity.
_QUALITIES = {
    0x4090: Quality.UNCERTAIN_STALE,  # UncertainLastUsableValue
    0x408F: Quality.UNCERTAIN_STALE,  # UncertainNoCommunicationLastUsableValue
    0x4094: Quality.UNCERTAIN_RANGE,  # UncertainEngineeringUnitsExceeded
    0x8005: Quality.BAD_COMMUNICATION,  # BadCommunicationError
    0x800A: Quality.BAD_COMMUNICATION,  # BadTimeout
    0x8031: Quality.BAD_COMMUNICATION,  # BadNoCommunication
    0x8032: Quality.BAD_COMMUNICATION,  # BadWaitingForInitialData
    0x808A: Quality.BAD_COMMUNICATION,  # BadNotConnected
    0x8033: Quality.BAD_DEVICE,  # BadNodeIdInvalid
    0x8034: Quality.BAD_DEVICE,  # BadNodeIdUnknown
    0x8035: Quality.BAD_DEVICE,  # BadAttributeIdInvalid
    0x803A: Quality.BAD_DEVICE,  # BadNotReadable
    0x8089: Quality.BAD_DEVICE,  # BadConfigurationError
    0x808B: Quality.BAD_DEVICE,  # BadDeviceFailure
    0x808C: Quality.BAD_DEVICE,  # BadSensorFailure
    0x808D: Quality.BAD_DEVICE,  # BadOutOfService
    0x803C: Quality.BAD_RANGE,  # BadOutOfRange
    0x8074: Quality.BAD_TYPE,  # BadTypeMismatch
}
_BY_SEVERITY = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)
_INFO_TYPE, _INFO_DATA_VALUE, _OVERFLOW = 0x0C00, 0x0400, 0x0080


def _accepts() -> npt.NDArray[np.bool_]:
    """Which kind of value a part takes without loss."""
    out = np.zeros((len(PARTS), N_KINDS), np.bool_)
    for code, part in enumerate(PARTS):
        for kind in range(N_KINDS):
            if part == TEXT:
                out[code, kind] = kind in _TEXTS
            elif kind in _DTYPES:
                out[code, kind] = _is_lossless(kind, part)
    return out


def _is_lossless(kind: int, part: str) -> bool:
    own = _DTYPES[kind]
    if kind in (BOOLEAN, DATE_TIME):
        return part == own
    if own in ("i64", "u64") and part[0] == "f":
        return False  # NumPy calls it safe; from 2**53 on it rounds
    return bool(np.can_cast(numpy_dtype(own), numpy_dtype(part), "safe"))


ACCEPTS = _accepts()
"""``ACCEPTS[part, kind]``: whether values of the kind can be stored in the part as they are."""


def part_of(kind: int) -> int:
    """The part that a kind of value belongs to by itself; `NO_PART` where none can hold it."""
    kind &= ~ARRAY
    if kind in _TEXTS:
        return PARTS.index(TEXT)
    return PARTS.index(_DTYPES[kind]) if kind in _DTYPES else NO_PART


def kind_text(kind: int) -> str:
    """A kind in OPC UA's words: ``Int32``, ``Double[]``."""
    plain = kind & ~ARRAY
    name = KIND_NAMES[plain] if plain < len(KIND_NAMES) else f"type {plain}"
    return f"{name}[]" if kind & ARRAY else name


def native(bits: npt.NDArray[np.uint64], kind: int) -> npt.NDArray[np.generic]:
    """Values of one kind in their own type, from their bytes.

    A DateTime is ns since 1970; one that int64 can't hold is the nearest it can.
    """
    if kind == DATE_TIME:
        since = bits.astype(np.int64) - TICKS_1970
        return np.clip(since, -TICKS_SPAN, TICKS_SPAN) * 100
    dtype = numpy_dtype(_DTYPES[kind])
    out: npt.NDArray[np.generic] = bits.astype(f"u{dtype.itemsize}").view(dtype)
    return np.minimum(out, 1).astype(np.uint8) if kind == BOOLEAN else out


def element_bytes(kind: int) -> int:
    """Bytes of one element of an array of numbers."""
    return 8 if kind == DATE_TIME else numpy_dtype(_DTYPES[kind]).itemsize


def qualities(status: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8] | None:
    """The quality of each status code; None where all are good.

    A value after which the server's queue had overflown is uncertain: others came before it that nobody has seen.
    """
    if not status.any():
        return None
    codes, inverse = np.unique(status, return_inverse=True)
    known = np.array([quality_of(code) for code in codes.tolist()], np.uint8)
    out: npt.NDArray[np.uint8] = known[inverse]
    return out


def quality_of(code: int) -> Quality:
    """The quality of one status code."""
    found = _QUALITIES.get(code >> 16, _BY_SEVERITY[code >> 30])
    return Quality.UNCERTAIN if found is Quality.GOOD and is_overflow(code) else found


def is_overflow(code: int) -> bool:
    """Whether a status code says that the server's queue has lost values."""
    return code & _INFO_TYPE == _INFO_DATA_VALUE and code & _OVERFLOW != 0


def overflows(status: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """`is_overflow` of many."""
    out: npt.NDArray[np.bool_] = (status & (_INFO_TYPE | _OVERFLOW)) == (_INFO_DATA_VALUE | _OVERFLOW)
    return out


OLDEST_NS = 946_684_800 * NS
AHEAD_NS = 60 * NS


def choose_times(
    policy: str, source_ns: npt.NDArray[np.int64], server_ns: npt.NDArray[np.int64], arrival_ns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """The time of each value, and which were doubtful (None: none).

    ``auto`` takes the source's time; where that is missing, the server's; where it lies before 2000 or more than a
    minute ahead of the server's, too, and says so. What has no time at all gets that of its arrival.
    """
    if policy == "ingest":
        return np.full(len(source_ns), arrival_ns), None
    first = server_ns if policy == "server" else source_ns
    doubtful = None
    if policy == "auto":
        has = (server_ns != NO_TIME) & (source_ns != NO_TIME)
        wrong = has & ((source_ns < OLDEST_NS) | (source_ns > server_ns + AHEAD_NS))
        first = np.where(wrong | (source_ns == NO_TIME), server_ns, source_ns)
        doubtful = wrong if wrong.any() else None
    return np.where(first == NO_TIME, arrival_ns, first), doubtful
