"""Frames on the wire: however they are cut, whatever stands between them; pymodbus's framers are the oracle."""

import struct
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from headrace.adapters.modbus.framing import HEADER, NotModbus, RtuFraming, TcpFraming, crc16

READ = struct.pack(">BHH", 3, 0, 2)
DATA = bytes([3, 4, 0, 1, 0, 2])


def rtu(unit, pdu):
    return FramerRTU(DecodePDU(False)).encode(pdu, unit, 0)


def tcp(unit, pdu, transaction):
    return FramerSocket(DecodePDU(False)).encode(pdu, unit, transaction)


@given(st.integers(0, 255), st.binary(min_size=1, max_size=252))
def test_frames_are_those_of_pymodbus(unit, pdu):
    assert RtuFraming().begin(unit, pdu) == rtu(unit, pdu)
    assert TcpFraming().begin(unit, pdu) == tcp(unit, pdu, 1)
    assert crc16(rtu(unit, pdu)) == 0


@given(
    st.integers(1, 247), st.integers(1, 4), st.binary(max_size=250), st.booleans(),
    st.lists(st.integers(0, 260), max_size=5), st.binary(max_size=12), st.booleans(),
)  # fmt: skip
def test_an_rtu_answer_is_found_however_it_is_cut(unit, function, data, is_exception, cuts, noise, has_echo):
    pdu = bytes((function | 0x80, 2)) if is_exception else bytes((function, len(data))) + data
    framing = RtuFraming(has_echo)
    sent = framing.begin(unit, bytes((function, 0, 9, 0, 1)))
    # Noise that is itself the beginning of an answer would be one; a line has none of that.
    noise = noise.replace(bytes((unit,)), b"")
    frame = (sent if has_echo else noise) + rtu(unit, pdu)
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    found = [framing.take(frame[a:b]) for a, b in pairwise(edges)]
    assert [one for one in found if one is not None] == [pdu]


@pytest.mark.parametrize("has_echo", [False, True])
def test_an_rtu_answer_comes_byte_by_byte(has_echo):
    framing = RtuFraming(has_echo)
    sent = framing.begin(5, READ)
    frame = (sent if has_echo else b"") + rtu(5, DATA)
    found = [framing.take(bytes((byte,))) for byte in frame]
    assert found == [None] * (len(frame) - 1) + [DATA]
    assert framing.take(b"\0") is None
    assert framing.n_late == 1, "what nobody waits for"


def test_a_request_that_looks_like_an_answer_is_heard_as_echo():
    """Registers from 0x300: the echo itself is a whole frame with 3 data bytes and the right checksum."""
    framing = RtuFraming(has_echo=True)
    sent = framing.begin(5, struct.pack(">BHH", 3, 0x0300, 2))
    assert framing.take(sent) is None
    assert framing.end() == b"", "an echo alone is no answer, and nothing garbled"
    framing.begin(5, struct.pack(">BHH", 3, 0x0300, 2))
    assert framing.take(sent + rtu(5, DATA)) == DATA
    deaf = RtuFraming(has_echo=True)
    deaf.begin(5, READ)
    assert deaf.take(rtu(5, DATA)) == DATA, "a line without its echo works all the same"


def test_frames_of_others_are_passed_over():
    """A stray broadcast, an answer of another unit that comes late, one to another function."""
    framing = RtuFraming()
    framing.begin(5, READ)
    stray = rtu(0, bytes((6, 0, 1, 0, 1))) + rtu(4, DATA) + rtu(5, bytes((4, 2, 0, 7)))
    assert framing.take(stray) is None
    assert framing.take(rtu(5, DATA)) == DATA


def test_what_came_before_a_request_is_forgotten():
    framing = RtuFraming()
    framing.begin(5, READ)
    assert framing.take(rtu(5, DATA)[:6]) is None
    assert framing.end() == rtu(5, DATA)[:6]
    assert framing.take(rtu(5, DATA)[6:]) is None
    framing.begin(5, READ)
    assert framing.take(rtu(5, bytes((3, 4, 9, 9, 9, 9)))) == bytes((3, 4, 9, 9, 9, 9))


def test_noise_without_end_takes_no_memory():
    framing = RtuFraming()
    framing.begin(5, READ)
    for _ in range(100):
        assert framing.take(bytes(range(6, 106))) is None
    assert len(framing.end()) == 512
    framing.begin(5, READ)
    assert framing.take(bytes(1_000) + rtu(5, DATA)) == DATA


@pytest.mark.parametrize("at", range(9))
def test_a_wrong_bit_is_no_answer(at):
    framing = RtuFraming()
    framing.begin(5, READ)
    frame = bytearray(rtu(5, DATA))
    frame[at] ^= 0x10
    assert framing.take(bytes(frame)) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.binary(min_size=1, max_size=252)), max_size=5
    ),
    st.lists(st.integers(0, 900), max_size=6),
)
def test_tcp_answers_are_found_however_they_are_cut(others, cuts):
    framing = TcpFraming()
    framing.begin(2, READ)
    framing.end()
    framing.begin(2, READ)
    others = [one for one in others if one[:2] != (2, 2)]
    stream = b"".join(tcp(unit, pdu, transaction) for unit, transaction, pdu in others) + tcp(2, DATA, 2)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [framing.take(stream[a:b]) for a, b in pairwise(edges)]
    assert [one for one in found if one is not None] == [DATA]
    assert framing.n_late == len(others)
    assert framing.take(tcp(2, DATA, 2)) is None, "a second answer is none"


@pytest.mark.parametrize("length", [0, 1, 255, 0xFFFF])
def test_absurd_lengths_are_no_modbus(length):
    framing = TcpFraming()
    framing.begin(1, READ)
    with pytest.raises(NotModbus):
        framing.take(HEADER.pack(1, 0, length, 1))


@given(st.binary(max_size=600), st.integers(0, 255))
def test_anything_may_come(data, unit):
    for framing in (RtuFraming(), RtuFraming(has_echo=True)):
        framing.begin(unit, READ)
        framing.take(data)
    framing = TcpFraming()
    framing.begin(unit, READ)
    with suppress(NotModbus):
        framing.take(data)


@pytest.mark.parametrize("cut", range(14))
def test_a_tcp_answer_is_cut_anywhere(cut):
    framing = TcpFraming()
    framing.begin(5, READ)
    whole = tcp(5, DATA, 1)
    found = [framing.take(some) for some in (whole[:cut], whole[cut:]) if some]
    assert found == ([None, DATA] if 0 < cut < len(whole) else [DATA])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 2), st.integers(0, 1),
            st.one_of(st.just(DATA), st.just(b"\x83\x02"), st.binary(min_size=0, max_size=6)),
        ),
        min_size=1, max_size=6,
    ),
    st.lists(st.integers(0, 70), max_size=6),
)  # fmt: skip
def test_tcp_frames_come_in_and_go_out_or_end_the_connection(frames, cuts):
    """However they are cut: the first frame with our ids is the answer, all others are counted, what is no frame is told."""
    framing = TcpFraming()
    framing.begin(1, READ)
    stream = b"".join(HEADER.pack(t, protocol, len(pdu) + 1, u) + pdu for t, u, protocol, pdu in frames)
    sound = frames[: _first_bad(frames)]
    answers = [pdu for t, u, _, pdu in sound if (t, u) == (1, 1)]
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found, is_modbus = [], True
    for a, b in pairwise(edges):
        try:
            found.append(framing.take(stream[a:b]))
        except NotModbus:
            is_modbus = False
            break
    found = [one for one in found if one is not None]
    if is_modbus:
        assert len(sound) == len(frames), "what can't be Modbus is told"
        assert found == answers[:1]
        assert framing.n_late == len(frames) - len(found), "nothing is silently away"
        assert framing.end() == b""
    else:
        assert len(sound) < len(frames)
        assert found in ([], answers[:1])
        assert framing.n_late + len(found) <= len(sound)


def _first_bad(frames):
    bad = [n for n, (_, _, protocol, pdu) in enumerate(frames) if protocol or not pdu]
    return bad[0] if bad else len(frames)


@given(st.integers(0, 12), st.integers(1, 12))
def test_a_frame_that_was_cut_off_does_not_spoil_the_next_request(kept, cut):
    """The rest of a late answer comes with, or before, the next one."""
    framing = TcpFraming()
    framing.begin(1, READ)
    late, kept = tcp(1, DATA, 1), min(kept, 12)
    assert framing.take(late[:kept]) is None
    framing.end()
    framing.begin(1, READ)
    stream = late[kept:] + tcp(1, b"\x03\x04next", 2)
    found = [framing.take(some) for some in (stream[:cut], stream[cut:])]
    assert [one for one in found if one is not None] == [b"\x03\x04next"]
    assert framing.n_late == 1
