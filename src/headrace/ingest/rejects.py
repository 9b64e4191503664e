"""Rejects on disk: refused input, kept for replay.

A REJECT record holds several rejects as JSON (the journal compresses it). Source, detail and raw bytes are
cut to bounds, and several rejects of one input have its bytes once (``same``: the number of the reject that has
them), so that hostile input can't fill the journal faster than its own size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from headrace.core.disk import Buffer
from headrace.core.errors import CorruptionError
from headrace.core.events import MAX_RAW_BYTES, Reject

MAX_TEXT_CHARACTERS = 500


def bounded(reject: Reject) -> Reject:
    """The reject with its texts and raw bytes cut to what the journal keeps."""
    return Reject(
        reject.code,
        reject.adapter,
        reject.source[:MAX_TEXT_CHARACTERS],
        reject.detail[:MAX_TEXT_CHARACTERS],
        reject.raw[:MAX_RAW_BYTES],
        reject.arrival_ns,
        reject.n_samples,
    )


def encode_rejects(rejects: Sequence[Reject]) -> bytes:
    """Payload of a REJECT record."""
    first: dict[bytes, int] = {}
    out = []
    for number, reject in enumerate(map(bounded, rejects)):
        same = first.setdefault(reject.raw, number)
        one = replace(reject, raw=b"").to_dict() | {"same": same} if same < number else reject.to_dict()
        out.append(one)
    return json.dumps(out, separators=(",", ":")).encode()


def decode_rejects(payload: Buffer) -> list[Reject]:
    """The inverse of `encode_rejects`.

    Raises
    ------
    CorruptionError : the bytes are not rejects.
    """
    try:
        out: list[Reject] = []
        for one in json.loads(bytes(payload)):
            same = one.pop("same", None)
            reject = Reject.from_dict(one)
            out.append(reject if same is None else replace(reject, raw=_raw_of(out, same)))
        return out
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        raise CorruptionError(f"{len(payload):,} bytes are not rejects: {e}") from e


def _raw_of(before: Sequence[Reject], number: object) -> bytes:
    """The bytes of an earlier reject of the record."""
    if not isinstance(number, int) or not 0 <= number < len(before):
        raise ValueError(f"there is no reject {number!r} before")
    return before[number].raw
