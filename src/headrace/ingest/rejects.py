"""Rejects on disk: refused input, kept for replay.

A REJECT record holds several rejects as JSON (the journal compresses it). Source, detail and raw bytes are
cut to bounds, so that hostile input can't fill the journal faster than its own size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

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
    return json.dumps([bounded(r).to_dict() for r in rejects], separators=(",", ":")).encode()


def decode_rejects(payload: Buffer) -> list[Reject]:
    """The inverse of `encode_rejects`.

    Raises
    ------
    CorruptionError : the bytes are not rejects.
    """
    try:
        return [Reject.from_dict(d) for d in json.loads(bytes(payload))]
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise CorruptionError(f"{len(payload):,} bytes are not rejects: {e}") from e
