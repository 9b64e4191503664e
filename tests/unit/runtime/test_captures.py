"""Captures are bounded, and come back as they were."""

import asyncio
import json

import pytest

from headrace.adapters.abilities import Captured, Direction
from headrace.core.errors import ConfigError, PluginError
from headrace.runtime.captures import Tape, decode_report, head_document, piece_document, read_capture

PIECES = [
    Captured(5, "plant/d1", b"\x00\xff", Direction.RECEIVED),
    Captured(6, "plant/d1", b"", Direction.SENT, {"request": "0300"}),
]


class Counting:
    """Makes nothing of pieces."""

    def listen(self, listener):
        raise AssertionError("nobody listens")

    def decode_captured(self, captured, directory):
        return [], []


async def test_a_tape_keeps_the_newest_within_its_bound():
    tape = Tape(bytes_max=2_000)
    assert await tape.read(0.001) == ([], 0)
    for n in range(10):
        tape.take(Captured(n, "x", bytes(300)))
    pieces, skipped = await tape.read(1.0)
    assert ([one.ts_ns for one in pieces], skipped) == ([6, 7, 8, 9], 6)
    tape.take(Captured(0, "x", bytes(10_000)))
    assert len((await tape.read(1.0))[0]) == 1, "one that is larger than the bound is kept all the same"


@pytest.mark.parametrize("n_steps", range(4))
async def test_a_reader_ends_although_a_piece_comes_at_that_moment(n_steps):
    """One that took no notice of its end would read on for ever."""
    tape = Tape()
    reading = asyncio.create_task(tape.read(60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tape.take(PIECES[0])
    for _ in range(n_steps):
        await asyncio.sleep(0)
    if reading.cancel():
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert ((await tape.read(1.0)) if reading.cancelled() else reading.result()) == ([PIECES[0]], 0)


def test_what_is_written_is_read():
    lines = [json.dumps(head_document("broker", "mqtt", 7))]
    lines += [json.dumps(piece_document(one)) for one in PIECES]
    lines.insert(2, json.dumps({"skipped": 3}))
    head, pieces = read_capture(lines)
    assert (head["adapter"], head["protocol"]) == ("broker", "mqtt")
    assert list(pieces) == PIECES
    assert (pieces.n_left_out, pieces.cut) == (3, "")


@pytest.mark.parametrize("n", [1, 30, 90])
def test_a_last_line_that_is_cut_is_told(n):
    """The disk was full, or the program was killed: what is before it is decoded."""
    lines = [json.dumps(head_document("broker", "mqtt", 7)), *(json.dumps(piece_document(p)) for p in PIECES)]
    assert len(lines[-1]) > 90
    _, pieces = read_capture(
        [lines[0] + "\n", lines[1] + "\n", json.dumps({"skipped": 2}) + "\n", lines[2][:n]]
    )
    found = decode_report("broker", "mqtt", Counting(), pieces)
    assert found["samples"] == 0
    assert found["facts"][1:] == [
        ["capture", "1 pieces, 2 bytes"], ["samples", "0"], ["rejects", "0"],
        ["left out", "2 pieces, while it was made"],
        ["cut", f"line 4 is cut after {n} bytes: what it was is not decoded"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1 of the capture is no JSON object"),
        (["[1]"], "no JSON object"),
        (['{"a": 1}'], "does not begin as a capture"),
        (['{"headrace_capture": 1}', '{"data": "%%"}'], "line 2 of the capture can't be read"),
        (['{"headrace_capture": 1}', '{"data": 5, "ts_ns": "x"}'], "line 2"),
        (['{"headrace_capture": 1}', 'x "data"\n'], "line 2 of the capture is no JSON object"),
        (['{"headrace_capture": 1}', "x\n", "{}"], "line 2 of the capture is no JSON object"),
    ],
)
def test_what_is_no_capture_is_told(lines, said):
    with pytest.raises(ConfigError, match=said):
        list(read_capture(lines)[1])


def test_an_adapter_without_the_ability_is_told():
    with pytest.raises(PluginError, match="can't decode a capture"):
        decode_report("x", "replay", object(), read_capture(['{"headrace_capture": 1}'])[1])
