"""Rejects on disk."""

from __future__ import annotations

import pytest

from headrace.core.errors import CorruptionError
from headrace.core.events import MAX_RAW_BYTES, Reject, RejectCode
from headrace.ingest.rejects import MAX_TEXT_CHARACTERS, decode_rejects, encode_rejects


def test_rejects_come_back() -> None:
    rejects = [
        Reject(code, "broker", "plant/é", "expected a number, got 'x'", bytes(range(256)), 17, 3)
        for code in RejectCode
    ]
    assert decode_rejects(encode_rejects(rejects)) == rejects


def test_text_and_raw_bytes_are_bounded() -> None:
    huge = Reject(RejectCode.TOO_LARGE, "broker", "s" * 10_000, "d" * 10_000, bytes(2_000_000))
    (kept,) = decode_rejects(encode_rejects([huge]))
    assert len(kept.source) == len(kept.detail) == MAX_TEXT_CHARACTERS
    assert len(kept.raw) == MAX_RAW_BYTES


def test_several_rejects_of_an_input_have_its_bytes_once() -> None:
    raw, others = bytes(range(256)) * 2_000, [b"", b"x", b""]
    rejects = [
        Reject(RejectCode.MALFORMED, "broker", "t", f"line {n}", one, n)
        for n, one in enumerate([raw, *others, bytes(bytearray(raw))] * 3)
    ]
    payload = encode_rejects(rejects)
    assert len(payload) < 2.01 * len(raw)
    found = decode_rejects(payload)
    assert found == rejects
    assert found[0].raw is found[4].raw is found[10].raw


@pytest.mark.parametrize(
    "payload",
    [
        b"[3]",
        b'[{"same": 0}]',
        *(
            b'[{"code":"malformed","adapter":"a","source":"s","detail":"d","raw":"","arrival_ns":1,"n_samples":1,"same":%s}]'
            % same
            for same in (b"0", b"-1", b'"0"', b"[]")
        ),
        b"",
        b"{}x",
        b'[{"code": "no-such"}]',
        b"[1]",
        b"\xff",
        b'[{"adapter": "a"}]',
        b"[" * 100_000,
    ],
)
def test_what_is_not_rejects_is_corruption(payload: bytes) -> None:
    with pytest.raises(CorruptionError, match="are not rejects"):
        decode_rejects(payload)
