"""Logs of frames: several of a kind are joined as their batches would be."""

import numpy as np
import pytest

from headrace.core.frames import FrameBatch
from headrace.store.frame_log import FrameLog, joined

SLOTS = np.array([3, 1, 2], np.uint32)
TIMES = np.array([10, 20, 30])
WORDS = ("run", "stop")


def dense(values, **rest):
    return FrameBatch.dense(SLOTS, TIMES, np.array(values).reshape(3, 2), arrival_ns=5, **rest)


def batches():
    numbers = np.arange(6.0)
    marks = np.array([[0, 0x80], [0, 0], [0xC0, 0]], np.uint8)
    start, rate = np.array([0, 2, 3, 6]), (np.ones(3, np.int64), np.ones(3, np.int64))
    yield "plain", [dense(numbers), dense(numbers + 9)]
    yield "quality in one", [dense(numbers), dense(numbers + 9, quality=marks)]
    texts = np.array([0, 1, 1, 0, 1, 0], np.uint8)
    yield "texts", [dense(texts, dictionary=WORDS), dense(texts[::-1].copy(), dictionary=WORDS)]
    yield "texts of one", [dense(texts, dictionary=WORDS)]
    sparse = FrameBatch.sparse(SLOTS, TIMES, numbers, start, np.zeros(6, np.uint16), arrival_ns=5)
    yield "sparse", [sparse, sparse]
    wave = FrameBatch.wave(SLOTS, TIMES, numbers, start, rate, arrival_ns=5)
    yield "waves", [wave, wave]


@pytest.mark.parametrize(
    ("name", "some"), list(batches()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_logs_are_joined_as_their_batches_are(name, some):
    logs = []
    for seq, batch in enumerate(some):
        shape, dtype, width, words = batch.kind_key
        log = FrameLog((shape, dtype, width, None if words is None else ("0",)))
        log.append(seq, batch)
        logs.append(log)
    assert {log.kind_key for log in logs} == {batch.kind_key for batch in some}
    found, expected = joined(logs), FrameBatch.concat(some)
    assert found.kind_key == expected.kind_key
    for column in (
        "slot",
        "ts_ns",
        "values",
        "quality",
        "start",
        "column",
        "value_ts_ns",
        "rate_num",
        "rate_den",
    ):
        one, other = getattr(found, column), getattr(expected, column)
        assert (one is None) == (other is None), column
        assert one is None or np.array_equal(one, other), column
    assert found.arrival_ns == 5
