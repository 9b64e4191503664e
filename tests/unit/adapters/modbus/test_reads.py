"""What is refused is found, left out, and tried again; the rest is read all the while."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.modbus.reads import RETRY_NS, DeviceReads, Image
from headrace.adapters.payloads.register_addresses import parse_address
from headrace.adapters.payloads.registers import RegisterTag, compile_read_map
from headrace.core.layouts import Column


def map_of(*addresses, **plan):
    return compile_read_map(
        [RegisterTag(Column(f"s{i}"), parse_address(address)) for i, address in enumerate(addresses)], **plan
    )


def refuses(read, missing):
    block = read.block
    return any((block.area, offset) in missing for offset in range(block.start, block.start + block.count))


def poll(reads, missing, now_ns):
    """One poll as the poller does it: (values read, requests)."""
    n_requests, answered, parted = 0, [], []
    again = reads.retry(now_ns)
    for read in tuple(reads.due):
        n_requests += 1
        (parted if refuses(read, missing) else answered).append(read)
    for read in parted:
        reads.part(read, 2, now_ns)
    if again is not None:
        n_requests += 1
        if not refuses(again, missing):
            reads.join(again)
    return answered, n_requests


def test_one_missing_register_takes_nothing_else():
    read_map = map_of(*[f"holding:{i}" for i in range(100, 164)])
    reads, missing = DeviceReads(read_map), {("holding", 117)}
    assert reads.is_whole
    n_read = []
    for _ in range(8):
        answered, n_requests = poll(reads, missing, 0)
        assert n_requests <= 8
        n_read.append(sum(read.block.count for read in answered))
    assert n_read == [0, 32, 48, 56, 60, 62, 63, 63], "a halving a poll"
    assert reads.reason() == "exception 2 (illegal data address) reading holding:117..117"
    assert [read_map.names(read.hole) for read in reads.refused] == [["s17"]]
    assert len(reads.due) == 6
    assert not reads.is_whole


def test_when_the_register_is_back_the_block_is_whole_again():
    reads = DeviceReads(map_of("holding:0", "holding:1", "coil:5"))
    for now_ns in range(3):
        poll(reads, {("holding", 1)}, now_ns)
    assert len(reads.due) == 2
    assert reads.retry(3) is None, "not so soon"
    _, n = poll(reads, {("holding", 1)}, 2 * RETRY_NS)
    assert n == 3, "one more request now and then"
    _, n = poll(reads, {("holding", 1)}, 2 * RETRY_NS + 1)
    assert n == 2
    poll(reads, set(), 4 * RETRY_NS)  # what is left out is tried
    assert not reads.refused
    assert not reads.is_whole
    poll(reads, set(), 6 * RETRY_NS)  # the block is tried
    assert reads.is_whole


def test_a_block_that_answers_while_a_part_of_it_is_refused():
    """A device that makes up its mind within one poll; what it said last counts."""
    reads = DeviceReads(map_of("holding:0", "holding:1", "holding:2"))
    poll(reads, {("holding", 2)}, 0)
    first, second = reads.due
    assert reads.retry(RETRY_NS) == reads.whole[0]
    reads.part(second, 2, RETRY_NS)
    reads.join(reads.whole[0])
    assert reads.is_whole
    assert not reads.refused
    assert first.block.count == 1


def test_a_device_that_refuses_all_is_asked_all_the_same():
    reads = DeviceReads(map_of("holding:0", "input:0"))
    missing = {("holding", 0), ("input", 0)}
    for now_ns in range(4):
        poll(reads, missing, now_ns)
    assert not reads.due
    assert reads.reason().endswith("(and 1 more)")
    asked = {reads.retry(now_ns).block.area for now_ns in range(8)}
    assert asked == {"holding", "input"}


def test_a_device_that_allows_few_registers_is_asked_for_few():
    reads = DeviceReads(map_of(*[f"holding:{i}" for i in range(64)]))
    for _ in range(5):
        for read in [read for read in reads.due if read.block.count > 10]:
            reads.part(read, 3, 0)
    assert {read.block.count for read in reads.due} == {8}
    assert not reads.refused


def test_values_that_overlap_are_never_parted():
    read_map = map_of("holding:0:U64", "holding:2", "holding:3.7", "holding:4")
    assert [(span.start, span.count) for span in read_map.spans[0]] == [(0, 4), (4, 1)]


@given(
    st.sets(st.integers(0, 60), min_size=1, max_size=30), st.sets(st.integers(0, 60), max_size=6),
    st.sampled_from(["holding:{}", "coil:{}"]), st.integers(0, 4), st.data(),
)  # fmt: skip
def test_in_the_end_all_that_is_there_is_read(offsets, missing, form, bridge, data):
    """Images of parted blocks hold what whole ones would, and all that is missing is a hole."""
    offsets = sorted(offsets)
    read_map = map_of(*[form.format(i) for i in offsets], bridge_gaps=bridge)
    area = form.partition(":")[0]
    gone = {(area, offset) for offset in missing}
    reads, now_ns = DeviceReads(read_map), 0
    for now_ns in range(12):
        answered, _ = poll(reads, gone, now_ns)
    readable = {offset for offset in offsets if offset not in missing}
    covered = {read.block.start + i for read in answered for i in range(read.block.count)}
    assert readable <= covered
    left_out = {name for read in reads.refused for name in read_map.names(read.hole)}
    assert left_out == {f"s{i}" for i, offset in enumerate(offsets) if offset in missing}
    table = np.frombuffer(data.draw(st.binary(min_size=64, max_size=64)), np.uint8)
    image, answers = Image(read_map), []
    for read in answered:
        some = table[read.block.start :][: read.block.count]
        bits = np.packbits(some & 1, bitorder="little").tobytes()
        answers.append(bits if area == "coil" else some.astype(">u2").tobytes())
        image.put(read, answers[-1])
    assert reads.whole_image(answers) == (image.finish() if reads.is_whole else None)
    (found,) = read_map.decode(image.finish())
    expected = table & 1 if area == "coil" else table
    for i, offset in enumerate(offsets):
        assert found.values[0, i] == (expected[offset] if offset in readable else 0)


def test_an_image_has_room_for_what_is_not_there():
    reads = DeviceReads(map_of("holding:0", "coil:3"))
    assert reads.whole_image([b"\x01", b"\0\x02"]) == b"\x01\0\x02"
    assert reads.whole_image([b"\x01", 2]) is None
    image = Image(map_of("holding:0", "coil:3"))
    image.put(reads.due[0], b"\x01")
    assert image.finish() == b"\x01\0\0"
    reads.part(reads.due[1], 2, 0)
    assert reads.whole_image([b"\x01"]) is None, "something is left out"


@given(st.sampled_from(["holding", "coil"]), st.integers(1, 125), st.binary(max_size=260), st.integers(0, 5))
def test_an_answer_is_data_or_an_exception_or_does_not_fit(area, count, tail, form):
    """The quick look at an answer finds what the thorough one does."""
    (read,) = DeviceReads(map_of(*[f"{area}:{i}" for i in range(count)])).due
    size, function = read.block.size_bytes, read.request[0]
    whole = bytes((function, size)) + (tail * size + bytes(size))[:size]
    pdu = (whole, whole[:-1], whole + b"\0", tail, bytes((function | 0x80, 2)), whole[1:])[form]
    if pdu == whole:
        assert read.answered(pdu) == whole[2:]
    elif len(pdu) == 2 and pdu[0] == function | 0x80:
        assert read.answered(pdu) == pdu[1]
    else:
        with pytest.raises(ValueError, match=f"expected function {function} with {size} data bytes"):
            read.answered(pdu)


def test_parts_that_decode_alike_have_one_key():
    one, other = map_of("holding:0", "holding:5"), map_of("holding:100", "holding:105")
    assert [p.key for p in one.parts] == [p.key for p in other.parts]
    assert [p.key for p in one.parts] != [p.key for p in map_of("holding:0", "holding:1").parts]


@pytest.mark.parametrize("area", ["holding", "coil"])
def test_requests_are_those_of_the_blocks(area):
    reads = DeviceReads(map_of(f"{area}:7", f"{area}:8"))
    assert reads.due[0].request == bytes((3 if area == "holding" else 1, 0, 7, 0, 2))
